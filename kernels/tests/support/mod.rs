//! What the kernels' tests share: aligned buffers, random values, launches in a thread order.

#![allow(unsafe_code, clippy::unwrap_used, dead_code, unreachable_pub)]

use half::bf16;
use proptest::test_runner::{Config, RngSeed};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_kernels::cpu::{Cpu, Order};
use surprisal_kernels::{Address, Device, Error, Launch};

/// Bits must not depend on these.
pub const ORDERS: [Order; 3] = [Order::Forward, Order::Reverse, Order::Random(7)];

/// The same random cases every time.
pub fn cases(count: u32) -> Config {
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

/// bf16 values, 16-byte aligned as device memory is.
pub struct Buffer(Vec<Lane>);

#[derive(Clone)]
#[repr(align(16))]
struct Lane([bf16; 8]);

impl Buffer {
    pub fn of(values: &[bf16]) -> Self {
        assert_eq!(values.len() % 8, 0);
        Self(values.chunks(8).map(|chunk| Lane(std::array::from_fn(|i| chunk[i]))).collect())
    }

    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self::of(&bytes.chunks(2).map(|b| bf16::from_bits(u16::from_le_bytes([b[0], b[1]]))).collect::<Vec<_>>())
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.values().iter().flat_map(|pair| pair.to_bits().to_le_bytes()).collect()
    }

    pub fn nan(len: usize) -> Self {
        Self::of(&vec![bf16::NAN; len])
    }

    pub fn values(&self) -> Vec<bf16> {
        self.0.iter().flat_map(|lane| lane.0).collect()
    }

    pub fn address(&self) -> Address {
        Address::of(&self.0)
    }

    pub fn address_mut(&mut self) -> Address {
        Address::of_mut(&mut self.0)
    }
}

/// Runs a launch whose addresses are of live buffers of the lengths its shape asks for.
pub fn run<A: Copy>(order: Order, launch: Result<Launch<A>, Error>) {
    // SAFETY: every test builds its buffers to the shape it launches.
    unsafe { Cpu { order }.launch(&launch.unwrap()) }.unwrap();
}

/// Why the shim refuses a launch, before it reads anything through the arguments.
pub fn refused<A: Copy>(launch: &Launch<A>) -> String {
    // SAFETY: nothing is read, or the test fails.
    unsafe { Cpu { order: Order::Forward }.launch(launch) }.unwrap_err().to_string()
}

pub fn bits(values: &[bf16]) -> Vec<u16> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// The largest error by the size of what may be off by a rounding: `|got - want| / allowed`.
pub fn worst(errors: impl IntoIterator<Item = (f64, f64, f64)>) -> f64 {
    let one = |(got, want, allowed): (f64, f64, f64)| (got - want).abs() / allowed;
    errors.into_iter().map(one).fold(0.0, |worst, error| if error <= worst { worst } else { error })
}

/// Half a unit in the last place of a bf16, relative.
pub const ULP: f64 = 1.0 / 256.0;

/// A byte of e4m3 by its definition: bias 7, no infinities, 0x7f is NaN.
pub fn e4m3(byte: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f64::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f64::NAN,
        (0, _) => mantissa / 8.0 * 2f64.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { size } else { -size }
}
