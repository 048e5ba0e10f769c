//! A GPU as an accelerator: the driver's memory, copies through pinned buffers, cuBLASLt, and one stream for all of it.

// The boundary to the driver: device memory, pinned memory, and launches that trust their addresses.
#![allow(unsafe_code)]

use std::path::Path;
use std::sync::Arc;

use cudarc::driver::sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
use cudarc::driver::sys::{self, CUdevice_attribute, CUevent, CUevent_flags, CUgraphExec, CUgraphInstantiate_flags};
use cudarc::driver::{CudaContext, DriverError, result};
use surprisal_kernels::cuda::{Module, context, driver_version, shared_memory};
use surprisal_kernels::rows::Fp8Scale;
use surprisal_kernels::{Address, CacheView, Device, Launch, TensorMap};

use super::accelerator::{Accelerator, Product, Region, Scales};
use super::collective::Collective;
use super::nccl::{self, Peers};
use super::products::Products;
use crate::backend::BackendError;

/// Bytes of each of the two buffers that copies to the device go through.
const STAGE: usize = 16 << 20;

/// One GPU.
#[derive(Debug)]
pub struct Gpu {
    // Before what it is a view of: it is dropped first.
    products: Products,
    module: Module,
    stages: [Stage; 2],
    /// Which of them is next.
    turn: usize,
    memory: Vec<Region>,
    /// When what is read is there.
    done: Event,
    /// Its end of a group, if there are others.
    peers: Option<Peers>,
    context: Arc<CudaContext>,
    numerics: String,
}

/// Pinned memory, and when the last copy from it is done.
#[derive(Debug)]
struct Stage {
    memory: *mut u8,
    done: CUevent,
}

// SAFETY: pinned memory and events are of the context, which every method binds to its thread; `&mut` keeps threads apart.
unsafe impl Send for Stage {}

/// A point of the stream.
#[derive(Clone, Copy, Debug)]
struct Event(CUevent);

// SAFETY: as above.
unsafe impl Send for Event {}

/// Work in the form of a CUDA graph.
#[derive(Debug)]
pub struct Graph {
    exec: CUgraphExec,
    context: Arc<CudaContext>,
}

// SAFETY: a graph is of its context, which is bound to the thread wherever the graph is used; it is used by one at a time.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it was made once and nobody else has it; the driver keeps what is running until it has run.
        _ = self.context.bind_to_thread().map(|()| unsafe { result::graph::exec_destroy(self.exec) });
    }
}

fn failed(what: &str) -> impl FnOnce(DriverError) -> BackendError {
    move |error| BackendError(format!("the GPU failed {what}: {error}"))
}

impl Stage {
    fn new() -> Result<Self, DriverError> {
        let done = result::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        // SAFETY: nothing reads what is there before it was written.
        match unsafe { result::malloc_host(STAGE, 0) } {
            Ok(memory) => Ok(Self { memory: memory.cast(), done }),
            Err(error) => {
                // SAFETY: it was made above and nobody has it.
                unsafe { result::event::destroy(done) }?;
                Err(error)
            }
        }
    }
}

impl Gpu {
    /// The GPU of this index, every kernel loaded. Kernels compiled on the way are kept in `cache`, a folder.
    ///
    /// # Errors
    ///
    /// There is no driver, no such GPU, no cuBLASLt, or a kernel that cannot be had for it.
    pub fn open(index: usize, cache: Option<&Path>) -> Result<Self, BackendError> {
        let context = context(index)?;
        let stream = context.new_stream().map_err(failed("to make a stream"))?;
        let module = Module::load(stream, cache)?;
        context.bind_to_thread().map_err(failed("to bind its context"))?;
        let products = Products::new()?;
        let stage = || Stage::new().map_err(failed("to pin memory"));
        let stages = [stage()?, stage()?];
        let done = result::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let done = Event(done.map_err(failed("to make an event"))?);
        let (driver, library) = (driver_version(index)?, Products::version());
        // cuBLASLt chooses algorithms by their number, too.
        let multiprocessors = context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
        let multiprocessors = multiprocessors.map_err(failed("to count its multiprocessors"))?;
        let numerics = format!("cuda-{}-{multiprocessors}-{driver}-{library}", module.arch());
        Ok(Self { products, module, stages, turn: 0, memory: Vec::new(), done, peers: None, context, numerics })
    }

    /// So many GPUs from an index on, as ranks of a group.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); there are fewer, or no NCCL.
    pub fn open_group(first: usize, count: usize, cache: Option<&Path>) -> Result<Vec<Self>, BackendError> {
        let last = first.saturating_add(count.saturating_sub(1));
        context(last).map_err(|error| BackendError(format!("{count} ranks need as many GPUs: {error}")))?;
        let version = nccl::version()?;
        let mut gpus = (first..first + count).map(|index| Self::open(index, cache)).collect::<Result<Vec<_>, _>>()?;
        let contexts: Vec<_> = gpus.iter().map(|gpu| Arc::clone(&gpu.context)).collect();
        for (gpu, peers) in gpus.iter_mut().zip(Peers::group(&contexts)?) {
            tracing::info!(gpu = gpu.context.ordinal(), rank = peers.rank(), nccl = version, "a rank is connected");
            gpu.peers = Some(peers);
        }
        Ok(gpus)
    }

    fn bind(&self) -> Result<(), BackendError> {
        self.context.bind_to_thread().map_err(failed("to bind its context"))
    }

    fn stream(&self) -> sys::CUstream {
        self.module.stream().cu_stream()
    }

    /// Waits for all that is queued.
    fn synchronize(&self) -> Result<(), BackendError> {
        // SAFETY: both are live.
        unsafe { result::event::record(self.done.0, self.stream()) }.map_err(failed("in what was queued"))?;
        self.wait(self.done.0)
    }

    /// Waits for an event; among ranks, for no longer than all of them are there.
    fn wait(&self, event: CUevent) -> Result<(), BackendError> {
        match &self.peers {
            Some(peers) => peers.wait(event),
            // SAFETY: the event is live.
            None => unsafe { result::event::synchronize(event) }.map_err(failed("in what was queued")),
        }
    }
}

impl Collective for Gpu {
    fn rank(&self) -> usize {
        self.peers.as_ref().map_or(0, Peers::rank)
    }

    fn size(&self) -> usize {
        self.peers.as_ref().map_or(1, Peers::size)
    }

    fn exchange(&mut self, from: Region, to: Region) -> Result<(), BackendError> {
        self.bind()?;
        let stream = self.stream();
        match &mut self.peers {
            Some(peers) => peers.exchange(from, to, stream),
            None => self.copy(from, to),
        }
    }

    fn gather(&mut self, all: Region) -> Result<(), BackendError> {
        self.bind()?;
        let stream = self.stream();
        self.peers.as_mut().map_or(Ok(()), |peers| peers.gather(all, stream))
    }
}

impl Accelerator for Gpu {
    type Recording = Graph;

    fn name(&self) -> String {
        let name = self.context.name().unwrap_or_else(|error| format!("a GPU whose name is unknown: {error}"));
        format!("{name} (cuda:{})", self.context.ordinal())
    }

    fn numerics(&self) -> String {
        self.numerics.clone()
    }

    fn free_memory(&self) -> Result<usize, BackendError> {
        self.context.mem_get_info().map(|(free, _)| free).map_err(failed("to say what memory is free"))
    }

    fn shared_memory(&self) -> Result<usize, BackendError> {
        let bytes = shared_memory(&self.context).map_err(failed("to say what shared memory a block may have"))?;
        Ok(bytes.max(0) as usize)
    }

    /// After a fault CUDA answers every call with that fault.
    fn is_alive(&self) -> bool {
        self.bind().and_then(|()| self.synchronize()).is_ok()
    }

    fn allocate(&mut self, bytes: usize) -> Result<Region, BackendError> {
        self.bind()?;
        // SAFETY: what is in it is undefined, as promised; it is freed once, when this is dropped.
        let address = unsafe { result::malloc_sync(bytes.max(1)) };
        let address = address.map_err(|error| BackendError(format!("{bytes} bytes of GPU memory: {error}")))?;
        let region = Region::new(address, bytes);
        self.memory.push(region);
        Ok(region)
    }

    fn write(&mut self, to: Region, bytes: &[u8]) -> Result<(), BackendError> {
        self.bind()?;
        let (address, stream) = (to.holding(bytes.len())?.get(), self.stream());
        for (index, part) in bytes.chunks(STAGE).enumerate() {
            let Stage { memory, done } = self.stages[self.turn];
            self.turn = 1 - self.turn;
            let at = address + (index * STAGE) as u64;
            self.wait(done)?;
            // SAFETY: the buffer holds STAGE bytes, `part` has no more, and the wait ended the last copy that reads it; the
            // region holds all bytes, and the buffer stays as it is until `done`.
            let copied = unsafe {
                std::ptr::copy_nonoverlapping(part.as_ptr(), memory, part.len());
                let staged = std::slice::from_raw_parts(memory, part.len());
                result::memcpy_htod_async(at, staged, stream).and_then(|()| result::event::record(done, stream))
            };
            copied.map_err(failed("to copy to its memory"))?;
        }
        Ok(())
    }

    fn read(&mut self, from: Region, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.bind()?;
        let address = from.holding(bytes.len())?.get();
        if self.peers.is_some() {
            // The copy below may block until it is done, whoever is lost meanwhile.
            self.synchronize()?;
        }
        if !bytes.is_empty() {
            // SAFETY: both sides hold so many bytes, and this does not return before the copy is done.
            let queued = unsafe { result::memcpy_dtoh_async(bytes, address, self.stream()) };
            queued.map_err(failed("to copy from its memory"))?;
        }
        self.synchronize()
    }

    fn copy(&mut self, from: Region, to: Region) -> Result<(), BackendError> {
        self.bind()?;
        let (bytes, to) = (to.bytes(), to.holding(to.bytes())?.get());
        let from = from.holding(bytes)?.get();
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: both regions hold so many bytes of this GPU's memory.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream()) }.map_err(failed("to copy"))
    }

    fn multiply(&mut self, product: &Product) -> Result<(), BackendError> {
        product.check()?;
        if product.rows == 0 {
            return Ok(());
        }
        self.bind()?;
        let stream = self.stream().cast();
        let Some(Scales { rows, columns }) = self.products.multiply(product, stream)? else { return Ok(()) };
        let &Product { out, bias, rows: count, n, .. } = product;
        let args = Fp8Scale {
            x: out.holding(count * n * 2)?,
            rows: rows.holding(count * 4)?,
            columns: columns.holding(n * 4)?,
            bias: bias.map_or(Ok(Address::NULL), |bias| bias.holding(n * 2))?,
            n: n as u32,
        };
        // SAFETY: the regions hold what the shape says.
        unsafe { self.launch(&args.launch(count as u32)?) }
    }

    unsafe fn launch<A: Copy + Send + 'static>(&mut self, launch: &Launch<A>) -> Result<(), BackendError> {
        // SAFETY: the caller's promise; the module queues on the stream that everything else is in.
        Ok(unsafe { self.module.launch(launch) }?)
    }

    fn tensor_map(&self, view: &CacheView) -> Result<TensorMap, BackendError> {
        Ok(self.module.tensor_map(view)?)
    }

    fn record(&mut self, work: impl FnOnce(&mut Self) -> Result<(), BackendError>) -> Result<Graph, BackendError> {
        self.bind()?;
        let stream = self.stream();
        // SAFETY: the stream is live, and nobody else queues on it.
        let begun = unsafe { result::stream::begin_capture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) };
        begun.map_err(failed("to begin a graph"))?;
        let queued = work(self);
        // SAFETY: it has been capturing since; it stops in any case.
        let graph = unsafe { result::stream::end_capture(stream) }.map_err(failed("to end a graph"));
        let exec = queued.and(graph.clone()).and_then(|graph| {
            // SAFETY: the graph is whole.
            unsafe { result::graph::instantiate(graph, CUgraphInstantiate_flags(0)) }.map_err(failed("to make a graph"))
        });
        if let Ok(graph) = graph {
            // SAFETY: what was made of it has a copy.
            unsafe { result::graph::destroy(graph) }.map_err(failed("to let go of a graph"))?;
        }
        let recorded = Graph { exec: exec?, context: Arc::clone(&self.context) };
        self.replay(&recorded)?;
        Ok(recorded)
    }

    fn replay(&mut self, recording: &Graph) -> Result<(), BackendError> {
        self.bind()?;
        // SAFETY: both are live; whoever launched what is in it promised for this too.
        unsafe { result::graph::launch(recording.exec, self.stream()) }.map_err(failed("to launch a graph"))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // What waits for other ranks waits no longer, and what is queued ends first. If the context is lost, its memory is too, and nothing is left to do about it.
        let bound = self.bind();
        self.peers = None;
        if bound.and_then(|()| self.synchronize()).is_err() {
            return;
        }
        // SAFETY: nothing that is queued uses them any more, and each is freed once.
        unsafe {
            for region in &self.memory {
                _ = region.holding(0).map(|address| result::free_sync(address.get()));
            }
            for stage in &self.stages {
                _ = result::free_host(stage.memory.cast());
                _ = result::event::destroy(stage.done);
            }
            _ = result::event::destroy(self.done.0);
        }
    }
}
