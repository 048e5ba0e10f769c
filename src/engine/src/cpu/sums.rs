//! What the head adds up of a row's logits, a chunk of the vocabulary at a time: log-sum-exp, entropy, rank, the greatest.

use std::cmp::Ordering;

use pulp::Simd;

use super::math;
use super::panels::{PANEL, Row};
use crate::backend::TokenScore;
use crate::scorer::subset::set_bits;
use crate::scorer::{PositionDetails, PositionOptions};

/// A token whose log-probability is wanted, and what else is.
#[derive(Clone)]
pub(crate) struct Want {
    pub(crate) target: u32,
    /// The target's logit, where its rank is wanted.
    pub(crate) logit: f32,
    pub(crate) options: PositionOptions,
}

/// A row's log-sum-exp over one chunk of the vocabulary, and its target's logit if it is there.
#[derive(Clone, Debug)]
pub(crate) struct Partial {
    max: f32,
    sum: f32,
    target: Option<f32>,
    extra: Option<Box<Extra>>,
}

/// What [`PositionOptions`] need of a chunk.
#[derive(Clone, Debug, Default)]
struct Extra {
    /// `sum_v e^(logit[v] - max) (logit[v] - max)`
    weighted: f64,
    /// How many logits are greater than the target's.
    greater: u32,
    /// The greatest logits, in order; of equal ones the smaller id first.
    top: Vec<(u32, f32)>,
    subset: Mass,
}

/// A log-sum-exp over some tokens, with a maximum of its own: they may be far less probable than others.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mass {
    max: f32,
    /// `sum_v e^(logit[v] - max)`
    sum: f64,
}

impl Default for Mass {
    /// Of no tokens.
    fn default() -> Self {
        Self { max: f32::NEG_INFINITY, sum: 0.0 }
    }
}

impl Mass {
    fn of(logits: impl Iterator<Item = f32> + Clone) -> Self {
        let max = logits.clone().fold(f32::NEG_INFINITY, f32::max);
        Self { max, sum: logits.map(|logit| f64::from(logit - max).exp()).sum() }
    }

    /// Both together, in this order.
    fn joined(self, other: Self) -> Self {
        let max = self.max.max(other.max);
        let part = |part: Self| if part.sum > 0.0 { part.sum * f64::from(part.max - max).exp() } else { 0.0 };
        Self { max, sum: part(self) + part(other) }
    }
}

/// What is known of a row of the whole vocabulary, or of a rank's part of it. Sums stay apart by chunk until all are there, so that
/// they are added in one order however many ranks had them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Total {
    sums: Vec<Sums>,
    target: Option<f32>,
    greater: u32,
    top: Vec<(u32, f32)>,
}

/// One chunk's sums, or all chunks', in f64.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sums {
    max: f32,
    sum: f64,
    weighted: f64,
    subset: Mass,
}

impl Sums {
    /// All chunks', in order.
    fn joined(chunks: &[Self]) -> Self {
        let max = chunks.iter().map(|chunk| chunk.max).fold(f32::NEG_INFINITY, f32::max);
        // H = ln sum - E[logit - max], each chunk's own maximum replaced by the row's.
        let weighted = |chunk: &Self| {
            let shift = f64::from(chunk.max - max);
            shift.exp() * (chunk.weighted + chunk.sum * shift)
        };
        Self {
            max,
            sum: chunks.iter().map(|chunk| chunk.sum * f64::from(chunk.max - max).exp()).sum(),
            weighted: chunks.iter().map(weighted).sum(),
            subset: chunks.iter().map(|chunk| chunk.subset).fold(Mass::default(), Mass::joined),
        }
    }
}

impl Total {
    /// Puts a row's chunks together, in order.
    pub(crate) fn of<'a>(chunks: impl IntoIterator<Item = &'a Partial>) -> Self {
        let none = Extra::default();
        let mut total = Self::default();
        for partial in chunks {
            let extra = partial.extra.as_deref().unwrap_or(&none);
            let (weighted, subset) = (extra.weighted, extra.subset);
            total.sums.push(Sums { max: partial.max, sum: f64::from(partial.sum), weighted, subset });
            total.take(partial.target, extra.greater, &extra.top);
        }
        total.sorted()
    }

    /// Puts ranks' parts of the vocabulary together, in order.
    pub(crate) fn joined(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut total = Self::default();
        for part in parts {
            total.sums.extend_from_slice(&part.sums);
            total.take(part.target, part.greater, &part.top);
        }
        total.sorted()
    }

    fn take(&mut self, target: Option<f32>, greater: u32, top: &[(u32, f32)]) {
        self.target = self.target.or(target);
        self.greater += greater;
        self.top.extend_from_slice(top);
    }

    /// The greatest logits in order; of equal ones the former, with the smaller id, stays first.
    fn sorted(mut self) -> Self {
        self.top.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal));
        self
    }

    /// As numbers, for other ranks; how many depends on the chunks and on what is wanted alone.
    pub(crate) fn numbers(&self, want: &Want) -> Vec<f64> {
        let mut numbers = vec![self.target.map_or(f64::NAN, f64::from), f64::from(self.greater)];
        let top = self.top.iter().map(|&(id, logit)| [f64::from(id), f64::from(logit)]);
        let nobody = std::iter::repeat([f64::NAN; 2]);
        numbers.extend(top.chain(nobody).take(want.options.top.into()).flatten());
        for sums in &self.sums {
            numbers.extend([f64::from(sums.max), sums.sum, sums.weighted, f64::from(sums.subset.max), sums.subset.sum]);
        }
        numbers
    }

    /// From the next of such numbers of a rank with so many chunks; those that are missing read as nothing.
    pub(crate) fn read(want: &Want, chunks: usize, numbers: &mut impl Iterator<Item = f64>) -> Self {
        let mut next = || numbers.next().unwrap_or(f64::NAN);
        let (target, greater) = (next(), next());
        let top: Vec<_> = (0..want.options.top).map(|_| (next(), next())).filter(|(id, _)| !id.is_nan()).collect();
        let mut sums = || {
            let (max, sum, weighted) = (next() as f32, next(), next());
            Sums { max, sum, weighted, subset: Mass { max: next() as f32, sum: next() } }
        };
        Self {
            sums: (0..chunks).map(|_| sums()).collect(),
            target: (!target.is_nan()).then_some(target as f32),
            greater: greater as u32,
            top: top.into_iter().map(|(id, logit)| (id as u32, logit as f32)).collect(),
        }
    }
}

impl Want {
    /// What the whole vocabulary's sums say of the token.
    pub(crate) fn score(&self, total: Total) -> TokenScore {
        let sums = Sums::joined(&total.sums);
        let (max, sum) = (f64::from(sums.max), sums.sum);
        let logprob = |logit: f32| (f64::from(logit) - max - sum.ln()) as f32;
        let position = (!self.options.is_empty()).then(|| {
            let top = total.top.into_iter().take(self.options.top.into());
            Box::new(PositionDetails {
                rank: self.options.rank.then_some(1 + total.greater),
                entropy: self.options.entropy.then(|| (sum.ln() - sums.weighted / sum) as f32),
                // Rounding must not make a set more than certain.
                subset: self.options.subset.as_ref().map(|_| {
                    let Mass { max: of_subset, sum: weight } = sums.subset;
                    ((f64::from(of_subset) - max - sum.ln() + weight.ln()) as f32).min(0.0)
                }),
                top: top.map(|(id, logit)| (id, logprob(logit))).collect(),
            })
        });
        TokenScore { token: self.target, logprob: logprob(total.target.unwrap_or(f32::NAN)), position }
    }
}

impl Partial {
    pub(crate) fn new(want: &Want) -> Self {
        let extra = (!want.options.is_empty()).then(Box::default);
        Self { max: f32::NEG_INFINITY, sum: 0.0, target: None, extra }
    }

    /// Takes in one panel of logits; the panel is used up.
    #[inline(always)]
    pub(crate) fn add<S: Simd>(&mut self, simd: S, want: &Want, panel: usize, logits: &mut Row, vocab_size: usize) {
        let real = (vocab_size - panel * PANEL).min(PANEL);
        logits[real..].fill(f32::NEG_INFINITY);
        if want.target as usize / PANEL == panel {
            self.target = Some(logits[want.target as usize % PANEL]);
        }
        let raw = *logits;
        let (former, panel_max) = (self.max, math::max(simd, logits));
        let former_sum = self.sum;
        if panel_max > self.max {
            let shrink = if self.sum == 0.0 { 0.0 } else { math::exp(self.max - panel_max) };
            self.sum *= shrink;
            self.max = panel_max;
        }
        let mut sum = math::exp_row(simd, logits, self.max);
        if real < PANEL {
            logits[real..].fill(0.0);
            sum = math::sum(simd, logits);
        }
        self.sum += sum;
        if let Some(extra) = &mut self.extra {
            extra.shift(former, former_sum, self.max);
            extra.add(want, (panel * PANEL) as u32, &raw[..real], logits, self.max);
        }
    }
}

impl Extra {
    /// Makes the weighted sum one of a greater maximum.
    fn shift(&mut self, former: f32, former_sum: f32, max: f32) {
        if max > former && former_sum > 0.0 {
            let shift = f64::from(former) - f64::from(max);
            self.weighted = shift.exp() * (self.weighted + f64::from(former_sum) * shift);
        }
    }

    /// Takes in one panel: its logits, and their exponentials over `max`.
    fn add(&mut self, want: &Want, first: u32, logits: &[f32], exponentials: &Row, max: f32) {
        if want.options.entropy {
            let terms = logits.iter().zip(exponentials).map(|(&logit, &e)| f64::from(e) * f64::from(logit - max));
            self.weighted += terms.sum::<f64>();
        }
        if want.options.rank {
            self.greater += logits.iter().filter(|&&logit| logit > want.logit).count() as u32;
        }
        if let Some(subset) = &want.options.subset {
            let own = set_bits(subset.word(first as usize / PANEL)).map(|at| logits[at as usize]);
            self.subset = self.subset.joined(Mass::of(own));
        }
        let most = usize::from(want.options.top);
        for (id, &logit) in (first..).zip(logits) {
            if self.top.len() < most || self.top.last().is_some_and(|last| logit > last.1) {
                let at = self.top.partition_point(|other| other.1 >= logit);
                self.top.insert(at, (id, logit));
                self.top.truncate(most);
            }
        }
    }
}
