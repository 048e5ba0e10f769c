//! Code shared by the kernels' tests: the device, its memory, random values, and launches in a chosen thread order.
//!
//! The device is the CPU shim, or GPU N if `SURPRISAL_TEST_GPU=N` is set and the feature `cuda` is enabled.

#![allow(unsafe_code, clippy::unwrap_used, dead_code, unreachable_pub)]

use std::marker::PhantomData;

use half::bf16;
use proptest::test_runner::{Config, RngSeed};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_kernels::cpu::{Cpu, Order};
use surprisal_kernels::{Address, CacheView, Device, Error, Launch, TensorMap};

/// The thread orders to test. Results must be bit-identical in all of them.
pub const ORDERS: [Order; 3] = [Order::Forward, Order::Reverse, Order::Random(7)];

/// Returns a proptest configuration with `count` random cases, the same in every run.
pub fn proptest_config(count: u32) -> Config {
    let seed = RngSeed::Fixed(1);
    Config { cases: count, rng_seed: seed, max_shrink_iters: 32, failure_persistence: None, ..Config::default() }
}

pub fn rng(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

pub fn random(rng: &mut ChaCha8Rng, len: usize, spread: f32) -> Vec<bf16> {
    (0..len).map(|_| bf16::from_f32(rng.random_range(-spread..spread))).collect()
}

/// Values in the memory of the tests' device, 256-byte aligned.
pub struct Buffer<T> {
    memory: Memory,
    len: usize,
    values: PhantomData<T>,
}

enum Memory {
    Shim(Vec<AlignedChunk>),
    #[cfg(feature = "cuda")]
    Gpu(cudarc::driver::CudaSlice<u8>),
}

#[derive(Clone, Copy)]
#[repr(align(256))]
struct AlignedChunk([u8; 256]);

/// A number type for which every bit pattern is valid.
pub trait Number: Copy {}
impl Number for u8 {}
impl Number for i32 {}
impl Number for u32 {}
impl Number for f32 {}
impl Number for bf16 {}

impl<T: Number> Buffer<T> {
    pub fn of(values: &[T]) -> Self {
        // SAFETY: numbers have no padding.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        Self { memory: Memory::of(bytes), len: values.len(), values: PhantomData }
    }

    /// Creates a buffer of `len` copies of a value, for a kernel to overwrite.
    pub fn full(len: usize, value: T) -> Self {
        Self::of(&vec![value; len])
    }

    pub fn values(&self) -> Vec<T> {
        let bytes = self.memory.bytes(self.len * size_of::<T>());
        // SAFETY: the bytes hold `len` numbers, and every bit pattern is a valid number.
        (0..self.len).map(|i| unsafe { bytes.as_ptr().cast::<T>().add(i).read_unaligned() }).collect()
    }

    pub fn address(&self) -> Address {
        match &self.memory {
            Memory::Shim(chunks) => Address::of(chunks),
            #[cfg(feature = "cuda")]
            Memory::Gpu(slice) => gpu::address(slice),
        }
    }

    pub fn address_mut(&mut self) -> Address {
        match &mut self.memory {
            Memory::Shim(chunks) => Address::of_mut(chunks),
            #[cfg(feature = "cuda")]
            Memory::Gpu(slice) => gpu::address(slice),
        }
    }
}

impl Memory {
    fn of(bytes: &[u8]) -> Self {
        #[cfg(feature = "cuda")]
        if let Some(module) = gpu::module() {
            // The driver cannot allocate zero bytes.
            let bytes = if bytes.is_empty() { &[0] } else { bytes };
            return Self::Gpu(module.stream().clone_htod(bytes).unwrap());
        }
        let chunk = |part: &[u8]| {
            let mut chunk = AlignedChunk([0xff; 256]);
            chunk.0[..part.len()].copy_from_slice(part);
            chunk
        };
        Self::Shim(bytes.chunks(256).map(chunk).collect())
    }

    fn bytes(&self, len: usize) -> Vec<u8> {
        match self {
            Self::Shim(chunks) => chunks.iter().flat_map(|chunk| chunk.0).take(len).collect(),
            #[cfg(feature = "cuda")]
            Self::Gpu(slice) => {
                let mut bytes = gpu::module().unwrap().stream().clone_dtoh(slice).unwrap();
                bytes.truncate(len);
                bytes
            }
        }
    }
}

#[cfg(feature = "cuda")]
mod gpu {
    //! The GPU that the tests run on.

    use std::sync::OnceLock;

    use cudarc::driver::{CudaSlice, DevicePtr};
    use surprisal_kernels::Address;
    use surprisal_kernels::cuda::{Module, context};

    pub fn module() -> Option<&'static Module> {
        static MODULE: OnceLock<Option<Module>> = OnceLock::new();
        let load = |index: String| {
            let context = context(index.parse().unwrap()).unwrap();
            let kernels = std::env::temp_dir().join("surprisal-test-kernels");
            Module::load(context.new_stream().unwrap(), Some(&kernels)).unwrap()
        };
        MODULE.get_or_init(|| std::env::var("SURPRISAL_TEST_GPU").ok().map(load)).as_ref()
    }

    pub fn address(slice: &CudaSlice<u8>) -> Address {
        Address::new(slice.device_ptr(module().unwrap().stream()).0)
    }
}

/// Returns whether the kernels run on a GPU.
pub fn on_gpu() -> bool {
    std::env::var_os("SURPRISAL_TEST_GPU").is_some()
}

/// Returns whether the device supports wgmma (Hopper). The shim emulates it.
pub fn has_wgmma() -> bool {
    #[cfg(feature = "cuda")]
    if let Some(module) = gpu::module() {
        return module.arch() == "sm_90a";
    }
    true
}

/// Returns the tensor map of a cache for the tests' device.
pub fn tensor_map(view: &CacheView) -> TensorMap {
    #[cfg(feature = "cuda")]
    if let Some(module) = gpu::module() {
        return module.tensor_map(view).unwrap();
    }
    Cpu { order: Order::Forward }.tensor_map(view).unwrap()
}

/// Runs a launch. Its addresses must belong to live buffers that are large enough for its shape. A GPU ignores `order`.
pub fn run<A: Copy>(order: Order, launch: Result<Launch<A>, Error>) {
    let launch = launch.unwrap();
    #[cfg(feature = "cuda")]
    if let Some(module) = gpu::module() {
        // SAFETY: every test sizes its buffers for the shape it launches, and they outlive the wait.
        unsafe { module.launch(&launch) }.unwrap();
        return module.stream().synchronize().unwrap();
    }
    // SAFETY: as above.
    unsafe { Cpu { order }.launch(&launch) }.unwrap();
}

/// Returns the error of a launch that the shim rejects before it reads anything through the arguments.
pub fn launch_error<A: Copy>(launch: &Launch<A>) -> String {
    // SAFETY: the shim rejects the launch before it reads anything; otherwise the test fails.
    unsafe { Cpu { order: Order::Forward }.launch(launch) }.unwrap_err().to_string()
}

pub fn bits(values: &[bf16]) -> Vec<u16> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Returns the largest `|got - want| / allowed` over the given `(got, want, allowed)`; NaN if any is NaN, so that
/// `worst < 1` fails.
pub fn worst(errors: impl IntoIterator<Item = (f64, f64, f64)>) -> f64 {
    let one = |(got, want, allowed): (f64, f64, f64)| (got - want).abs() / allowed;
    errors.into_iter().map(one).fold(0.0, |worst, error| if worst.is_nan() || error <= worst { worst } else { error })
}

/// The largest value of half a unit in the last place of a bf16, relative to the bf16.
pub const ULP: f64 = 1.0 / 256.0;

/// Returns the value of an e4m3 byte, as the format defines it: bias 7, no infinities, 0x7f is NaN.
pub fn e4m3(byte: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f64::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f64::NAN,
        (0, _) => mantissa / 8.0 * 2f64.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { size } else { -size }
}
