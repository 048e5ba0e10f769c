//! Launching kernels on the CPU shim.

// The boundary to C++: raw pointers go in, as they would go to a GPU.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

/// In which order the threads of a block take their turns: bits must not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By thread index.
    Forward,
    /// Against it.
    Reverse,
    /// Shuffled anew at every step, by this seed.
    Random(u64),
}

/// A kernel argument: a plain value, or a pointer to memory the kernel uses.
#[derive(Debug)]
pub struct Arg<'a> {
    value: &'a c_void,
    size: usize,
}

impl<'a> Arg<'a> {
    /// The value's own bytes: an `i32`, an `f32`, a raw pointer.
    pub fn new<T: Copy>(value: &'a T) -> Self {
        // SAFETY: a reference is valid for reads of `size_of::<T>()` bytes; only that many are read.
        let erased = unsafe { &*std::ptr::from_ref(value).cast::<c_void>() };
        Self { value: erased, size: size_of::<T>() }
    }
}

/// What the shim found wrong: an unknown kernel, arguments that do not fit, a barrier that not all threads reach.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{kernel}: {reason}")]
pub struct LaunchError {
    kernel: String,
    reason: String,
}

unsafe extern "C" {
    fn cudacpu_launch(
        name: *const c_char,
        grid: *const c_uint,
        block: *const c_uint,
        shared: usize,
        args: *const *mut c_void,
        sizes: *const usize,
        count: usize,
        order: c_int,
        seed: u64,
        error: *mut c_char,
        error_len: usize,
    ) -> c_int;
}

/// Runs a kernel over a grid of blocks, as `cuLaunchKernel` would; returns when it is done.
///
/// # Errors
///
/// There is no such kernel, an argument has the wrong number or size, or the threads of a block part ways.
///
/// # Safety
///
/// Pointers among the arguments must be valid for all that the kernel reads and writes.
pub unsafe fn launch(
    kernel: &str,
    grid: [u32; 3],
    block: [u32; 3],
    shared: usize,
    args: &[Arg<'_>],
    order: Order,
) -> Result<(), LaunchError> {
    let failed = |reason: String| LaunchError { kernel: kernel.to_owned(), reason };
    let name = CString::new(kernel).map_err(|error| failed(error.to_string()))?;
    let (pointers, sizes): (Vec<*mut c_void>, Vec<usize>) =
        args.iter().map(|arg| (std::ptr::from_ref(arg.value).cast_mut(), arg.size)).unzip();
    let (order, seed) = match order {
        Order::Forward => (0, 1),
        Order::Reverse => (1, 1),
        Order::Random(seed) => (2, seed),
    };
    let mut error: [c_char; 400] = [0; 400];
    // SAFETY: all pointers are to live values of the lengths given; the shim writes at most `error.len()` bytes, ended by
    // a zero; what the kernel's own pointers need is the caller's promise.
    let status = unsafe {
        cudacpu_launch(
            name.as_ptr(),
            grid.as_ptr(),
            block.as_ptr(),
            shared,
            pointers.as_ptr(),
            sizes.as_ptr(),
            args.len(),
            order,
            seed,
            error.as_mut_ptr(),
            error.len(),
        )
    };
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the shim ended the message with a zero within the array.
    let reason = unsafe { CStr::from_ptr(error.as_ptr()) };
    Err(failed(reason.to_string_lossy().into_owned()))
}
