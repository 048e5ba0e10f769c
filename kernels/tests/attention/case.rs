//! A case: a model's shape, random texts for it, and the paged cache that holds their keys and values.

use std::ops::Range;

use half::bf16;
use rand::seq::SliceRandom;

use crate::support::{Buffer, e4m3, random, rng};

/// A model's attention, and endless random texts to run it on; texts agree with text 0 on the first `shared` positions.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) head_size: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) block: usize,
    pub(crate) window: usize,
    pub(crate) shared: usize,
    /// If not 0: all weights are equal, and large values cancel within so many positions, so that a result is what
    /// roundings left, and any other order of summation gives other bits.
    pub(crate) cancel: usize,
    /// Keys and values are e4m3 values times powers of two, so that FP8 holds them exactly.
    pub(crate) fp8_exact: bool,
    /// The cache is of FP8.
    pub(crate) fp8: bool,
    pub(crate) seed: u64,
}

/// The queries at these positions of a text, with all keys up to the last.
pub(crate) type Chunk = (usize, Range<usize>);

/// The use of a text's random rows.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Queries,
    Keys,
    Values,
}

/// Keys or values as the kernels read them, and the scales of FP8.
pub(crate) struct Stored {
    pub(crate) bytes: Buffer<u8>,
    pub(crate) scales: Buffer<f32>,
}

/// The paged cache of some chunks.
pub(crate) struct Pages {
    pub(crate) keys: Stored,
    pub(crate) values: Stored,
    /// Each chunk's row of blocks.
    pub(crate) table: Buffer<i32>,
    pub(crate) table_width: usize,
}

impl Case {
    /// A case without a shared prefix, with a cache of bf16.
    pub(crate) fn new(head_size: usize, heads: usize, kv_heads: usize, block: usize, window: usize, seed: u64) -> Self {
        let (shared, cancel, fp8_exact, fp8) = (0, 0, false, false);
        Self { head_size, heads, kv_heads, block, window, shared, cancel, fp8_exact, fp8, seed }
    }

    /// Queries, keys or values of a text's first positions.
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

    /// Lets large values cancel within every `cancel` positions.
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

    /// A cache as the kernels take it: bf16, or bytes with the least scale of each head of each slot that holds it.
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
                assert!(x.is_nan() || e4m3(byte) == size, "{x} is no e4m3 of scale {scale}");
                bytes.push(byte | if x.is_sign_negative() { 0x80 } else { 0 });
            }
        }
        Stored { bytes: Buffer::of(&bytes), scales: Buffer::of(&scales) }
    }

    /// Builds the cache. Blocks lie in random order; whole blocks of the shared positions are the same; unused slots are
    /// NaN, unused table entries point nowhere.
    pub(crate) fn pages(&self, chunks: &[Chunk]) -> Pages {
        let row = self.kv_heads * self.head_size;
        let needed = |chunk: &Chunk| chunk.1.end.div_ceil(self.block);
        let table_width = chunks.iter().map(needed).max().unwrap();
        let total = chunks.iter().map(needed).sum::<usize>() + 1;
        let mut free: Vec<usize> = (0..total).collect();
        free.shuffle(&mut rng(self.seed, 1 << 40));
        // Beyond every slot, and no overflow when it is shifted by the largest block.
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

    /// The queries of all chunks, one chunk after the other.
    pub(crate) fn queries(&self, chunks: &[Chunk]) -> Vec<bf16> {
        let row = self.heads * self.head_size;
        let of = |(text, at): &Chunk| self.rows(*text, Kind::Queries, at.end)[at.start * row..].to_vec();
        chunks.iter().flat_map(of).collect()
    }

    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.head_size as f32).sqrt()
    }
}
