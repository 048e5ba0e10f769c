//! The CPU shim as a device.

// Calls into C++ pass raw pointers, as launches on a GPU do.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

use crate::device::{CacheView, Device, Launch, TensorMap};
use crate::error::Error;

/// The order in which the threads of a block run. The bits of a kernel's output must not depend on this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ascending thread index.
    Forward,
    /// Descending thread index.
    Reverse,
    /// A new random order at every turn of the scheduler, from this seed.
    Random(u64),
}

/// The CPU as a device. A launch returns when the kernel has finished. An error describes what the kernel did wrong.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// The order of the threads.
    pub order: Order,
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

impl Device for Cpu {
    fn tensor_map(&self, view: &CacheView) -> Result<TensorMap, Error> {
        let &CacheView { cache, slots, kv_heads, head_size, rows } = view;
        let mut words = [0; 16];
        words[0] = cache.get();
        words[1..5].copy_from_slice(&[head_size, kv_heads, slots, rows].map(u64::from));
        Ok(TensorMap(words))
    }

    unsafe fn launch<A: Copy>(&self, launch: &Launch<A>) -> Result<(), Error> {
        let failed = |reason: String| Error::Launch { kernel: launch.kernel.to_owned(), reason };
        let name = CString::new(launch.kernel).map_err(|error| failed(error.to_string()))?;
        let (order, seed) = match self.order {
            Order::Forward => (0, 1),
            Order::Reverse => (1, 1),
            Order::Random(seed) => (2, seed),
        };
        let block = [launch.block, 1, 1];
        let (args, size) = (std::ptr::from_ref(&launch.args).cast_mut().cast::<c_void>(), size_of::<A>());
        let mut error: [c_char; 400] = [0; 400];
        // SAFETY: all pointers point to live values of the given lengths. The shim copies `size` bytes of the
        // arguments, or rejects them, and writes at most `error.len()` bytes, including a final zero. The caller
        // guarantees that the kernel's own pointers are valid.
        let status = unsafe {
            cudacpu_launch(
                name.as_ptr(),
                launch.grid.as_ptr(),
                block.as_ptr(),
                launch.shared as usize,
                &raw const args,
                &raw const size,
                1,
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
}
