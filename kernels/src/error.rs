//! Errors before, at and after a launch.

/// A kernel that did not run.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The kernel has no such shape.
    #[error("{kernel}: {field} is {value}, but must be {limit}")]
    Shape {
        /// The kernel's name.
        kernel: &'static str,
        /// The field of its arguments.
        field: &'static str,
        /// The field's value.
        value: u64,
        /// The allowed values.
        limit: &'static str,
    },
    /// The device rejected the launch, or found something wrong while it ran.
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
