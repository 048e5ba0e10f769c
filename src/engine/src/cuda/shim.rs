//! `Shim`: an accelerator for tests. It runs the CUDA kernels on the kernels crate's CPU shim, and computes matrix
//! products with plain loops.

// Regions are addresses in this process. The comment on each unsafe block explains why its use of them is sound.
#![allow(unsafe_code)]

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use surprisal_kernels::cpu::{Cpu, Order};
use surprisal_kernels::{CacheView, Device, Launch, TensorMap};

use super::accelerator::Accelerator;
use super::device_communicator::DeviceCommunicator;
use super::gemm::{Gemm, GemmScales};
use super::memory::DeviceRegion;
use crate::backend::BackendError;
use crate::parallel::communicator::Communicator;

/// Number of partial sums that a dot product accumulates in parallel. The order of additions is fixed, and suits vector
/// units.
const LANES: usize = 16;

/// An accelerator that uses this process's memory and runs every kernel on the CPU shim.
pub struct Shim {
    order: Order,
    memory: Vec<Box<[AlignedBytes]>>,
    capacity: usize,
    /// Bytes of shared memory per thread block.
    shared_memory: usize,
    /// The connection to the other ranks; `None` if the device is not part of a group.
    communicator: Option<Box<dyn Communicator>>,
    recording: Option<Vec<RecordedOperation>>,
    /// `true` if the device can record operations.
    can_record: bool,
    replays: Arc<AtomicUsize>,
    lost: Arc<AtomicBool>,
}

/// A recorded operation.
type RecordedOperation = Box<dyn Fn(&mut Shim) -> Result<(), BackendError> + Send>;

/// The operations that a shim has recorded.
pub struct ShimRecording(Vec<RecordedOperation>);

impl Debug for ShimRecording {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} steps", self.0.len())
    }
}

/// A piece of memory, aligned as regions are.
#[derive(Clone, Copy, Debug)]
#[repr(align(256))]
struct AlignedBytes(#[expect(dead_code, reason = "read and written through pointers")] [u8; 256]);

impl Debug for Shim {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shim").field("order", &self.order).field("bytes", &self.used()).finish_non_exhaustive()
    }
}

impl Shim {
    /// Creates a device with `capacity` bytes of memory that runs threads in the given order.
    #[must_use]
    pub fn new(capacity: usize, order: Order) -> Self {
        Self {
            order,
            memory: Vec::new(),
            capacity,
            shared_memory: usize::MAX,
            communicator: None,
            recording: None,
            can_record: true,
            replays: Arc::default(),
            lost: Arc::default(),
        }
    }

    /// Limits the shared memory of a thread block, in bytes.
    #[must_use]
    pub fn with_shared_memory(self, shared_memory: usize) -> Self {
        Self { shared_memory, ..self }
    }

    /// Makes every recording fail.
    #[must_use]
    pub fn without_recording(self) -> Self {
        Self { can_record: false, ..self }
    }

    /// Returns a flag that, when set, makes the device lost: it rejects all further kernel launches, like a GPU after a
    /// fault.
    #[must_use]
    pub fn lost_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.lost)
    }

    /// Returns the counter of replayed recordings.
    #[must_use]
    pub fn replays(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.replays)
    }

    /// Makes the device a rank of a group.
    #[must_use]
    pub fn with_communicator(self, communicator: Box<dyn Communicator>) -> Self {
        Self { communicator: Some(communicator), ..self }
    }

    /// Adds an operation to the current recording, if any.
    fn record_operation(&mut self, operation: impl Fn(&mut Self) -> Result<(), BackendError> + Send + 'static) {
        if let Some(operations) = &mut self.recording {
            operations.push(Box::new(operation));
        }
    }

    /// Fails while the device records, because a recording cannot contain copies from or to the host.
    fn check_not_recording(&self) -> Result<(), BackendError> {
        match self.recording {
            Some(_) => Err(BackendError("a recording cannot contain copies from or to the host".to_owned())),
            None => Ok(()),
        }
    }

    fn used(&self) -> usize {
        self.memory.iter().map(|lines| size_of_val(&**lines)).sum()
    }
}

/// Returns a pointer to a region. Callers respect the aliasing rules: no slice outlives the call that created it, and
/// no live slice overlaps a mutable one.
fn pointer<T>(region: DeviceRegion, bytes: usize) -> Result<*mut T, BackendError> {
    Ok(std::ptr::with_exposed_provenance_mut(region.checked_address(bytes)?.get() as usize))
}

/// Reads e4m3 values, and decodes them according to the format's definition.
fn fp8_values(region: DeviceRegion, count: usize) -> Result<Vec<f32>, BackendError> {
    let value = |byte: u8| {
        let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
        let size = match (exponent, byte & 7) {
            (15, 7) => f32::NAN,
            (0, _) => mantissa / 8.0 * 2f32.powi(-6),
            _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
        };
        if byte & 0x80 == 0 { size } else { -size }
    };
    let table: Vec<f32> = (0..=255).map(value).collect();
    let pointer = pointer::<u8>(region, count)?;
    // SAFETY: as for `bf16_values`.
    let bytes = unsafe { std::slice::from_raw_parts(pointer, count) };
    Ok(bytes.iter().map(|&byte| table[usize::from(byte)]).collect())
}

/// Reads f32 values.
fn f32_values(region: DeviceRegion, count: usize) -> Result<Vec<f32>, BackendError> {
    let pointer = pointer::<f32>(region, count * 4)?;
    // SAFETY: as for `bf16_values`; any bits are an f32.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) }.to_vec())
}

/// Reads bf16 values.
fn bf16_values(region: DeviceRegion, count: usize) -> Result<Vec<f32>, BackendError> {
    let pointer = pointer::<u16>(region, count * 2)?;
    // SAFETY: regions are in memory of the shim that owns them, which is initialized; nothing writes to it in the
    // meantime.
    let bits = unsafe { std::slice::from_raw_parts(pointer, count) };
    Ok(bits.iter().map(|&bits| f32::from_bits(u32::from(bits) << 16)).collect())
}

fn dot(x: &[f32], w: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for (x, w) in x.chunks(LANES).zip(w.chunks(LANES)) {
        for ((sum, x), w) in sums.iter_mut().zip(x).zip(w) {
            *sum += x * w;
        }
    }
    sums.iter().sum()
}

/// Rounds a value to bf16, ties to even, and returns the result's bits.
fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() { 0x7fff } else { ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16 }
}

/// Communication through memory that the ranks' threads share. Every four bytes are sent as one f64, which represents
/// them exactly.
impl DeviceCommunicator for Shim {
    fn rank(&self) -> usize {
        self.communicator.as_ref().map_or(0, |communicator| communicator.rank())
    }

    fn size(&self) -> usize {
        self.communicator.as_ref().map_or(1, |communicator| communicator.size())
    }

    fn exchange(&mut self, from: DeviceRegion, to: DeviceRegion) -> Result<(), BackendError> {
        let (rank, size) = (self.rank(), self.size());
        let gathered = self.gather_bytes(from)?;
        let slice = from.slice(rank, size)?.bytes();
        gathered
            .iter()
            .enumerate()
            .try_for_each(|(other, bytes)| self.write(to.slice(other, size)?, &bytes[rank * slice..(rank + 1) * slice]))
    }

    fn gather(&mut self, all: DeviceRegion) -> Result<(), BackendError> {
        let (rank, size) = (self.rank(), self.size());
        let gathered = self.gather_bytes(all.slice(rank, size)?)?;
        gathered.iter().enumerate().try_for_each(|(other, bytes)| self.write(all.slice(other, size)?, bytes))
    }
}

impl Shim {
    /// Returns the bytes of the region from every rank, in rank order.
    fn gather_bytes(&mut self, region: DeviceRegion) -> Result<Vec<Vec<u8>>, BackendError> {
        let mut bytes = vec![0; region.bytes()];
        self.read(region, &mut bytes)?;
        let Some(communicator) = &mut self.communicator else {
            return Ok(vec![bytes]);
        };
        let word = |bytes: &[u8]| {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            f64::from(u32::from_le_bytes(word))
        };
        let gathered = communicator.all_gather(bytes.chunks(4).map(word).collect())?;
        let bytes = |words: Vec<f64>| {
            let mut all: Vec<u8> = words.into_iter().flat_map(|word| (word as u32).to_le_bytes()).collect();
            all.truncate(region.bytes());
            all
        };
        Ok(gathered.into_iter().map(bytes).collect())
    }
}

impl Accelerator for Shim {
    type Recording = ShimRecording;

    fn name(&self) -> String {
        "cpu shim".to_owned()
    }

    fn numerics(&self) -> String {
        "shim".to_owned()
    }

    fn free_memory(&self) -> Result<usize, BackendError> {
        Ok(self.capacity - self.used())
    }

    fn shared_memory(&self) -> Result<usize, BackendError> {
        Ok(self.shared_memory)
    }

    fn is_alive(&self) -> bool {
        !self.lost.load(Ordering::SeqCst)
    }

    /// Fills the memory with 0xff, a NaN in every floating-point type, so that tests detect reads of unwritten memory.
    fn allocate(&mut self, bytes: usize) -> Result<DeviceRegion, BackendError> {
        let free = self.free_memory()?;
        if bytes > free {
            return Err(BackendError(format!("cannot allocate {bytes} bytes of memory; {free} are free")));
        }
        let mut lines = vec![AlignedBytes([0xff; 256]); bytes.div_ceil(256)].into_boxed_slice();
        let region = DeviceRegion::new(lines.as_mut_ptr().expose_provenance() as u64, bytes);
        self.memory.push(lines);
        Ok(region)
    }

    fn write(&mut self, to: DeviceRegion, bytes: &[u8]) -> Result<(), BackendError> {
        self.check_not_recording()?;
        let to = pointer::<u8>(to, bytes.len())?;
        // SAFETY: the region is in this shim's memory, and `bytes` is not.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    fn read(&mut self, from: DeviceRegion, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.check_not_recording()?;
        let from = pointer::<u8>(from, bytes.len())?;
        // SAFETY: as for `write`.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn copy(&mut self, from: DeviceRegion, to: DeviceRegion) -> Result<(), BackendError> {
        self.record_operation(move |shim| shim.copy(from, to));
        let bytes = to.bytes();
        let (from, to) = (pointer::<u8>(from, bytes)?, pointer::<u8>(to, bytes)?);
        // SAFETY: both are in this shim's memory.
        unsafe { std::ptr::copy(from, to, bytes) };
        Ok(())
    }

    fn multiply(&mut self, gemm: &Gemm) -> Result<(), BackendError> {
        let &Gemm { out, x, weights, bias, rows, n, k, out_f32, scales } = gemm;
        gemm.check()?;
        let again = *gemm;
        self.record_operation(move |shim| shim.multiply(&again));
        let matrix = if scales.is_some() { fp8_values } else { bf16_values };
        let (x, weights) = (matrix(x, rows * k)?, matrix(weights, n * k)?);
        let bias = bias.map_or_else(|| Ok(vec![0.0; n]), |bias| bf16_values(bias, n))?;
        let (row_scales, column_scales) = match scales {
            Some(GemmScales { rows: row_scales, columns }) => (f32_values(row_scales, rows)?, f32_values(columns, n)?),
            None => (vec![1.0; rows], vec![1.0; n]),
        };
        let sums = x.chunks(k).zip(&row_scales).flat_map(|(x, row)| {
            let columns = weights.chunks(k).zip(&column_scales).zip(&bias);
            columns.map(move |((w, column), bias)| dot(x, w) * (row * column) + bias)
        });
        if out_f32 {
            let out = pointer::<f32>(out, rows * n * 4)?;
            // SAFETY: `out` holds that many values, and `x` and `weights` are copies.
            sums.enumerate().for_each(|(i, sum)| unsafe { out.add(i).write(sum) });
        } else {
            let out = pointer::<u16>(out, rows * n * 2)?;
            // SAFETY: as above.
            sums.enumerate().for_each(|(i, sum)| unsafe { out.add(i).write(bf16_bits(sum)) });
        }
        Ok(())
    }

    unsafe fn launch<A: Copy + Send + 'static>(&mut self, launch: &Launch<A>) -> Result<(), BackendError> {
        if !self.is_alive() {
            return Err(BackendError("the shim is lost".to_owned()));
        }
        let again = *launch;
        // SAFETY: the caller upholds the contract, also for replays.
        self.record_operation(move |shim| unsafe { shim.launch(&again) });
        // SAFETY: the caller upholds the contract.
        Ok(unsafe { Cpu { order: self.order }.launch(launch) }?)
    }

    fn tensor_map(&self, view: &CacheView) -> Result<TensorMap, BackendError> {
        Ok(Cpu { order: self.order }.tensor_map(view)?)
    }

    fn record(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), BackendError>,
    ) -> Result<ShimRecording, BackendError> {
        if !self.can_record {
            return Err(BackendError("the shim cannot record".to_owned()));
        }
        self.recording = Some(Vec::new());
        let done = work(self);
        let operations = self.recording.take().unwrap_or_default();
        done.map(|()| ShimRecording(operations))
    }

    fn replay(&mut self, recording: &ShimRecording) -> Result<(), BackendError> {
        self.replays.fetch_add(1, Ordering::Relaxed);
        recording.0.iter().try_for_each(|operation| operation(self))
    }
}
