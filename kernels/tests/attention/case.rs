//! Test cases: a model's shape, random texts, and the paged cache of their keys and values.

use std::ops::Range;

use half::bf16;
use rand::seq::SliceRandom;

use crate::support::{Buffer, e4m3, random, rng};

/// A model's attention shape, and a supply of random texts. All texts agree with text 0 in the first `shared`
/// positions.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) head_size: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) block: usize,
    pub(crate) window: usize,
    pub(crate) shared: usize,
    /// The number of positions in a group whose large values cancel, with all weights equal; 0 for ordinary random
    /// values. If values cancel, only rounding errors are left, so any other order of summation gives different bits.
    pub(crate) cancel: usize,
    /// `true` if keys and values are e4m3 values times powers of two, which FP8 represents exactly.
    pub(crate) fp8_exact: bool,
    /// `true` if the cache is in FP8.
    pub(crate) fp8: bool,
    pub(crate) seed: u64,
}

/// A text's index, and the positions whose queries run. The cache has all keys up to the last of these positions.
pub(crate) type Chunk = (usize, Range<usize>);

/// The purpose of a text's random rows.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Queries,
    Keys,
    Values,
}

/// Keys or values as the kernels read them, and their FP8 scales.
pub(crate) struct Stored {
    pub(crate) bytes: Buffer<u8>,
    pub(crate) scales: Buffer<f32>,
}

/// The paged cache for some chunks.
pub(crate) struct Pages {
    pub(crate) keys: Stored,
    pub(crate) values: Stored,
    /// `[chunks][table_width]`: each chunk's blocks.
    pub(crate) table: Buffer<i32>,
    pub(crate) table_width: usize,
}

impl Case {
    /// Creates a case without a shared prefix, with a bf16 cache.
    pub(crate) fn new(head_size: usize, heads: usize, kv_heads: usize, block: usize, window: usize, seed: u64) -> Self {
        let (shared, cancel, fp8_exact, fp8) = (0, 0, false, false);
        Self { head_size, heads, kv_heads, block, window, shared, cancel, fp8_exact, fp8, seed }
    }

    /// Returns the queries, keys or values of a text's first `len` positions.
    pub(crate) fn rows(&self, text: usize, kind: Kind, len: usize) -> Vec<bf16> {
        let width = self.head_size * if kind == Kind::Queries { self.heads } else { self.kv_heads };
        let spread = if kind == Kind::Values { 1.0 } else { 2.0 };
        let from = |text: usize| random(&mut rng(self.seed, (text * 3 + kind as usize) as u64), len * width, spread);
        let mut rows = from(text);
        let shared = self.shared.min(len) * width;
        rows[..shared].copy_from_slice(&from(0)[..shared]);
        if self.fp8_exact && kind != Kind::Queries {
            for (i, value) in rows.iter_mut().enumerate() {
                let exact = e4m3((value.to_bits() >> 3) as u8 & 0xbf) * 2f64.powi((i / self.head_size % 5) as i32 - 2);
                *value = bf16::from_f64(exact);
            }
        }
        if self.cancel > 0 && kind == Kind::Queries {
            rows.fill(bf16::ZERO);
        }
        if self.cancel > 0 && kind == Kind::Values {
            self.make_cancel(&mut rows, width);
        }
        rows
    }

    /// Makes large values cancel within each group of `cancel` positions.
    fn make_cancel(&self, rows: &mut [bf16], width: usize) {
        for t in 0..rows.len() / width {
            let mirror = t / self.cancel * self.cancel + self.cancel - 1 - t % self.cancel;
            for i in 0..width {
                let large = rows[t * width + i].to_f32() * 2f32.powi((t % 19) as i32);
                let value = if mirror < t { -rows[mirror * width + i].to_f32() } else { large };
                rows[t * width + i] = bf16::from_f32(value);
            }
        }
    }

    /// Returns a cache in the kernels' format: bf16, or e4m3 bytes with the smallest possible scale for each head of
    /// each slot.
    fn stored(&self, cache: &[bf16]) -> Stored {
        if !self.fp8 {
            let bytes: Vec<u8> = cache.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect();
            return Stored { bytes: Buffer::of(&bytes), scales: Buffer::of(&[]) };
        }
        let sizes: Vec<f64> = (0..0x7f).map(e4m3).collect();
        let (mut bytes, mut scales) = (Vec::new(), Vec::new());
        for head in cache.chunks(self.head_size) {
            let largest = head.iter().map(|x| x.to_f32().abs()).fold(0.0, f32::max);
            let scale = (-30..30).map(|e| 2f32.powi(e)).find(|scale| largest <= 448.0 * scale).unwrap();
            scales.push(if head[0].is_nan() { f32::NAN } else { scale });
            for x in head {
                let size = x.to_f64().abs() / f64::from(scale);
                let byte = sizes.partition_point(|&s| s < size) as u8;
                assert!(x.is_nan() || e4m3(byte) == size, "{x} is not an e4m3 value times {scale}");
                bytes.push(byte | if x.is_sign_negative() { 0x80 } else { 0 });
            }
        }
        Stored { bytes: Buffer::of(&bytes), scales: Buffer::of(&scales) }
    }

    /// Builds the cache. Blocks lie in random order, and texts share the full blocks of their shared positions. Unused
    /// slots are NaN; unused table entries are out of bounds.
    pub(crate) fn pages(&self, chunks: &[Chunk]) -> Pages {
        let row = self.kv_heads * self.head_size;
        let needed = |chunk: &Chunk| chunk.1.end.div_ceil(self.block);
        let table_width = chunks.iter().map(needed).max().unwrap();
        let total = chunks.iter().map(needed).sum::<usize>() + 1;
        let mut free: Vec<usize> = (0..total).collect();
        free.shuffle(&mut rng(self.seed, 1 << 40));
        // Beyond every slot, but small enough not to overflow when shifted by the largest block size.
        let mut table = vec![1i32 << 22; chunks.len() * table_width];
        let mut caches = [vec![bf16::NAN; total * self.block * row], vec![bf16::NAN; total * self.block * row]];
        for (s, chunk) in chunks.iter().enumerate() {
            let sources = [Kind::Keys, Kind::Values].map(|kind| self.rows(chunk.0, kind, chunk.1.end));
            for b in 0..needed(chunk) {
                let whole = (b + 1) * self.block <= self.shared.min(chunk.1.end).min(chunks[0].1.end);
                table[s * table_width + b] = if whole && s > 0 { table[b] } else { free.pop().unwrap() as i32 };
            }
            for t in 0..chunk.1.end {
                let at = (table[s * table_width + t / self.block] as usize * self.block + t % self.block) * row;
                for (cache, source) in caches.iter_mut().zip(&sources) {
                    cache[at..at + row].copy_from_slice(&source[t * row..][..row]);
                }
            }
        }
        let [keys, values] = caches.map(|cache| self.stored(&cache));
        Pages { keys, values, table: Buffer::of(&table), table_width }
    }

    /// Returns the queries of all chunks, one chunk after another.
    pub(crate) fn queries(&self, chunks: &[Chunk]) -> Vec<bf16> {
        let row = self.heads * self.head_size;
        let of = |(text, at): &Chunk| self.rows(*text, Kind::Queries, at.end)[at.start * row..].to_vec();
        chunks.iter().flat_map(of).collect()
    }

    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.head_size as f32).sqrt()
    }
}
