//! Statistics of a row's logits over one chunk of the vocabulary, accumulated panel by panel.

use pulp::Simd;

use crate::cpu::math;
use crate::cpu::panel_matrix::{PANEL_WIDTH, PanelRow};
use crate::scorer::PositionOptions;
use crate::scorer::subset::set_bits;

/// A token to score, and the options of its position.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) token: u32,
    /// The token's logit; used only if the token's rank is requested.
    pub(super) logit: f32,
    pub(super) options: PositionOptions,
}

/// A row's log-sum-exp over one chunk of the vocabulary, and the target's logit if the target is in the chunk.
#[derive(Clone, Debug)]
pub(super) struct ChunkStats {
    pub(super) max: f32,
    pub(super) sum: f32,
    pub(super) target_logit: Option<f32>,
    pub(super) details: Option<Box<ChunkDetails>>,
}

/// Statistics over a chunk for the details that [`PositionOptions`] requests.
#[derive(Clone, Debug, Default)]
pub(super) struct ChunkDetails {
    /// `sum_v e^(logit[v] - max) (logit[v] - max)`
    pub(super) weighted: f64,
    /// Number of logits that are greater than the target's.
    pub(super) greater: u32,
    /// The greatest logits, in decreasing order; ties by smaller id.
    pub(super) top: Vec<(u32, f32)>,
    pub(super) subset: LogSumExp,
}

/// A log-sum-exp over some of the tokens. It has its own maximum, because these tokens may be far less probable than
/// the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LogSumExp {
    pub(super) max: f32,
    /// `sum_v e^(logit[v] - max)`
    pub(super) sum: f64,
}

impl Default for LogSumExp {
    /// Returns the log-sum-exp over no tokens.
    fn default() -> Self {
        Self { max: f32::NEG_INFINITY, sum: 0.0 }
    }
}

impl LogSumExp {
    fn new(logits: impl Iterator<Item = f32> + Clone) -> Self {
        let max = logits.clone().fold(f32::NEG_INFINITY, f32::max);
        Self { max, sum: logits.map(|logit| f64::from(logit - max).exp()).sum() }
    }

    /// Merges two log-sum-exps, in this order.
    pub(super) fn merge(self, other: Self) -> Self {
        let max = self.max.max(other.max);
        let part = |part: Self| if part.sum > 0.0 { part.sum * f64::from(part.max - max).exp() } else { 0.0 };
        Self { max, sum: part(self) + part(other) }
    }
}

impl ChunkStats {
    pub(super) fn new(target: &Target) -> Self {
        let details = (!target.options.is_empty()).then(Box::default);
        Self { max: f32::NEG_INFINITY, sum: 0.0, target_logit: None, details }
    }

    /// Adds one panel of logits to the statistics, and overwrites the panel.
    #[inline(always)]
    pub(super) fn add<S: Simd>(
        &mut self,
        simd: S,
        target: &Target,
        panel: usize,
        logits: &mut PanelRow,
        vocab_size: usize,
    ) {
        let valid_columns = (vocab_size - panel * PANEL_WIDTH).min(PANEL_WIDTH);
        logits[valid_columns..].fill(f32::NEG_INFINITY);
        if target.token as usize / PANEL_WIDTH == panel {
            self.target_logit = Some(logits[target.token as usize % PANEL_WIDTH]);
        }
        let raw = *logits;
        let (old_max, panel_max) = (self.max, math::max(simd, logits));
        let old_sum = self.sum;
        if panel_max > self.max {
            let shrink = if self.sum == 0.0 { 0.0 } else { math::exp(self.max - panel_max) };
            self.sum *= shrink;
            self.max = panel_max;
        }
        let mut sum = math::exp_row(simd, logits, self.max);
        if valid_columns < PANEL_WIDTH {
            logits[valid_columns..].fill(0.0);
            sum = math::sum(simd, logits);
        }
        self.sum += sum;
        if let Some(details) = &mut self.details {
            details.rescale(old_max, old_sum, self.max);
            details.add(target, (panel * PANEL_WIDTH) as u32, &raw[..valid_columns], logits, self.max);
        }
    }
}

impl ChunkDetails {
    /// Rescales the weighted sum to a new maximum, if it is greater.
    fn rescale(&mut self, old_max: f32, old_sum: f32, max: f32) {
        if max > old_max && old_sum > 0.0 {
            let shift = f64::from(old_max) - f64::from(max);
            self.weighted = shift.exp() * (self.weighted + f64::from(old_sum) * shift);
        }
    }

    /// Adds one panel, given as its logits and their exponentials relative to `max`.
    fn add(&mut self, target: &Target, first: u32, logits: &[f32], exponentials: &PanelRow, max: f32) {
        if target.options.entropy {
            let terms = logits.iter().zip(exponentials).map(|(&logit, &e)| f64::from(e) * f64::from(logit - max));
            self.weighted += terms.sum::<f64>();
        }
        if target.options.rank {
            self.greater += logits.iter().filter(|&&logit| logit > target.logit).count() as u32;
        }
        if let Some(subset) = &target.options.subset {
            let subset_logits = set_bits(subset.word(first as usize / PANEL_WIDTH)).map(|at| logits[at as usize]);
            self.subset = self.subset.merge(LogSumExp::new(subset_logits));
        }
        let most = usize::from(target.options.top);
        for (id, &logit) in (first..).zip(logits) {
            if self.top.len() < most || self.top.last().is_some_and(|last| logit > last.1) {
                let at = self.top.partition_point(|other| other.1 >= logit);
                self.top.insert(at, (id, logit));
                self.top.truncate(most);
            }
        }
    }
}
