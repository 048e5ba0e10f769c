//! Times the attention kernels, and compares the bits of their outputs.

// Launches trust their addresses. Each address belongs to a region that is large enough for its shape.
#![allow(unsafe_code)]

use surprisal_engine::BackendError;
use surprisal_engine::cuda::{Accelerator, DeviceRegion};
use surprisal_kernels::attention::{PagedAttention, PagedKv, query_tiles};
use surprisal_kernels::{Address, Launch};

use super::{Sizes, Timing, random, time, upload};

/// Tokens per cache block.
const BLOCK: u32 = 16;

/// Names of the Hopper-only attention kernels.
pub const HOPPER: [&str; 2] = ["wgmma", "wgmma and TMA"];

/// Returns whether a device has the features of Hopper; the shim emulates them.
pub fn has_hopper<A: Accelerator>(device: &A) -> bool {
    let numerics = device.numerics();
    numerics == "shim" || numerics.contains("sm_90a")
}

/// Times causal attention of one sequence with the mma.sync kernel.
///
/// # Errors
///
/// The same as for [`products::timings`](super::products::timings).
pub fn attention<A: Accelerator>(
    device: &mut A,
    sizes: Sizes,
    tokens: usize,
    repeats: u32,
) -> Result<Timing, BackendError> {
    attend(device, sizes.heads, tokens, repeats, "mma.sync").map(|(timing, _)| timing)
}

/// Times causal attention with one of the [`HOPPER`] kernels, and counts the values whose bits differ from mma.sync's.
///
/// # Errors
///
/// The same as for [`products::timings`](super::products::timings); or the device does not have the kernel.
pub fn hopper_attention<A: Accelerator>(
    device: &mut A,
    sizes: Sizes,
    tokens: usize,
    repeats: u32,
    kernel: &str,
) -> Result<Timing, BackendError> {
    let (_, bits) = attend(device, sizes.heads, tokens, 1, "mma.sync")?;
    let (mut timing, hopper_bits) = attend(device, sizes.heads, tokens, repeats, kernel)?;
    let differ = hopper_bits.chunks(2).zip(bits.chunks(2)).filter(|(hopper, bits)| hopper != bits).count();
    timing.name += &format!(" ({differ} of {} values differ from mma.sync's)", bits.len() / 2);
    Ok(timing)
}

/// Times causal attention of one sequence, and returns its output.
fn attend<A: Accelerator>(
    device: &mut A,
    (heads, kv_heads): (u32, u32),
    tokens: usize,
    repeats: u32,
    kernel: &str,
) -> Result<(Timing, Vec<u8>), BackendError> {
    let blocks = tokens.div_ceil(BLOCK as usize);
    let (width, cached) = (tokens * heads as usize * 128, blocks * BLOCK as usize * kv_heads as usize * 128);
    let integers = |device: &mut A, values: Vec<i32>| {
        let region = device.allocate(values.len() * 4)?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        device.write(region, &bytes)?;
        region.checked_address(bytes.len())
    };
    let tiles = query_tiles(128, &[(tokens as u32, tokens as u32)]);
    let out = device.allocate(width * 2)?;
    let args = PagedAttention {
        out: out.checked_address(width * 2)?,
        q: upload(device, &random(width, 6))?.checked_address(width * 2)?,
        cache: PagedKv {
            keys: upload(device, &random(cached, 7))?.checked_address(cached * 2)?,
            values: upload(device, &random(cached, 8))?.checked_address(cached * 2)?,
            key_scales: Address::NULL,
            value_scales: Address::NULL,
            table: integers(device, (0..blocks as i32).collect())?,
            contexts: integers(device, vec![tokens as i32])?,
            table_width: blocks as u32,
            block_size: BLOCK,
            kv_heads,
        },
        starts: integers(device, vec![0, tokens as i32])?,
        tiles: integers(device, tiles.concat())?,
        heads,
        window: 0,
        scale: 128f32.sqrt().recip(),
    };
    let count = tiles.len() as u32;
    let milliseconds = match kernel {
        "mma.sync" => time_launch(device, out, repeats, &args.launch(128, count)?)?,
        "wgmma" => time_launch(device, out, repeats, &args.launch_wgmma(128, count)?)?,
        _ => {
            let [keys, values] = [args.cache.keys, args.cache.values].map(|cache| args.view(cache, 128, blocks as u32));
            let maps = [device.tensor_map(&keys)?, device.tensor_map(&values)?];
            time_launch(device, out, repeats, &args.launch_tma(128, count, maps)?)?
        }
    };
    // Two matrix products over half a square, because attention is causal.
    let operations = 2.0 * 128.0 * f64::from(heads) * (tokens as f64).powi(2);
    let name = format!("attention by {kernel}, T = {tokens}, head 128");
    let mut bits = vec![0; width * 2];
    device.read(out, &mut bits)?;
    Ok((Timing { name, milliseconds, teraflops: 1e-9 * operations / milliseconds }, bits))
}

/// Returns the milliseconds of one attention launch.
fn time_launch<A: Accelerator, T: Copy + Send + 'static>(
    device: &mut A,
    out: DeviceRegion,
    repeats: u32,
    launch: &Launch<T>,
) -> Result<f64, BackendError> {
    // SAFETY: every region is as large as its matrix, the indices in tables and tiles are in range, and all regions
    // live as long as the device.
    time(device, out, repeats, |device| unsafe { device.launch(launch) })
}
