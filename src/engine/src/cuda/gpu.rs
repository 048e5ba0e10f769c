//! `Gpu`: a GPU as an accelerator. It allocates memory from the driver, copies through pinned buffers, multiplies with
//! cuBLASLt, and uses one stream for all work.

// The interface to the driver: device memory, pinned memory, and kernel launches, which trust their addresses.
#![allow(unsafe_code)]

use std::path::Path;
use std::sync::Arc;

use cudarc::driver::sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
use cudarc::driver::sys::{self, CUdevice_attribute, CUevent, CUevent_flags, CUgraphExec, CUgraphInstantiate_flags};
use cudarc::driver::{CudaContext, DriverError, result};
use surprisal_kernels::cuda::{Module, context, driver_version, shared_memory};
use surprisal_kernels::rows::Fp8Scale;
use surprisal_kernels::{Address, CacheView, Device, Launch, TensorMap};

use super::accelerator::Accelerator;
use super::cublaslt::CublasLt;
use super::device_communicator::DeviceCommunicator;
use super::gemm::{Gemm, GemmScales};
use super::memory::DeviceRegion;
use super::nccl::{self, NcclCommunicator};
use crate::backend::BackendError;

/// Size in bytes of each of the two buffers for copies to the device.
const STAGING_BYTES: usize = 16 << 20;

/// One GPU.
#[derive(Debug)]
pub struct Gpu {
    // Declared before the context, so that it is dropped first.
    cublaslt: CublasLt,
    module: Module,
    staging: [StagingBuffer; 2],
    /// Index of the next staging buffer.
    next_staging: usize,
    memory: Vec<DeviceRegion>,
    /// An event that is recorded after queued work, to wait for the work.
    done: Event,
    /// The connection to the other ranks; `None` if the GPU is not part of a group.
    communicator: Option<NcclCommunicator>,
    context: Arc<CudaContext>,
    numerics: String,
}

/// Pinned memory, and an event that is recorded after each copy from it.
#[derive(Debug)]
struct StagingBuffer {
    memory: *mut u8,
    done: CUevent,
}

// SAFETY: pinned memory and events belong to the context, which every method binds to its thread; `&mut` excludes
// concurrent use.
unsafe impl Send for StagingBuffer {}

/// A point in the stream.
#[derive(Clone, Copy, Debug)]
struct Event(CUevent);

// SAFETY: as for `StagingBuffer`.
unsafe impl Send for Event {}

/// Recorded work: a CUDA graph.
#[derive(Debug)]
pub struct Graph {
    exec: CUgraphExec,
    context: Arc<CudaContext>,
}

// SAFETY: a graph belongs to its context, which is bound to the thread wherever the graph is used; one thread uses it
// at a time.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: this is the only owner; if the graph is running, the driver keeps it until it is done.
        _ = self.context.bind_to_thread().map(|()| unsafe { result::graph::exec_destroy(self.exec) });
    }
}

fn failed(what: &str) -> impl FnOnce(DriverError) -> BackendError {
    move |error| BackendError(format!("the GPU failed {what}: {error}"))
}

impl StagingBuffer {
    fn new() -> Result<Self, DriverError> {
        let done = result::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        // SAFETY: nothing reads the memory before it is written.
        match unsafe { result::malloc_host(STAGING_BYTES, 0) } {
            Ok(memory) => Ok(Self { memory: memory.cast(), done }),
            Err(error) => {
                // SAFETY: the event was created above, and nothing else has it.
                unsafe { result::event::destroy(done) }?;
                Err(error)
            }
        }
    }
}

impl Gpu {
    /// Opens the GPU with this index and loads all kernels. Kernels that must be compiled for the GPU are cached in the
    /// folder `cache`; if it is `None`, they are compiled every time.
    ///
    /// # Errors
    ///
    /// Fails if the driver, the GPU or cuBLASLt is missing, or if a kernel cannot be built for the GPU.
    pub fn open(index: usize, cache: Option<&Path>) -> Result<Self, BackendError> {
        let context = context(index)?;
        let stream = context.new_stream().map_err(failed("to create a stream"))?;
        let module = Module::load(stream, cache)?;
        context.bind_to_thread().map_err(failed("to bind its context"))?;
        let cublaslt = CublasLt::new()?;
        let buffer = || StagingBuffer::new().map_err(failed("to pin memory"));
        let staging = [buffer()?, buffer()?];
        let done = result::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let done = Event(done.map_err(failed("to create an event"))?);
        let (driver, library) = (driver_version(index)?, CublasLt::version());
        // cuBLASLt's choice of algorithms also depends on the number of multiprocessors.
        let multiprocessors = context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
        let multiprocessors = multiprocessors.map_err(failed("to report its number of multiprocessors"))?;
        let numerics = format!("cuda-{}-{multiprocessors}-{driver}-{library}", module.arch());
        let memory = Vec::new();
        Ok(Self { cublaslt, module, staging, next_staging: 0, memory, done, communicator: None, context, numerics })
    }

    /// Opens `count` GPUs, starting at the index `first`, as the ranks of a group.
    ///
    /// # Errors
    ///
    /// Same as [`open`](Self::open). Also fails if there are too few GPUs, or if NCCL is missing.
    pub fn open_group(first: usize, count: usize, cache: Option<&Path>) -> Result<Vec<Self>, BackendError> {
        let last = first.saturating_add(count.saturating_sub(1));
        context(last).map_err(|error| BackendError(format!("{count} ranks need {count} GPUs: {error}")))?;
        let version = nccl::version()?;
        let mut gpus = (first..first + count).map(|index| Self::open(index, cache)).collect::<Result<Vec<_>, _>>()?;
        let contexts: Vec<_> = gpus.iter().map(|gpu| Arc::clone(&gpu.context)).collect();
        for (gpu, communicator) in gpus.iter_mut().zip(NcclCommunicator::group(&contexts)?) {
            tracing::info!(gpu = gpu.context.ordinal(), rank = communicator.rank(), nccl = version, "rank connected");
            gpu.communicator = Some(communicator);
        }
        Ok(gpus)
    }

    fn bind(&self) -> Result<(), BackendError> {
        self.context.bind_to_thread().map_err(failed("to bind its context"))
    }

    fn stream(&self) -> sys::CUstream {
        self.module.stream().cu_stream()
    }

    /// Waits for all queued work.
    fn synchronize(&self) -> Result<(), BackendError> {
        // SAFETY: both are live.
        unsafe { result::event::record(self.done.0, self.stream()) }.map_err(failed("to run the queued work"))?;
        self.wait(self.done.0)
    }

    /// Waits for an event. In a group, fails as soon as a rank is lost.
    fn wait(&self, event: CUevent) -> Result<(), BackendError> {
        match &self.communicator {
            Some(communicator) => communicator.wait(event),
            // SAFETY: the event is live.
            None => unsafe { result::event::synchronize(event) }.map_err(failed("to run the queued work")),
        }
    }
}

impl DeviceCommunicator for Gpu {
    fn rank(&self) -> usize {
        self.communicator.as_ref().map_or(0, NcclCommunicator::rank)
    }

    fn size(&self) -> usize {
        self.communicator.as_ref().map_or(1, NcclCommunicator::size)
    }

    fn exchange(&mut self, from: DeviceRegion, to: DeviceRegion) -> Result<(), BackendError> {
        self.bind()?;
        let stream = self.stream();
        match &mut self.communicator {
            Some(communicator) => communicator.exchange(from, to, stream),
            None => self.copy(from, to),
        }
    }

    fn gather(&mut self, all: DeviceRegion) -> Result<(), BackendError> {
        self.bind()?;
        let stream = self.stream();
        self.communicator.as_mut().map_or(Ok(()), |communicator| communicator.gather(all, stream))
    }
}

impl Accelerator for Gpu {
    type Recording = Graph;

    fn name(&self) -> String {
        let name = self.context.name().unwrap_or_else(|error| format!("a GPU with an unknown name: {error}"));
        format!("{name} (cuda:{})", self.context.ordinal())
    }

    fn numerics(&self) -> String {
        self.numerics.clone()
    }

    fn free_memory(&self) -> Result<usize, BackendError> {
        self.context.mem_get_info().map(|(free, _)| free).map_err(failed("to report its free memory"))
    }

    fn shared_memory(&self) -> Result<usize, BackendError> {
        let bytes = shared_memory(&self.context).map_err(failed("to report its shared memory per block"))?;
        Ok(bytes.max(0) as usize)
    }

    /// Checks whether CUDA calls still succeed. After a fault, every call returns that fault.
    fn is_alive(&self) -> bool {
        self.bind().and_then(|()| self.synchronize()).is_ok()
    }

    fn allocate(&mut self, bytes: usize) -> Result<DeviceRegion, BackendError> {
        self.bind()?;
        // SAFETY: the contents are undefined, as documented; the memory is freed once, when the GPU is dropped.
        let address = unsafe { result::malloc_sync(bytes.max(1)) };
        let address =
            address.map_err(|error| BackendError(format!("cannot allocate {bytes} bytes of GPU memory: {error}")))?;
        let region = DeviceRegion::new(address, bytes);
        self.memory.push(region);
        Ok(region)
    }

    fn write(&mut self, to: DeviceRegion, bytes: &[u8]) -> Result<(), BackendError> {
        self.bind()?;
        let (address, stream) = (to.checked_address(bytes.len())?.get(), self.stream());
        for (index, part) in bytes.chunks(STAGING_BYTES).enumerate() {
            let StagingBuffer { memory, done } = self.staging[self.next_staging];
            self.next_staging = 1 - self.next_staging;
            let at = address + (index * STAGING_BYTES) as u64;
            self.wait(done)?;
            // SAFETY: the buffer holds STAGING_BYTES bytes, `part` has no more, and the last copy that reads the buffer
            // is done. The region holds all bytes, and the buffer does not change until `done`.
            let copied = unsafe {
                std::ptr::copy_nonoverlapping(part.as_ptr(), memory, part.len());
                let staged = std::slice::from_raw_parts(memory, part.len());
                result::memcpy_htod_async(at, staged, stream).and_then(|()| result::event::record(done, stream))
            };
            copied.map_err(failed("to copy to its memory"))?;
        }
        Ok(())
    }

    fn read(&mut self, from: DeviceRegion, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.bind()?;
        let address = from.checked_address(bytes.len())?.get();
        if self.communicator.is_some() {
            // The copy below may block until it is done, even if a rank is lost in the meantime, so wait for the queued
            // work first.
            self.synchronize()?;
        }
        if !bytes.is_empty() {
            // SAFETY: both sides hold that many bytes, and this function does not return before the copy is done.
            let queued = unsafe { result::memcpy_dtoh_async(bytes, address, self.stream()) };
            queued.map_err(failed("to copy from its memory"))?;
        }
        self.synchronize()
    }

    fn copy(&mut self, from: DeviceRegion, to: DeviceRegion) -> Result<(), BackendError> {
        self.bind()?;
        let (bytes, to) = (to.bytes(), to.checked_address(to.bytes())?.get());
        let from = from.checked_address(bytes)?.get();
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: both regions hold that many bytes of this GPU's memory.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream()) }.map_err(failed("to copy"))
    }

    fn multiply(&mut self, gemm: &Gemm) -> Result<(), BackendError> {
        gemm.check()?;
        if gemm.rows == 0 {
            return Ok(());
        }
        self.bind()?;
        let stream = self.stream().cast();
        let Some(GemmScales { rows, columns }) = self.cublaslt.multiply(gemm, stream)? else { return Ok(()) };
        let &Gemm { out, bias, rows: count, n, .. } = gemm;
        let args = Fp8Scale {
            x: out.checked_address(count * n * 2)?,
            rows: rows.checked_address(count * 4)?,
            columns: columns.checked_address(n * 4)?,
            bias: bias.map_or(Ok(Address::NULL), |bias| bias.checked_address(n * 2))?,
            n: n as u32,
        };
        // SAFETY: the regions hold matrices of these sizes.
        unsafe { self.launch(&args.launch(count as u32)?) }
    }

    unsafe fn launch<A: Copy + Send + 'static>(&mut self, launch: &Launch<A>) -> Result<(), BackendError> {
        // SAFETY: the caller upholds the contract; the module queues on the same stream as everything else.
        Ok(unsafe { self.module.launch(launch) }?)
    }

    fn tensor_map(&self, view: &CacheView) -> Result<TensorMap, BackendError> {
        Ok(self.module.tensor_map(view)?)
    }

    fn record(&mut self, work: impl FnOnce(&mut Self) -> Result<(), BackendError>) -> Result<Graph, BackendError> {
        self.bind()?;
        let stream = self.stream();
        // SAFETY: the stream is live, and nothing else queues on it.
        let begun = unsafe { result::stream::begin_capture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) };
        begun.map_err(failed("to begin a graph"))?;
        let queued = work(self);
        // SAFETY: the stream is capturing; the capture ends even if `work` failed.
        let graph = unsafe { result::stream::end_capture(stream) }.map_err(failed("to end a graph"));
        let exec = queued.and(graph.clone()).and_then(|graph| {
            // SAFETY: the graph is complete.
            unsafe { result::graph::instantiate(graph, CUgraphInstantiate_flags(0)) }
                .map_err(failed("to instantiate a graph"))
        });
        if let Ok(graph) = graph {
            // SAFETY: the executable graph is a copy.
            unsafe { result::graph::destroy(graph) }.map_err(failed("to destroy a graph"))?;
        }
        let recorded = Graph { exec: exec?, context: Arc::clone(&self.context) };
        self.replay(&recorded)?;
        Ok(recorded)
    }

    fn replay(&mut self, recording: &Graph) -> Result<(), BackendError> {
        self.bind()?;
        // SAFETY: both are live; the contract of the recorded launches covers replays.
        unsafe { result::graph::launch(recording.exec, self.stream()) }.map_err(failed("to launch a graph"))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // Drop the communicator first, which ends the GPU's waits for other ranks. Then wait for the queued work, which
        // uses the memory that is freed below. If the context is lost, its memory is lost too.
        let bound = self.bind();
        self.communicator = None;
        if bound.and_then(|()| self.synchronize()).is_err() {
            return;
        }
        // SAFETY: no queued work uses these anymore, and each is freed once.
        unsafe {
            for region in &self.memory {
                _ = region.checked_address(0).map(|address| result::free_sync(address.get()));
            }
            for buffer in &self.staging {
                _ = result::free_host(buffer.memory.cast());
                _ = result::event::destroy(buffer.done);
            }
            _ = result::event::destroy(self.done.0);
        }
    }
}
