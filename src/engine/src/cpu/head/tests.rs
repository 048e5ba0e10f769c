//! Tests of the head against float64, and of its bits with options or sampled tokens.

use std::sync::Arc;

use pulp::Arch;

use super::*;
use crate::backend::Hidden;
use crate::cpu::compute::ActivationPath;
use crate::cpu::packed_matrix::WeightDtype;
use crate::cpu::panel_matrix::panels_for;
use crate::sampling::Sampling;
use crate::scorer::subset::Subset;

const ROWS: usize = 50;
const DEPTH: usize = 40;
const VOCAB: usize = 2100;
const ALL: PositionOptions = PositionOptions { top: 5, rank: true, entropy: true, subset: None };

fn value(i: usize) -> f32 {
    ((i * 7919 % 2003) as f32 / 1001.5 - 1.0) * 0.9
}

/// Returns hidden states, one of them with a dominant logit, and the output matrix.
fn inputs() -> (PanelMatrix, Vec<f32>) {
    let mut hidden = PanelMatrix::zeros(ROWS, 2);
    for m in 0..ROWS {
        for k in 0..DEPTH {
            hidden.row_mut(k / PANEL_WIDTH, m)[k % PANEL_WIDTH] =
                value(m * DEPTH + k) * if m == 3 { 40.0 } else { 1.0 };
        }
    }
    (hidden, (0..VOCAB * DEPTH).map(|i| value(i + 5)).collect())
}

fn scores(
    hidden: &PanelMatrix,
    weights: &[f32],
    choice: impl Fn(u32) -> TokenChoice,
    options: PositionOptions,
) -> Vec<TokenScore> {
    let mut packed = PackedMatrix::zeros(WeightDtype::F32, VOCAB, DEPTH);
    packed.pack_rows(weights, DEPTH, |n| n, |k| k);
    let compute = ComputeMode { arch: Arch::new(), activations: ActivationPath::F32 };
    let chunks = &vocab_chunks(&[0..20, 20..panels_for(VOCAB)]);
    let head = Head { compute, weights: &packed, chunks, vocab_size: VOCAB };
    let row = |at: usize| ScoreRow { from: Hidden::Row(at), choice: choice(target(at)), options: options.clone() };
    head.scores(hidden, &(0..ROWS).map(row).collect::<Vec<_>>(), &mut None).unwrap()
}

fn target(row: usize) -> u32 {
    row as u32 * 41 % VOCAB as u32
}

/// Returns the log-probabilities of a row in float64.
fn logprobs(hidden: &PanelMatrix, weights: &[f32], m: usize) -> Vec<f64> {
    let dot = |w: &[f32]| -> f64 {
        let terms = w.iter().enumerate();
        terms.map(|(k, &w)| f64::from(w) * f64::from(hidden.row(k / PANEL_WIDTH, m)[k % PANEL_WIDTH])).sum()
    };
    let logits: Vec<f64> = weights.chunks(DEPTH).map(dot).collect();
    let max = logits.iter().copied().fold(f64::MIN, f64::max);
    let total = max + logits.iter().map(|l| (l - max).exp()).sum::<f64>().ln();
    logits.iter().map(|l| l - total).collect()
}

#[test]
fn scores_and_details_match_float64_even_with_a_dominant_logit() {
    let (hidden, weights) = inputs();
    let subset: Vec<u32> = (0..VOCAB as u32).filter(|id| id % 45 == 2).collect();
    let options = PositionOptions { subset: Some(Arc::new(Subset::new(&subset))), ..ALL };
    let got = scores(&hidden, &weights, TokenChoice::Given, options);
    for (m, got) in got.iter().enumerate() {
        let want = logprobs(&hidden, &weights, m);
        let scale = if m == 3 { 200.0 } else { 1.0 };
        let near = |got: f32, want: f64, what: &str| {
            assert!(
                (f64::from(got) - want).abs() < 2e-6 * (scale + want.abs()),
                "row {m}, {what}: got {got}, expected {want}"
            );
        };
        near(got.logprob, want[target(m) as usize], "log-probability");
        let position = got.position.as_ref().unwrap();
        near(position.entropy.unwrap(), -want.iter().map(|l| l.exp() * l).sum::<f64>(), "entropy");
        let mass = subset.iter().map(|&id| want[id as usize].exp()).sum::<f64>().ln();
        near(position.subset.unwrap(), mass, "subset");
        let above = want.iter().filter(|&&l| l > want[target(m) as usize] + 1e-6).count() as u32;
        let rank = position.rank.unwrap();
        let equals = want.iter().filter(|&&l| (l - want[target(m) as usize]).abs() <= 1e-6).count() as u32;
        assert!(
            (above + 1..=above + equals).contains(&rank),
            "row {m}: the rank is {rank}, but {above} logits are greater"
        );
        let mut sorted = want.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        assert_eq!(position.top.len(), 5);
        for (&(id, logprob), &best) in position.top.iter().zip(&sorted) {
            near(logprob, want[id as usize], "alternative");
            near(logprob, best, "order of alternatives");
        }
    }
}

/// Tokens with equal logits are listed in order of their ids, and share a rank.
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

/// A log-probability has the same bits without options, with all options, and for a sampled token.
#[test]
fn options_and_sampling_change_no_bits() {
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
    for sampled in [greedy, sampled] {
        let again = |row: u32| TokenChoice::Given(sampled[(0..ROWS).find(|&m| target(m) == row).unwrap()].token);
        assert_eq!(scores(&hidden, &weights, again, ALL), sampled);
    }
}
