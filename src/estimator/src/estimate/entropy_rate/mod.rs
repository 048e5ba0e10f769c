//! Entropy rate, excess entropy and Hilberg exponent, from surprisal by position.
//!
//! Start with [`EntropyRate::new`]. The mean surprisal of a token at the position `n` is the conditional entropy
//! `h(n) = H(n) - H(n-1)` under the model, where `H(n)` is the entropy of a block of `n` tokens. Its limit is the entropy
//! rate `h` (Crutchfield and Feldman, *Regularities Unseen, Randomness Observed*, Chaos 13:25, 2003). `columns` has the
//! sums that everything is computed from, `units` the rates per token, character and byte, `blocks` the information
//! between neighboring blocks, `extrapolation` the fitted laws, and `doubt` the reasons not to trust a fit.

mod blocks;
mod columns;
mod doubt;
mod extrapolation;
mod units;

pub use blocks::BlockInformation;
pub use doubt::RateDoubt;
pub(crate) use extrapolation::MIN_RANGES;
pub use extrapolation::{RateFit, RateFits};
pub(crate) use units::ratio_values;
pub use units::{TextUnit, UnitRates};

use serde::{Deserialize, Serialize};

use crate::estimate::bootstrap::Bootstrap;
use crate::estimate::clusters::Clusters;
use crate::estimate::entropy_rate::blocks::{blocks, last_octaves, local_exponent};
use crate::estimate::entropy_rate::columns::Columns;
use crate::estimate::entropy_rate::extrapolation::fit_rates;
use crate::estimate::entropy_rate::units::Units;
use crate::plan::{Plan, WindowSize};
use crate::value::Estimate;

/// The minimum number of first positions of a window that no fit uses. A window begins after BOS in the middle of a
/// text, which the model does not expect, so its surprisal there is not that of the same tokens in their text.
pub const OMITTED_POSITIONS: usize = 16;

/// The entropy rate of the texts under the model, and quantities that follow from surprisal by position.
///
/// A model's surprisal is a cross entropy, so the mean surprisal of the last octave is an upper bound on the entropy
/// rate of the texts, up to its sampling error; an extrapolated rate is one only if its law holds.
///
/// Rates, information and excess entropies are in nats, or in the report's unit after conversion
/// ([`Report::in_unit`](crate::Report::in_unit)). Exponents and sizes of tokens have no such unit. The first
/// position is 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntropyRate {
    /// The number of positions of a window.
    pub window: usize,
    /// The mean surprisal over the whole window.
    pub whole: UnitRates,
    /// The mean surprisal over the last octave: the positions after half of the window. Surprisal falls with the
    /// position, so this is an upper bound on the entropy rate that needs no law.
    pub tail: UnitRates,
    /// The characters of a token in the last octave; `None` if the ranges of the tokens are unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub characters_per_token: Option<Estimate>,
    /// The bytes of a token in the last octave; `None` if the ranges of the tokens are unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_token: Option<Estimate>,
    /// The information between neighboring blocks, by increasing length: `N` is the window divided by 2, by 4, and so
    /// on to 1, each rounded down.
    pub blocks: Vec<BlockInformation>,
    /// The Hilberg exponent from the mean surprisals `r₁, r₂, r₃` over the last three octaves,
    /// `1 + log₂((r₂ - r₃)/(r₁ - r₂))`, without a fit. `None` if the surprisal does not fall, or if one of these octaves
    /// contains omitted positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_exponent: Option<Estimate>,
    /// The fitted laws: without at least the first [`OMITTED_POSITIONS`], and without at least twice as many. At most
    /// two entries; empty if there are too few positions or texts.
    pub fits: Vec<RateFits>,
}

impl EntropyRate {
    /// Computes the rates. `whole` has the log-probabilities of each document's window. `None` if a window has fewer
    /// than two positions.
    pub(crate) fn new(plan: &Plan, whole: &[&[f32]], clusters: &Clusters) -> Option<Self> {
        let window = plan.window();
        if window < 2 {
            return None;
        }
        let columns = Columns::new(window);
        let rows = columns.rows(whole, plan.sizes());
        let cluster_rows = clusters.mean_rows(&rows);
        let bootstrap = Bootstrap::of_clusters(&cluster_rows, clusters, plan);
        let units = Units::new(&columns, &rows, clusters, plan.sizes().is_some());
        Some(Self {
            window,
            whole: units.whole(&bootstrap),
            tail: units.tail(&bootstrap),
            characters_per_token: units.tokens(TextUnit::Character, &bootstrap),
            bytes_per_token: units.tokens(TextUnit::Byte, &bootstrap),
            blocks: blocks(&columns, &bootstrap),
            local_exponent: local_exponent(&columns, &bootstrap),
            fits: fit_rates(&columns, &rows, clusters, plan),
        })
    }

    /// Returns the first position of the last octave, from 1.
    pub fn tail_first(&self) -> usize {
        WindowSize::tail_start(self.window) + 1
    }

    /// Returns the first position of the last three octaves, from 1; `None` if there are fewer.
    pub(crate) fn local_exponent_first(&self) -> Option<usize> {
        Some(last_octaves(&Columns::new(self.window))?.first()?.first)
    }

    /// Returns the estimates that are information, so that they can be converted to another unit.
    pub(crate) fn information(&mut self) -> impl Iterator<Item = &mut Estimate> {
        let rates = [&mut self.whole, &mut self.tail].into_iter().flat_map(UnitRates::all);
        let blocks = self.blocks.iter_mut().map(|block| &mut block.information);
        let fits = self.fits.iter_mut().flat_map(|fits| &mut fits.laws).flat_map(RateFit::information);
        rates.chain(blocks).chain(fits)
    }
}
