//! A GPU as a device: its context, and its loaded kernels.

// Calls to the driver use raw handles, and launches trust the addresses in their arguments.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;

use cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, result, sys};
use cudarc::nvrtc::Ptx;

use crate::device::{CacheView, Device, Launch, TensorMap};
use crate::error::Error;
use crate::nvrtc;
use crate::sources::{FATBINS, SOURCES, Source};

/// The oldest supported driver, in the driver's version format: CUDA 12.0.
const OLDEST_DRIVER: i32 = 12_000;

/// Returns the latest version of CUDA that the driver supports, such as `13000` for 13.0. Errors name the GPU `index`.
///
/// # Errors
///
/// There is no driver, or it does not report its version.
pub fn driver_version(index: usize) -> Result<i32, Error> {
    let no_device = |reason: String| Error::NoDevice { index, reason };
    // SAFETY: this looks for a library and runs its initializers. Those of the driver are safe to run.
    if !unsafe { sys::is_culib_present() } {
        return Err(no_device("the CUDA driver (libcuda) was not found".to_owned()));
    }
    let mut version = 0;
    // SAFETY: the library is loaded. The call writes one integer and needs no prior initialization.
    let status = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    status.result().map_err(|error| no_device(format!("cannot read the driver's version: {error:?}")))?;
    Ok(version)
}

/// Returns the context of a GPU.
///
/// # Errors
///
/// The driver is missing or too old, or there is no such GPU.
pub fn context(index: usize) -> Result<Arc<CudaContext>, Error> {
    let no_device = |reason: String| Error::NoDevice { index, reason };
    let unavailable = |error: DriverError| no_device(format!("{error:?}"));
    let version = driver_version(index)?;
    if version < OLDEST_DRIVER {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        return Err(no_device(format!("the driver supports CUDA {major}.{minor}, but 12.0 or later is required")));
    }
    let count = CudaContext::device_count().map_err(unavailable)?;
    if usize::try_from(count).is_ok_and(|count| index >= count) {
        return Err(no_device(format!("this machine has {count} CUDA device(s), numbered from 0")));
    }
    CudaContext::new(index).map_err(unavailable)
}

/// Returns the largest amount of shared memory that a block can request on a GPU, in bytes.
///
/// # Errors
///
/// The driver cannot read the attribute.
pub fn shared_memory(context: &CudaContext) -> Result<i32, DriverError> {
    context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
}

/// All kernels, loaded on a GPU. Launches are queued on one stream and run in order.
#[derive(Debug)]
pub struct Module {
    stream: Arc<CudaStream>,
    arch: String,
    functions: HashMap<&'static str, CudaFunction>,
}

impl Module {
    /// Loads the built-in images. NVRTC compiles the files that have no usable image for this GPU; the results are
    /// saved in the folder `cache`, if there is one.
    ///
    /// # Errors
    ///
    /// A file has no usable image for this GPU and NVRTC cannot compile one, or the driver rejects a compiled image.
    pub fn load(stream: Arc<CudaStream>, cache: Option<&Path>) -> Result<Self, Error> {
        let context = stream.context().clone();
        let arch = architecture(&context).map_err(|error| Error::NoDevice {
            index: context.ordinal(),
            reason: format!("cannot read the device's compute capability: {error:?}"),
        })?;
        let mut functions = HashMap::new();
        for source in SOURCES {
            let failed = |error: DriverError| Error::Compile {
                file: source.file,
                arch: arch.clone(),
                reason: format!("{error:?}"),
            };
            let module = load_module(&context, source, &arch, cache)?;
            for &kernel in source.kernels {
                let function = module.load_function(kernel).map_err(failed)?;
                allow_shared_memory(&context, &function).map_err(failed)?;
                functions.insert(kernel, function);
            }
        }
        Ok(Self { stream, arch, functions })
    }

    /// Returns the architecture that the kernels are loaded for, such as `sm_90a`.
    #[must_use]
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// Returns the stream on which launches are queued.
    #[must_use]
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }
}

impl Device for Module {
    fn tensor_map(&self, view: &CacheView) -> Result<TensorMap, Error> {
        use sys::{
            CUtensorMapDataType_enum as Type, CUtensorMapFloatOOBfill_enum as Fill,
            CUtensorMapInterleave_enum as Interleave, CUtensorMapL2promotion_enum as Promotion,
            CUtensorMapSwizzle_enum as Swizzle,
        };
        let &CacheView { cache, slots, kv_heads, head_size, rows } = view;
        let failed = |error| Error::Launch { kernel: "tensor map".to_owned(), reason: format!("{error:?}") };
        self.stream.context().bind_to_thread().map_err(failed)?;
        let sizes = [head_size, kv_heads, slots].map(u64::from);
        let strides = [2 * sizes[0], 2 * sizes[0] * sizes[1]];
        let (box_sizes, element_strides) = ([64, 1, rows], [1; 3]);
        let mut map = TensorMap([0; 16]);
        // SAFETY: the driver writes 128 bytes to the map, which has the required alignment, and reads arrays that have
        // the lengths for a tensor of three dimensions.
        let status = unsafe {
            sys::cuTensorMapEncodeTiled(
                (&raw mut map).cast(),
                Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                3,
                cache.get() as usize as *mut c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                box_sizes.as_ptr(),
                element_strides.as_ptr(),
                Interleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                Fill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        status.result().map_err(failed)?;
        Ok(map)
    }

    unsafe fn launch<A: Copy>(&self, launch: &Launch<A>) -> Result<(), Error> {
        let failed = |reason: String| Error::Launch { kernel: launch.kernel.to_owned(), reason };
        let function = self.functions.get(launch.kernel).ok_or_else(|| failed("no such kernel".to_owned()))?;
        if launch.kernel.contains("wgmma") && self.arch != "sm_90a" {
            return Err(failed(format!("wgmma needs sm_90a, but this GPU is {}", self.arch)));
        }
        self.stream.context().bind_to_thread().map_err(|error| failed(format!("{error:?}")))?;
        let ([x, y, z], mut args) = (launch.grid, [std::ptr::from_ref(&launch.args).cast_mut().cast::<c_void>()]);
        // SAFETY: the function keeps its module alive, and the driver copies the one argument before it returns. The
        // caller guarantees that the kernel's addresses are valid.
        let launched = unsafe {
            let (block, shared) = ((launch.block, 1, 1), launch.shared);
            result::launch_kernel(function.cu_function(), (x, y, z), block, shared, self.stream.cu_stream(), &mut args)
        };
        launched.map_err(|error| failed(format!("{error:?}")))
    }
}

/// Returns a GPU's architecture, with the suffix that enables all its instructions: `sm_90a` rather than `sm_90`.
fn architecture(context: &CudaContext) -> Result<String, DriverError> {
    let (major, minor) = context.compute_capability()?;
    let all = if (major, minor) == (9, 0) { "a" } else { "" };
    Ok(format!("sm_{major}{minor}{all}"))
}

fn load_module(
    context: &Arc<CudaContext>,
    source: &Source,
    arch: &str,
    cache: Option<&Path>,
) -> Result<Arc<CudaModule>, Error> {
    let load = |image: Vec<u8>| context.load_module(Ptx::from_binary(image));
    let built_in = FATBINS.iter().find(|(file, _)| *file == source.file);
    let why = match built_in.map(|(_, image)| load(image.to_vec())) {
        Some(Ok(module)) => return Ok(module),
        Some(Err(error)) => format!("the driver rejects the built-in image ({error:?})"),
        None => nvrtc::NONE_BUILT_IN.to_owned(),
    };
    load(nvrtc::load_or_compile(source, arch, cache, &why)?).map_err(|error| Error::Compile {
        file: source.file,
        arch: arch.to_owned(),
        reason: format!("{why}, and the driver rejects the image that NVRTC compiled: {error:?}"),
    })
}

/// Allows a kernel to use all the shared memory that a block can request on this GPU.
fn allow_shared_memory(context: &CudaContext, function: &CudaFunction) -> Result<(), DriverError> {
    let (limit, function) = (shared_memory(context)?, function.cu_function());
    // SAFETY: the function is loaded.
    unsafe {
        let static_size = CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        let static_bytes = result::function::get_function_attribute(function, static_size)?;
        let dynamic_limit = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        result::function::set_function_attribute(function, dynamic_limit, limit - static_bytes)
    }
}
