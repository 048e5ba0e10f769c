//! From logits to log-probabilities: target, rank, entropy, most probable tokens.
//!
//! Ranks may divide the vocabulary. Each runs [`LogprobTargets`] and [`LogprobTiles`] over its own columns and gathers what
//! they leave, in order of rank; [`LogprobCombine`] then knows all of it. One rank has nothing to gather.

use crate::device::{Address, Launch};
use crate::error::Error;
use crate::shape::{check, check_rows};

/// Columns of a tile of the vocabulary.
pub const COLUMNS: u32 = 4096;

/// The most tokens a row lists.
pub const LARGEST_TOP: u32 = 64;

/// Bytes of a tile's sums: of each of `[rows][tiles]` in [`LogprobTiles::parts`].
pub const PART_BYTES: usize = 24;

/// Tiles of a vocabulary.
#[must_use]
pub fn tiles(vocabulary: u32) -> u32 {
    vocabulary.div_ceil(COLUMNS)
}

/// Words of a row's bitmap of tokens.
#[must_use]
pub fn words(vocabulary: u32) -> u32 {
    vocabulary.div_ceil(32)
}

fn check_columns(kernel: &'static str, vocabulary: u32, stride: u64) -> Result<(), Error> {
    let fits = u64::from(vocabulary) <= stride && vocabulary < 1 << 30;
    check(fits, kernel, "vocabulary", vocabulary, "at most the stride, below 2^30")
}

/// The first step: the targets' own logits.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LogprobTargets {
    /// `[rows]` f32; minus infinity where another rank has the target.
    pub out: Address,
    /// `[rows][stride]` f32.
    pub logits: Address,
    /// `[rows]` i32.
    pub targets: Address,
    /// Columns of memory a row.
    pub stride: u64,
    /// The number of rows.
    pub rows: u32,
    /// The token of the first column.
    pub first: u32,
    /// Columns that are tokens.
    pub vocabulary: u32,
}

impl LogprobTargets {
    /// # Errors
    ///
    /// A shape the kernel does not take.
    pub fn launch(self) -> Result<Launch<Self>, Error> {
        let kernel = "logprobs_target";
        check_columns(kernel, self.vocabulary, self.stride)?;
        check_rows(kernel, "rows", self.rows)?;
        Ok(Launch { kernel, grid: [self.rows.div_ceil(256), 1, 1], block: 256, shared: 0, args: self })
    }
}

/// The second step: each tile of each row's vocabulary.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LogprobTiles {
    /// Workspace, `[rows][tiles]` of [`PART_BYTES`].
    pub parts: Address,
    /// Workspace, `[rows][tiles][top]` f32.
    pub top_logits: Address,
    /// Workspace, `[rows][tiles][top]` i32.
    pub top_ids: Address,
    /// `[rows][stride]` f32.
    pub logits: Address,
    /// `[ranks][rows]` f32, of [`LogprobTargets`].
    pub target_logits: Address,
    /// `[rows]` of [`words`] u32, a bit a column, the lowest first: sets whose probability is wanted; null for none.
    pub members: Address,
    /// Columns of memory a row.
    pub stride: u64,
    /// The token of the first column.
    pub first: u32,
    /// Columns that are tokens.
    pub vocabulary: u32,
    /// Ranks that the vocabulary is divided among.
    pub ranks: u32,
    /// The number of most probable tokens to list.
    pub top: u32,
}

impl LogprobTiles {
    /// `tiles` are those of the rank that has most tokens; those beyond this one's tokens add nothing.
    ///
    /// # Errors
    ///
    /// A shape the kernel does not take.
    pub fn launch(self, rows: u32, tiles: u32) -> Result<Launch<Self>, Error> {
        let kernel = "logprobs_tile";
        check_columns(kernel, self.vocabulary, self.stride)?;
        let enough = tiles > 0 && tiles >= self::tiles(self.vocabulary) && tiles < 1 << 18;
        check(enough, kernel, "tiles", tiles, "as many as the vocabulary has, at least 1, below 2^18")?;
        check(self.top <= LARGEST_TOP, kernel, "top", self.top, "at most 64")?;
        check(self.ranks > 0, kernel, "ranks", self.ranks, "at least 1")?;
        check((1..=65_535).contains(&rows), kernel, "rows", rows, "from 1 to 65535")?;
        Ok(Launch { kernel, grid: [tiles, rows, 1], block: 256, shared: 0, args: self })
    }
}

/// The results of each row. Natural logarithms.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LogprobOut {
    /// `[rows]` f32: `ln p` of the targets.
    pub logprobs: Address,
    /// `[rows]` i32: 1 + how many tokens have a larger logit than the target.
    pub ranks: Address,
    /// `[rows]` f32: the distribution's entropy in nats.
    pub entropies: Address,
    /// `[rows]` f32: `ln p` of the sets, at most 0; minus infinity where there is none.
    pub subsets: Address,
    /// `[rows][top]` f32: `ln p` of the most probable tokens, in order; ties by the smaller id.
    pub top_logprobs: Address,
    /// `[rows][top]` i32: those tokens; -1 beyond the vocabulary.
    pub top_ids: Address,
}

/// The last step: adds up the tiles of all ranks, in order.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LogprobCombine {
    /// The results.
    pub out: LogprobOut,
    /// `[ranks][rows][tiles]` of [`PART_BYTES`].
    pub parts: Address,
    /// `[ranks][rows][tiles][top]` f32.
    pub top_logits: Address,
    /// `[ranks][rows][tiles][top]` i32.
    pub top_ids: Address,
    /// `[ranks][rows]` f32.
    pub target_logits: Address,
    /// Ranks that the vocabulary is divided among.
    pub ranks: u32,
    /// Tiles of each.
    pub tiles: u32,
    /// The number of most probable tokens to list.
    pub top: u32,
}

impl LogprobCombine {
    /// # Errors
    ///
    /// A shape the kernel does not take.
    pub fn launch(self, rows: u32) -> Result<Launch<Self>, Error> {
        let kernel = "logprobs_combine";
        check_rows(kernel, "rows", rows)?;
        check(self.ranks > 0, kernel, "ranks", self.ranks, "at least 1")?;
        check(self.tiles > 0, kernel, "tiles", self.tiles, "at least 1")?;
        Ok(Launch { kernel, grid: [rows, 1, 1], block: 32, shared: 0, args: self })
    }
}
