//! A GPU as a device: its context, and every kernel loaded for it.

// The boundary to the driver: function handles, and launches that trust their addresses.
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

/// The oldest driver that is asked for anything, as it counts versions: CUDA 12.0.
const OLDEST_DRIVER: i32 = 12_000;

/// The version of CUDA that the driver is for, as in `13000`.
///
/// # Errors
///
/// There is no driver to ask for the GPU of this index, or it does not answer.
pub fn driver_version(index: usize) -> Result<i32, Error> {
    let no_device = |reason: String| Error::NoDevice { index, reason };
    // SAFETY: it looks for a library and runs its initializers, which the driver's survive.
    if !unsafe { sys::is_culib_present() } {
        return Err(no_device("there is no CUDA driver (libcuda) on this machine".to_owned()));
    }
    let mut version = 0;
    // SAFETY: the library is there; it writes one integer, and needs no initialization before.
    let status = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    status.result().map_err(|error| no_device(format!("the driver does not say its version: {error:?}")))?;
    Ok(version)
}

/// The GPU of this index.
///
/// # Errors
///
/// There is no driver, it is too old, or there is no such GPU.
pub fn context(index: usize) -> Result<Arc<CudaContext>, Error> {
    let no_device = |reason: String| Error::NoDevice { index, reason };
    let unavailable = |error: DriverError| no_device(format!("{error:?}"));
    let version = driver_version(index)?;
    if version < OLDEST_DRIVER {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        return Err(no_device(format!("the driver is for CUDA {major}.{minor}; 12.0 is the oldest that will do")));
    }
    let count = CudaContext::device_count().map_err(unavailable)?;
    if usize::try_from(count).is_ok_and(|count| index >= count) {
        return Err(no_device(format!("this machine has {count}, counted from 0")));
    }
    CudaContext::new(index).map_err(unavailable)
}

/// Bytes of shared memory that a block may ask for on a GPU.
///
/// # Errors
///
/// The GPU does not answer.
pub fn shared_memory(context: &CudaContext) -> Result<i32, DriverError> {
    context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
}

/// Every kernel, loaded on a GPU, launched in the order of one stream.
#[derive(Debug)]
pub struct Module {
    stream: Arc<CudaStream>,
    arch: String,
    functions: HashMap<&'static str, CudaFunction>,
}

impl Module {
    /// Loads the images that were built in; what has none that fits is compiled by NVRTC, once for each `cache`, a folder.
    ///
    /// # Errors
    ///
    /// A kernel has no image and none can be made.
    pub fn load(stream: Arc<CudaStream>, cache: Option<&Path>) -> Result<Self, Error> {
        let context = stream.context().clone();
        let arch = architecture(&context).map_err(|error| Error::NoDevice {
            index: context.ordinal(),
            reason: format!("its compute capability is unknown: {error:?}"),
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

    /// Returns the architecture that its kernels were made for, as in `sm_90a`.
    #[must_use]
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// Returns the stream on which launches queue.
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
        let failed = |error| Error::Launch { kernel: "a tensor map".to_owned(), reason: format!("{error:?}") };
        self.stream.context().bind_to_thread().map_err(failed)?;
        let sizes = [head_size, kv_heads, slots].map(u64::from);
        let strides = [2 * sizes[0], 2 * sizes[0] * sizes[1]];
        let (box_sizes, element_strides) = ([64, 1, rows], [1; 3]);
        let mut map = TensorMap([0; 16]);
        // SAFETY: the driver writes 128 bytes, aligned as it asks, and reads arrays of the lengths of a tensor of three dimensions.
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
        let function = self.functions.get(launch.kernel).ok_or_else(|| failed("there is no such kernel".to_owned()))?;
        if launch.kernel.contains("wgmma") && self.arch != "sm_90a" {
            return Err(failed(format!("wgmma is of sm_90a, and this GPU is {}", self.arch)));
        }
        self.stream.context().bind_to_thread().map_err(|error| failed(format!("{error:?}")))?;
        let ([x, y, z], mut args) = (launch.grid, [std::ptr::from_ref(&launch.args).cast_mut().cast::<c_void>()]);
        // SAFETY: the function's module lives in it, the driver copies the one argument before it returns, and what the
        // kernel's addresses need is the caller's promise.
        let launched = unsafe {
            let (block, shared) = ((launch.block, 1, 1), launch.shared);
            result::launch_kernel(function.cu_function(), (x, y, z), block, shared, self.stream.cu_stream(), &mut args)
        };
        launched.map_err(|error| failed(format!("{error:?}")))
    }
}

/// The architecture that has all of a GPU's instructions.
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
        Some(Err(error)) => format!("the driver refuses the image that was built in ({error:?})"),
        None => nvrtc::NONE_BUILT_IN.to_owned(),
    };
    load(nvrtc::load_or_compile(source, arch, cache, &why)?).map_err(|error| Error::Compile {
        file: source.file,
        arch: arch.to_owned(),
        reason: format!("{why}, and it refuses NVRTC's: {error:?}"),
    })
}

/// Lets a kernel use all the shared memory that a block of this GPU may ask for.
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
