//! Log-probabilities of given and of drawn tokens: the head in tiles, with an online log-sum-exp. The logits never exist as
//! a whole, but for a few rows at a time where tokens are drawn.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::llama::Ranks;
use super::matrix::{Compute, Left, Product, Write};
use super::panels::{PANEL, Panels, Row};
use super::sums::{Partial, Total, Want};
use super::weights::Weights;
use crate::backend::{ScoreRow, TokenChoice, TokenScore};
use crate::communicator::RankLost;
use crate::sampling::Sample;
use crate::scorer::PositionOptions;

/// Vocabulary panels whose sums are kept together; fixed, so that the order of summation is.
const CHUNK_PANELS: usize = 32;

/// Rows of one task: enough to reuse a panel of weights while it is in the core's cache.
const TASK_ROWS: usize = 192;

/// Rows whose logits of one panel exist at a time.
const TILE_ROWS: usize = 48;

/// Rows whose logits exist at a time, where tokens are drawn.
const DRAWN_ROWS: usize = 8;

/// The output matrix, or a rank's rows of it, and how products with it are computed.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) compute: Compute,
    pub(crate) weights: &'a Weights,
    /// [`chunks`] of the vocabulary's panels, from the one that the matrix begins with.
    pub(crate) chunks: &'a [Range<usize>],
    /// Of the whole vocabulary.
    pub(crate) vocab_size: usize,
}

/// Panels whose sums are kept together, in pieces that are never together.
pub(crate) fn chunks(pieces: &[Range<usize>]) -> Vec<Range<usize>> {
    let cut = |piece: &Range<usize>| {
        let end = piece.end;
        piece.clone().step_by(CHUNK_PANELS).map(move |panel| panel..end.min(panel + CHUNK_PANELS))
    };
    pieces.iter().flat_map(cut).collect()
}

impl Head<'_> {
    /// `logit[target] - ln sum_v e^logit[v]` in nats for each row of `hidden`, of the token given or drawn there.
    pub(crate) fn scores(
        self,
        hidden: &Panels,
        rows: &[ScoreRow],
        ranks: &mut Ranks,
    ) -> Result<Vec<TokenScore>, RankLost> {
        let mut scores: Vec<Option<TokenScore>> = vec![None; rows.len()];
        let (mut given, mut wants, mut drawn) = (Vec::new(), Vec::new(), Vec::new());
        for (at, row) in rows.iter().enumerate() {
            match row.choice {
                TokenChoice::Given(target) => {
                    given.push(at);
                    wants.push(Want { target, logit: 0.0, options: row.options.clone() });
                }
                TokenChoice::Sampled(draw) => drawn.push((at, draw, &row.options)),
            }
        }
        let known = if drawn.is_empty() {
            self.given(hidden, wants, ranks)?
        } else {
            self.given(&hidden.gather(&given), wants, ranks)?
        };
        for (at, score) in given.into_iter().zip(known) {
            scores[at] = Some(score);
        }
        for some in drawn.chunks(DRAWN_ROWS) {
            let hidden = hidden.gather(&some.iter().map(|row| row.0).collect::<Vec<_>>());
            let draws: Vec<_> = some.iter().map(|&(_, draw, options)| (draw, options)).collect();
            for (&(at, ..), score) in some.iter().zip(self.drawn(&hidden, &draws, ranks)?) {
                scores[at] = Some(score);
            }
        }
        Ok(scores.into_iter().flatten().collect())
    }

    fn first_panel(self) -> usize {
        self.chunks.first().map_or(0, |chunk| chunk.start)
    }

    fn given(self, hidden: &Panels, mut wants: Vec<Want>, ranks: &mut Ranks) -> Result<Vec<TokenScore>, RankLost> {
        let hidden = &Left::new(self.compute, hidden);
        self.ranked(hidden, &mut wants, ranks)?;
        let (chunks, blocks) = (self.chunks.len(), wants.len().div_ceil(TASK_ROWS));
        let partials: Vec<Vec<Partial>> = (0..blocks * chunks)
            .into_par_iter()
            .map(|task| {
                let (block, chunk) = (task / chunks, task % chunks);
                let first = block * TASK_ROWS;
                let wants = &wants[first..wants.len().min(first + TASK_ROWS)];
                self.compute.arch.dispatch(Task { head: self, hidden, first, wants, chunk: &self.chunks[chunk] })
            })
            .collect();
        let blocks = partials.chunks(chunks.max(1)).zip(wants.chunks(TASK_ROWS));
        let row = |(chunks, wants): (&[Vec<Partial>], &[Want])| -> Vec<Total> {
            (0..wants.len()).map(|row| Total::of(chunks.iter().map(|chunk| &chunk[row]))).collect()
        };
        // Without a row of the matrix there is no chunk, and no block of chunks.
        let totals = if chunks == 0 { vec![Total::default(); wants.len()] } else { blocks.flat_map(row).collect() };
        self.finish(&wants, totals, ranks)
    }

    /// Computes the targets' own logits where their ranks are wanted.
    fn ranked(self, hidden: &Left<'_>, wants: &mut [Want], ranks: &mut Ranks) -> Result<(), RankLost> {
        if !wants.iter().any(|want| want.options.rank) {
            return Ok(());
        }
        wants.par_iter_mut().enumerate().filter(|(_, want)| want.options.rank).for_each(|(first, want)| {
            let (panel, w, mut out) = (want.target as usize / PANEL, self.weights, [[0.0; PANEL]]);
            let Some(panel) = panel.checked_sub(self.first_panel()).filter(|&panel| panel < w.panels()) else {
                return;
            };
            let (blocks, out) = (w.blocks(), &mut out);
            self.compute.arch.dispatch(Product { a: hidden, first, w, panel, blocks, out, write: Write::Set });
            want.logit = out[0][want.target as usize % PANEL];
        });
        if let Some(others) = ranks {
            let mut logits: Vec<f32> = wants.iter().map(|want| want.logit).collect();
            let own = std::mem::replace(&mut logits, vec![0.0; wants.len()]);
            others.all_reduce(&mut logits, own)?;
            wants.iter_mut().zip(logits).for_each(|(want, logit)| want.logit = logit);
        }
        Ok(())
    }

    /// Draws a token for each row, and scores it as if it were given: the same sums in the same order.
    fn drawn(
        self,
        hidden: &Panels,
        draws: &[(Sample, &PositionOptions)],
        ranks: &mut Ranks,
    ) -> Result<Vec<TokenScore>, RankLost> {
        let rows = hidden.rows();
        let hidden = &Left::new(self.compute, hidden);
        // `[panel][row]`
        let mut logits = vec![[0.0; PANEL]; rows * self.weights.panels()];
        logits.par_chunks_mut(rows.max(1)).enumerate().for_each(|(panel, out)| {
            let w = self.weights;
            let blocks = w.blocks();
            self.compute.arch.dispatch(Product { a: hidden, first: 0, w, panel, blocks, out, write: Write::Set });
        });
        let own: Vec<Vec<Row>> =
            (0..rows).map(|row| logits.iter().skip(row).step_by(rows).copied().collect()).collect();
        let all = self.whole(&own, ranks)?;
        let want = |(logits, &(draw, options)): (&Vec<f32>, &(Sample, &PositionOptions))| {
            let target = draw.pick(logits);
            Want { target, logit: logits[target as usize], options: options.clone() }
        };
        let wants: Vec<Want> = all.par_iter().zip(draws).map(want).collect();
        let total = |(own, want): (&Vec<Row>, &Want)| {
            let partial = |chunk: &Range<usize>| {
                let first = chunk.start - self.first_panel();
                let logits = &own[first..first + chunk.len()];
                self.compute.arch.dispatch(Fold { vocab_size: self.vocab_size, want, first: chunk.start, logits })
            };
            let partials: Vec<Partial> = self.chunks.iter().map(partial).collect();
            Total::of(&partials)
        };
        let totals = own.par_iter().zip(&wants).map(total).collect();
        self.finish(&wants, totals, ranks)
    }

    /// Each row's logits of the whole vocabulary.
    fn whole(self, own: &[Vec<Row>], ranks: &mut Ranks) -> Result<Vec<Vec<f32>>, RankLost> {
        let real = self.vocab_size.saturating_sub(self.first_panel() * PANEL).min(self.weights.panels() * PANEL);
        let own = own.iter().map(|row| row.as_flattened()[..real].to_vec());
        let Some(others) = ranks else {
            return Ok(own.collect());
        };
        let rows = own.len();
        let parts = others.all_gather(own.flatten().map(f64::from).collect())?;
        let row = |row: usize| {
            let of_rank = |part: &Vec<f64>| {
                let columns = part.len() / rows;
                part[row * columns..(row + 1) * columns].iter().map(|&logit| logit as f32).collect::<Vec<_>>()
            };
            parts.iter().flat_map(of_rank).collect()
        };
        Ok((0..rows).map(row).collect())
    }

    /// What all ranks' sums come to.
    fn finish(self, wants: &[Want], own: Vec<Total>, ranks: &mut Ranks) -> Result<Vec<TokenScore>, RankLost> {
        let Some(others) = ranks else {
            return Ok(wants.iter().zip(own).map(|(want, total)| want.score(total)).collect());
        };
        let mut numbers = vec![self.chunks.len() as f64];
        numbers.extend(wants.iter().zip(&own).flat_map(|(want, total)| total.numbers(want)));
        let parts = others.all_gather(numbers)?;
        let mut parts: Vec<_> = parts
            .iter()
            .filter_map(|part| part.split_first())
            .map(|(&chunks, numbers)| (chunks as usize, numbers.iter().copied()))
            .collect();
        let score = |want: &Want| {
            let totals = parts.iter_mut().map(|(chunks, part)| Total::read(want, *chunks, part));
            want.score(Total::joined(totals))
        };
        Ok(wants.iter().map(score).collect())
    }
}

/// Some rows and one chunk.
struct Task<'a> {
    head: Head<'a>,
    hidden: &'a Left<'a>,
    first: usize,
    wants: &'a [Want],
    chunk: &'a Range<usize>,
}

impl WithSimd for Task<'_> {
    type Output = Vec<Partial>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<Partial> {
        let mut partials: Vec<Partial> = self.wants.iter().map(Partial::new).collect();
        let mut tile = [[0.0; PANEL]; TILE_ROWS];
        let vocab_size = self.head.vocab_size;
        for at in self.chunk.clone() {
            let panel = at - self.head.first_panel();
            let blocks = partials.chunks_mut(TILE_ROWS).zip(self.wants.chunks(TILE_ROWS));
            for (first, (partials, wants)) in (self.first..).step_by(TILE_ROWS).zip(blocks) {
                let (w, out) = (self.head.weights, &mut tile[..wants.len()]);
                let blocks = w.blocks();
                Product { a: self.hidden, first, w, panel, blocks, out, write: Write::Set }.with_simd(simd);
                for ((logits, partial), want) in tile.iter_mut().zip(partials).zip(wants) {
                    partial.add(simd, want, at, logits, vocab_size);
                }
            }
        }
        partials
    }
}

/// One row and one chunk whose logits are there.
struct Fold<'a> {
    vocab_size: usize,
    want: &'a Want,
    first: usize,
    logits: &'a [Row],
}

impl WithSimd for Fold<'_> {
    type Output = Partial;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Partial {
        let mut partial = Partial::new(self.want);
        for (panel, logits) in (self.first..).zip(self.logits) {
            partial.add(simd, self.want, panel, &mut logits.clone(), self.vocab_size);
        }
        partial
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pulp::Arch;

    use super::super::matrix::ActivationType;
    use super::super::panels::panels_for;
    use super::super::weights::WeightType;
    use super::*;
    use crate::backend::Hidden;
    use crate::sampling::Sampling;
    use crate::scorer::Subset;

    const ROWS: usize = 50;
    const DEPTH: usize = 40;
    const VOCAB: usize = 2100;
    const ALL: PositionOptions = PositionOptions { top: 5, rank: true, entropy: true, subset: None };

    fn value(i: usize) -> f32 {
        ((i * 7919 % 2003) as f32 / 1001.5 - 1.0) * 0.9
    }

    /// Hidden states, one of them with a dominating logit, and the output matrix.
    fn inputs() -> (Panels, Vec<f32>) {
        let mut hidden = Panels::zeros(ROWS, 2);
        for m in 0..ROWS {
            for k in 0..DEPTH {
                hidden.row_mut(k / PANEL, m)[k % PANEL] = value(m * DEPTH + k) * if m == 3 { 40.0 } else { 1.0 };
            }
        }
        (hidden, (0..VOCAB * DEPTH).map(|i| value(i + 5)).collect())
    }

    fn scores(
        hidden: &Panels,
        weights: &[f32],
        choice: impl Fn(u32) -> TokenChoice,
        options: PositionOptions,
    ) -> Vec<TokenScore> {
        let mut packed = Weights::zeros(WeightType::F32, VOCAB, DEPTH);
        packed.set_rows(weights, DEPTH, |n| n, |k| k);
        let compute = Compute { arch: Arch::new(), activations: ActivationType::F32 };
        let chunks = &chunks(&[0..20, 20..panels_for(VOCAB)]);
        let head = Head { compute, weights: &packed, chunks, vocab_size: VOCAB };
        let row = |at: usize| ScoreRow { from: Hidden::Row(at), choice: choice(target(at)), options: options.clone() };
        head.scores(hidden, &(0..ROWS).map(row).collect::<Vec<_>>(), &mut None).unwrap()
    }

    fn target(row: usize) -> u32 {
        row as u32 * 41 % VOCAB as u32
    }

    /// Log-probabilities of a row in float64.
    fn logprobs(hidden: &Panels, weights: &[f32], m: usize) -> Vec<f64> {
        let dot = |w: &[f32]| -> f64 {
            let terms = w.iter().enumerate();
            terms.map(|(k, &w)| f64::from(w) * f64::from(hidden.row(k / PANEL, m)[k % PANEL])).sum()
        };
        let logits: Vec<f64> = weights.chunks(DEPTH).map(dot).collect();
        let max = logits.iter().copied().fold(f64::MIN, f64::max);
        let total = max + logits.iter().map(|l| (l - max).exp()).sum::<f64>().ln();
        logits.iter().map(|l| l - total).collect()
    }

    #[test]
    fn everything_matches_float64_also_with_a_dominating_logit() {
        let (hidden, weights) = inputs();
        let subset: Vec<u32> = (0..VOCAB as u32).filter(|id| id % 45 == 2).collect();
        let options = PositionOptions { subset: Some(Arc::new(Subset::new(&subset))), ..ALL };
        let got = scores(&hidden, &weights, TokenChoice::Given, options);
        for (m, got) in got.iter().enumerate() {
            let want = logprobs(&hidden, &weights, m);
            let scale = if m == 3 { 200.0 } else { 1.0 };
            let near = |got: f32, want: f64, what: &str| {
                assert!((f64::from(got) - want).abs() < 2e-6 * (scale + want.abs()), "row {m}, {what}: {got} {want}");
            };
            near(got.logprob, want[target(m) as usize], "log-probability");
            let position = got.position.as_ref().unwrap();
            near(position.entropy.unwrap(), -want.iter().map(|l| l.exp() * l).sum::<f64>(), "entropy");
            let mass = subset.iter().map(|&id| want[id as usize].exp()).sum::<f64>().ln();
            near(position.subset.unwrap(), mass, "subset");
            let above = want.iter().filter(|&&l| l > want[target(m) as usize] + 1e-6).count() as u32;
            let rank = position.rank.unwrap();
            let equals = want.iter().filter(|&&l| (l - want[target(m) as usize]).abs() <= 1e-6).count() as u32;
            assert!((above + 1..=above + equals).contains(&rank), "row {m}: rank {rank}, {above} above");
            let mut sorted = want.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            assert_eq!(position.top.len(), 5);
            for (&(id, logprob), &best) in position.top.iter().zip(&sorted) {
                near(logprob, want[id as usize], "alternative");
                near(logprob, best, "order of alternatives");
            }
        }
    }

    /// Ids whose logits are the same: the smaller first, and none of them above another.
    #[test]
    fn equal_logits_are_listed_by_id_and_share_a_rank() {
        let (hidden, mut weights) = inputs();
        for copy in [70, 1500, 2099] {
            weights.copy_within(3 * DEPTH..4 * DEPTH, copy * DEPTH);
        }
        let all = scores(&hidden, &weights, |_| TokenChoice::Given(1500), PositionOptions { top: 64, ..ALL });
        let first = scores(&hidden, &weights, |_| TokenChoice::Given(3), ALL);
        for (score, first) in all.iter().zip(&first) {
            let (position, first) = (score.position.as_ref().unwrap(), first.position.as_ref().unwrap());
            assert_eq!(position.rank, first.rank);
            let same: Vec<u32> = position.top.iter().filter(|one| one.1 == score.logprob).map(|one| one.0).collect();
            assert!(same.is_empty() || same == [3, 70, 1500, 2099], "{same:?}");
        }
    }

    /// A log-probability has the same bits alone, with everything else asked, and where its token was drawn.
    #[test]
    fn more_asked_and_tokens_drawn_change_no_bits() {
        let (hidden, weights) = inputs();
        let plain = scores(&hidden, &weights, TokenChoice::Given, PositionOptions::default());
        let asked = scores(&hidden, &weights, TokenChoice::Given, ALL);
        assert!(plain.iter().zip(&asked).all(|(a, b)| a.logprob.to_bits() == b.logprob.to_bits()));
        let greedy = scores(&hidden, &weights, |_| TokenChoice::Sampled(Sampling::GREEDY.at(0)), ALL);
        let sampling = Sampling { temperature: 2.0, top_p: 0.9, ..Sampling::GREEDY };
        let sampled = scores(&hidden, &weights, |row| TokenChoice::Sampled(sampling.at(row as usize)), ALL);
        for (m, score) in greedy.iter().enumerate() {
            let position = score.position.as_ref().unwrap();
            assert_eq!((position.top[0], position.rank), ((score.token, score.logprob), Some(1)), "row {m}");
        }
        assert!(sampled.iter().zip(&greedy).any(|(a, b)| a.token != b.token));
        for drawn in [greedy, sampled] {
            let again = |row: u32| TokenChoice::Given(drawn[(0..ROWS).find(|&m| target(m) == row).unwrap()].token);
            assert_eq!(scores(&hidden, &weights, again, ALL), drawn);
        }
    }
}
