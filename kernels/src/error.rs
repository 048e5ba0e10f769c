//! Errors of kernels and devices.

/// A failure to open a device, or to compile or run a kernel.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A shape that the kernel does not support.
    #[error("{kernel}: {field} is {value}, but must be {limit}")]
    Shape {
        /// The kernel's name.
        kernel: &'static str,
        /// The field of the kernel's arguments.
        field: &'static str,
        /// The field's value.
        value: u64,
        /// The allowed values.
        limit: &'static str,
    },
    /// A launch that the device rejected, or that failed while running.
    #[error("{kernel}: {reason}")]
    Launch {
        /// The kernel's name.
        kernel: String,
        /// The device's message.
        reason: String,
    },
    /// A GPU that is not available: there is no usable driver, or no such device.
    #[error("CUDA device {index} is not available: {reason}")]
    NoDevice {
        /// The index of the requested device.
        index: usize,
        /// The driver's error, or another reason, such as a missing or outdated driver.
        reason: String,
    },
    /// A file of kernels that could not be compiled or loaded for this GPU.
    #[error("cannot load {file}.cu for {arch}: {reason}")]
    Compile {
        /// The source file, without extension.
        file: &'static str,
        /// The architecture, such as `sm_90a`.
        arch: String,
        /// The compiler's or driver's message.
        reason: String,
    },
}
