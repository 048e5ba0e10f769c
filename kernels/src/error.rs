//! What can go wrong before, at and after a launch.

/// Why a kernel did not run.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The kernel has no such shape.
    #[error("{kernel}: {field} is {value}, but must be {limit}")]
    Shape {
        /// The kernel's name.
        kernel: &'static str,
        /// Which field of its arguments.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What it may be.
        limit: &'static str,
    },
    /// The device refused the launch, or found something wrong while it ran.
    #[error("{kernel}: {reason}")]
    Launch {
        /// The kernel's name.
        kernel: String,
        /// In the device's words.
        reason: String,
    },
    /// There is no GPU to be had: no driver, or no such device.
    #[error("no CUDA device {index}: {reason}")]
    NoDevice {
        /// The device asked for.
        index: usize,
        /// In the driver's words, or that there is no driver.
        reason: String,
    },
    /// No image of a kernel for this GPU could be made or loaded.
    #[error("{file}.cu for {arch}: {reason}")]
    Compile {
        /// The source file, without its ending.
        file: &'static str,
        /// The architecture, as in `sm_90a`.
        arch: String,
        /// The compiler's or driver's words.
        reason: String,
    },
}
