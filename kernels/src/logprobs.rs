//! Log-probabilities from logits: of the target, of a set of tokens and of the most probable tokens. Also computes the
//! target's rank and the entropy.
//!
//! Ranks may divide the vocabulary. Each rank runs [`LogprobTargets`] and [`LogprobTiles`] over its own columns,
//! gathers all ranks' outputs in order of rank, and combines them with [`LogprobCombine`]. A single rank has nothing to
//! gather.

use crate::device::{Address, Launch};
use crate::error::Error;
use crate::shape::{check, check_rows};

/// Columns per tile of the vocabulary.
pub const COLUMNS: u32 = 4096;

/// The maximum number of most probable tokens that are listed per row.
pub const LARGEST_TOP: u32 = 64;

/// The size in bytes of an entry of [`LogprobTiles::parts`], which holds the sums of one tile of one row.
pub const PART_BYTES: usize = 24;

/// Returns the number of tiles of a vocabulary.
#[must_use]
pub fn tiles(vocabulary: u32) -> u32 {
    vocabulary.div_ceil(COLUMNS)
}

/// Returns the number of 32-bit words in a row's bitmap of tokens.
#[must_use]
pub fn words(vocabulary: u32) -> u32 {
    vocabulary.div_ceil(32)
}

fn check_columns(kernel: &'static str, vocabulary: u32, stride: u64) -> Result<(), Error> {
    let fits = u64::from(vocabulary) <= stride && vocabulary < 1 << 30;
    check(fits, kernel, "vocabulary", vocabulary, "at most the stride and below 2^30")
}

/// The first step: finds the targets' logits.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LogprobTargets {
    /// `[rows]` f32: the targets' logits; minus infinity where another rank has the target.
    pub out: Address,
    /// `[rows][stride]` f32.
    pub logits: Address,
    /// `[rows]` i32.
    pub targets: Address,
    /// Elements from one row to the next.
    pub stride: u64,
    /// The number of rows.
    pub rows: u32,
    /// The token id of the first column.
    pub first: u32,
    /// The number of columns that are tokens; the columns after them are padding.
    pub vocabulary: u32,
}

impl LogprobTargets {
    /// Checks the shape and returns the launch.
    ///
    /// # Errors
    ///
    /// The kernel does not support the shape.
    pub fn launch(self) -> Result<Launch<Self>, Error> {
        let kernel = "logprobs_target";
        check_columns(kernel, self.vocabulary, self.stride)?;
        check_rows(kernel, "rows", self.rows)?;
        Ok(Launch { kernel, grid: [self.rows.div_ceil(256), 1, 1], block: 256, shared: 0, args: self })
    }
}

/// The second step: computes the sums and the most probable tokens of each tile of each row.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LogprobTiles {
    /// Workspace, `[rows][tiles]` entries of [`PART_BYTES`] bytes.
    pub parts: Address,
    /// Workspace, `[rows][tiles][top]` f32.
    pub top_logits: Address,
    /// Workspace, `[rows][tiles][top]` i32.
    pub top_ids: Address,
    /// `[rows][stride]` f32.
    pub logits: Address,
    /// `[ranks][rows]` f32, the output of [`LogprobTargets`].
    pub target_logits: Address,
    /// `[rows][words]` u32: each row's set of tokens, one bit per column, lowest bit first (see [`words`]);
    /// [`Address::NULL`] for no sets.
    pub members: Address,
    /// Elements from one row to the next.
    pub stride: u64,
    /// The token id of the first column.
    pub first: u32,
    /// The number of columns that are tokens; the columns after them are padding.
    pub vocabulary: u32,
    /// The number of ranks among which the vocabulary is divided.
    pub ranks: u32,
    /// The number of most probable tokens to list.
    pub top: u32,
}

impl LogprobTiles {
    /// Checks the shape and returns the launch. `tiles` is the number of tiles of the rank with the most tokens; tiles
    /// beyond this rank's tokens add nothing.
    ///
    /// # Errors
    ///
    /// The kernel does not support the shape.
    pub fn launch(self, rows: u32, tiles: u32) -> Result<Launch<Self>, Error> {
        let kernel = "logprobs_tile";
        check_columns(kernel, self.vocabulary, self.stride)?;
        let enough = tiles > 0 && tiles >= self::tiles(self.vocabulary) && tiles < 1 << 18;
        check(enough, kernel, "tiles", tiles, "from 1 to 262143 and enough for the vocabulary")?;
        check(self.top <= LARGEST_TOP, kernel, "top", self.top, "at most 64")?;
        check(self.ranks > 0, kernel, "ranks", self.ranks, "at least 1")?;
        check((1..=65_535).contains(&rows), kernel, "rows", rows, "from 1 to 65535")?;
        Ok(Launch { kernel, grid: [tiles, rows, 1], block: 256, shared: 0, args: self })
    }
}

/// The results of each row. Logarithms are natural.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LogprobOut {
    /// `[rows]` f32: `ln p` of the targets.
    pub logprobs: Address,
    /// `[rows]` i32: 1 + the number of tokens with a larger logit than the target's.
    pub ranks: Address,
    /// `[rows]` f32: the distributions' entropies in nats.
    pub entropies: Address,
    /// `[rows]` f32: `ln p` of the sets of tokens, at most 0; minus infinity for an empty set.
    pub subsets: Address,
    /// `[rows][top]` f32: `ln p` of the most probable tokens, in decreasing order; of equal ones, the smaller id first.
    pub top_logprobs: Address,
    /// `[rows][top]` i32: the ids of those tokens; -1 in entries beyond the size of the vocabulary.
    pub top_ids: Address,
}

/// The last step: adds up the tiles of all ranks, in order.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LogprobCombine {
    /// The results.
    pub out: LogprobOut,
    /// `[ranks][rows][tiles]` entries of [`PART_BYTES`] bytes.
    pub parts: Address,
    /// `[ranks][rows][tiles][top]` f32.
    pub top_logits: Address,
    /// `[ranks][rows][tiles][top]` i32.
    pub top_ids: Address,
    /// `[ranks][rows]` f32.
    pub target_logits: Address,
    /// The number of ranks among which the vocabulary is divided.
    pub ranks: u32,
    /// Tiles per rank.
    pub tiles: u32,
    /// The number of most probable tokens to list.
    pub top: u32,
}

impl LogprobCombine {
    /// Checks the shape and returns the launch.
    ///
    /// # Errors
    ///
    /// The kernel does not support the shape.
    pub fn launch(self, rows: u32) -> Result<Launch<Self>, Error> {
        let kernel = "logprobs_combine";
        check_rows(kernel, "rows", rows)?;
        check(self.ranks > 0, kernel, "ranks", self.ranks, "at least 1")?;
        check(self.tiles > 0, kernel, "tiles", self.tiles, "at least 1")?;
        Ok(Launch { kernel, grid: [rows, 1, 1], block: 32, shared: 0, args: self })
    }
}
