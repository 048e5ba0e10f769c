//! From logits to log-probabilities: target, rank, entropy, most probable tokens.

use crate::error::check;
use crate::rows::check_rows;
use crate::{Address, Error, Launch};

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

/// The first half: each tile of each row's vocabulary.
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
    /// `[rows]` i32, each within the vocabulary.
    pub targets: Address,
    /// `[rows]` of [`words`] u32, a bit a token, the lowest first: sets whose probability is wanted; null for none.
    pub members: Address,
    /// Columns of memory a row.
    pub stride: u64,
    /// Columns that are tokens.
    pub vocabulary: u32,
    /// How many of the most probable tokens are wanted.
    pub top: u32,
}

impl LogprobTiles {
    /// # Errors
    ///
    /// A shape the kernel does not take.
    pub fn launch(self, rows: u32) -> Result<Launch<Self>, Error> {
        let kernel = "logprobs_tile";
        let fits = self.vocabulary > 0 && u64::from(self.vocabulary) <= self.stride && self.vocabulary < 1 << 30;
        check(fits, kernel, "vocabulary", self.vocabulary, "from 1 to the stride, below 2^30")?;
        check(self.top <= LARGEST_TOP, kernel, "top", self.top, "at most 64")?;
        check((1..=65_535).contains(&rows), kernel, "rows", rows, "from 1 to 65535")?;
        Ok(Launch { kernel, grid: [tiles(self.vocabulary), rows, 1], block: 256, shared: 0, args: self })
    }

    /// The second half: adds the tiles up in order.
    ///
    /// # Errors
    ///
    /// A shape the kernel does not take.
    pub fn combine(self, out: LogprobOut, rows: u32) -> Result<Launch<LogprobCombine>, Error> {
        let kernel = "logprobs_combine";
        check_rows(kernel, "rows", rows)?;
        let Self { parts, top_logits, top_ids, logits, targets, stride, vocabulary, top, .. } = self;
        let tiles = tiles(vocabulary);
        let args = LogprobCombine { out, parts, top_logits, top_ids, logits, targets, stride, tiles, top };
        Ok(Launch { kernel, grid: [rows, 1, 1], block: 32, shared: 0, args })
    }
}

/// What is known of each row in the end. Natural logarithms.
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

/// The parameter of [`LogprobTiles::combine`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LogprobCombine {
    out: LogprobOut,
    parts: Address,
    top_logits: Address,
    top_ids: Address,
    logits: Address,
    targets: Address,
    stride: u64,
    tiles: u32,
    top: u32,
}
