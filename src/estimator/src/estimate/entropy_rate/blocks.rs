//! Quantities that need no law: the information between neighboring blocks, and the Hilberg exponent of the last octaves.

use serde::{Deserialize, Serialize};

use crate::estimate::bootstrap::{Bootstrap, CONFIDENCE_LEVEL};
use crate::estimate::entropy_rate::columns::{Columns, Range};
use crate::value::Estimate;

/// The mutual information between two neighboring blocks of `N` tokens, `I(N; N) = 2 H(N) - H(2N)`.
///
/// `H(N)` is the mean surprisal of the first `N` tokens of a window, and `H(2N)` that of the first `2N`, so the estimate
/// is the surprisal of the first block minus that of the second block after the first. It assumes stationary texts, and
/// it contains the surplus of surprisal at the beginning of a window, as the direct estimate does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockInformation {
    /// `N`: the tokens of each block.
    pub length: usize,
    /// `I(N; N)` of the two blocks, in nats, or in the report's unit after conversion.
    #[serde(flatten)]
    pub information: Estimate,
}

/// Returns the information between neighboring blocks, by increasing length.
pub(crate) fn blocks(columns: &Columns, bootstrap: &Bootstrap<'_>) -> Vec<BlockInformation> {
    let mut blocks = Vec::with_capacity(columns.blocks.len());
    for (index, &length) in columns.blocks.iter().enumerate() {
        let column = columns.block(index);
        let interval = bootstrap.interval(CONFIDENCE_LEVEL, |means| Some(means[column]));
        let estimate = Estimate::new(bootstrap.means()[column], bootstrap.error(column));
        blocks.push(BlockInformation { length, information: Estimate { interval, ..estimate } });
    }
    blocks
}

/// Returns the last three octaves; `None` if there are fewer.
pub(crate) fn last_octaves(columns: &Columns) -> Option<Vec<Range>> {
    let mut octaves = columns.ranges(2, 0);
    Some(octaves.split_off(octaves.len().checked_sub(3)?))
}

/// Returns the Hilberg exponent of the last three octaves; `None` if there are fewer, or if surprisal does not fall.
///
/// If `H(n) = h n + A n^β`, the mean over the octave that ends at `n` is `h + A (2 - 2^(1-β)) n^(β-1)`. The difference
/// of successive octaves therefore falls by the factor `2^(β-1)`.
pub(crate) fn local_exponent(columns: &Columns, bootstrap: &Bootstrap<'_>) -> Option<Estimate> {
    let last = last_octaves(columns)?;
    let exponent = |means: &[f64]| {
        let rates: Vec<f64> = last.iter().map(|octave| octave.mean(means)).collect();
        let (before, after) = (rates[0] - rates[1], rates[1] - rates[2]);
        (before > 0.0 && after > 0.0).then(|| vec![1.0 + (after / before).log2()])
    };
    bootstrap.estimates(CONFIDENCE_LEVEL, exponent)?.pop()
}
