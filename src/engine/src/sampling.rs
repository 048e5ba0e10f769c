//! Sampling of a token from a row of logits: greedy, or by temperature, top-k and top-p. Equal seeds give equal tokens.

/// The sampling parameters of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits; 0 selects the most probable token. Ties are broken by smaller id.
    pub temperature: f32,
    /// Threshold of nucleus sampling (Holtzman et al., 2020): tokens are sampled from the smallest set of most probable
    /// tokens whose total probability reaches it; 1 means all tokens.
    pub top_p: f32,
    /// Number of most probable tokens to sample from; 0 means all.
    pub top_k: u32,
    /// Seed of the noise. Equal seeds sample equal tokens after the same sequence.
    pub seed: u64,
}

impl Sampling {
    /// Greedy sampling: always the most probable token.
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 };

    /// Returns the parameters and the noise for the token at a position of its sequence.
    pub fn at(&self, position: usize) -> Sample {
        let noise = mix(self.seed ^ mix(position as u64));
        // 53 bits, so that an f64 represents each value exactly.
        Sample { sampling: *self, uniform: (noise >> 11) as f64 / (1_u64 << 53) as f64 }
    }
}

/// The sampling parameters and the noise for one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The sampling parameters.
    pub sampling: Sampling,
    /// The noise: a number in [0, 1) that selects a point of the cumulative distribution.
    pub uniform: f64,
}

/// Number of candidates that [`nucleus`] sorts first. It sorts more if the nucleus is larger.
const FIRST_CANDIDATES: usize = 64;

impl Sample {
    /// Returns the token sampled from these logits: the first token whose cumulative probability exceeds `uniform`.
    /// Tokens are in order of decreasing probability (ties by smaller id) if top-k or top-p is set, otherwise in order
    /// of their ids.
    pub fn pick(&self, logits: &[f32]) -> u32 {
        let Sampling { temperature, top_p, top_k, .. } = self.sampling;
        let best = argmax(logits);
        if temperature <= 0.0 {
            return best;
        }
        let max = logits.get(best as usize).copied().unwrap_or_default();
        let weight = |id: u32| (f64::from(logits[id as usize] - max) / f64::from(temperature)).exp();
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let all: f64 = ids.iter().map(|&id| weight(id)).sum();
        if top_p < 1.0 || top_k > 0 {
            ids = nucleus(ids, logits, f64::from(top_p.min(1.0)), top_k as usize, all, weight);
        }
        let total: f64 = ids.iter().map(|&id| weight(id)).sum();
        let mut left = self.uniform * total;
        for &id in &ids {
            left -= weight(id);
            if left < 0.0 {
                return id;
            }
        }
        // Rounding can leave a small remainder after the last token.
        best
    }
}

/// Returns the most probable tokens, most probable first: the first `top_k` (0 means all), and of those only as many as
/// are needed to reach the share `top_p` of their total weight.
fn nucleus(
    mut ids: Vec<u32>,
    logits: &[f32],
    top_p: f64,
    top_k: usize,
    all: f64,
    weight: impl Fn(u32) -> f64,
) -> Vec<u32> {
    let by_probability = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let most = if top_k == 0 { ids.len() } else { top_k.min(ids.len()) };
    let mut count = if top_k == 0 { FIRST_CANDIDATES.min(most) } else { most };
    loop {
        if count < ids.len() {
            ids.select_nth_unstable_by(count, by_probability);
        }
        let mut candidates = ids[..count].to_vec();
        candidates.sort_unstable_by(by_probability);
        let total = if top_k == 0 { all } else { candidates.iter().map(|&id| weight(id)).sum() };
        match nucleus_len(&candidates, top_p * total, &weight) {
            Some(len) => candidates.truncate(len),
            None if count < most => {
                count = count.saturating_mul(8).min(most);
                continue;
            }
            None => {}
        }
        return candidates;
    }
}

/// Returns how many of the first candidates are needed to reach `target` weight; `None` if their total weight is less.
fn nucleus_len(candidates: &[u32], target: f64, weight: impl Fn(u32) -> f64) -> Option<usize> {
    let mut reached = 0.0;
    for (index, &id) in candidates.iter().enumerate() {
        reached += weight(id);
        if reached >= target {
            return Some(index + 1);
        }
    }
    None
}

/// Returns the most probable token. Ties are broken by smaller id.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (id as u32, logit);
        }
    }
    best.0
}

/// Mixes the bits of `x` with SplitMix64's finalizer (Steele, Lea and Flood, 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits() -> Vec<f32> {
        (0..300).map(|i: u32| (f64::from(i * 7919 % 300 + 1) / 60.0).sin() as f32 * 4.0).collect()
    }

    /// Returns the softmax at a temperature, most probable token first.
    fn softmax(logits: &[f32], temperature: f64) -> Vec<(u32, f64)> {
        let weights: Vec<f64> = logits.iter().map(|&l| (f64::from(l) / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut all: Vec<_> = (0..).zip(weights.iter().map(|w| w / total)).collect();
        all.sort_by(|a: &(u32, f64), b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all
    }

    fn samples(logits: &[f32], sampling: Sampling, count: usize) -> Vec<u32> {
        (0..count).map(|position| sampling.at(position).pick(logits)).collect()
    }

    #[test]
    fn greedy_sampling_breaks_ties_by_the_smallest_id() {
        assert_eq!(Sampling::GREEDY.at(3).pick(&[1.0, 5.0, 5.0, -1.0]), 1);
        assert_eq!(Sampling { temperature: 1.0, top_k: 1, ..Sampling::GREEDY }.at(9).pick(&[1.0, 5.0, 5.0, -1.0]), 1);
        assert_eq!(Sampling { temperature: 1.0, top_p: 1e-6, ..Sampling::GREEDY }.at(9).pick(&[1.0, 5.0, 4.0]), 1);
    }

    #[test]
    fn equal_seeds_sample_equal_tokens_and_different_seeds_do_not() {
        let sampling = Sampling { temperature: 1.0, seed: 7, ..Sampling::GREEDY };
        assert_eq!(samples(&logits(), sampling, 50), samples(&logits(), sampling, 50));
        assert_ne!(samples(&logits(), sampling, 50), samples(&logits(), Sampling { seed: 8, ..sampling }, 50));
    }

    /// The frequencies of 40,000 samples are within five standard deviations of the probabilities.
    #[test]
    fn tokens_are_sampled_in_proportion_to_their_probabilities() {
        let (logits, count) = (logits(), 40_000);
        for (temperature, top_p, top_k) in
            [(1.0, 1.0, 0), (0.5, 1.0, 0), (1.0, 0.7, 0), (2.0, 0.95, 0), (1.0, 1.0, 10), (1.0, 0.5, 20)]
        {
            let mut kept = softmax(&logits, f64::from(temperature));
            kept.truncate(if top_k == 0 { kept.len() } else { top_k as usize });
            let total: f64 = kept.iter().map(|one| one.1).sum();
            let mut reached = 0.0;
            let last = kept.iter().position(|one| {
                reached += one.1 / total;
                reached >= f64::from(top_p)
            });
            kept.truncate(last.map_or(kept.len(), |last| last + 1));
            let total: f64 = kept.iter().map(|one| one.1).sum();
            let sampling = Sampling { temperature, top_p, top_k, seed: 1 };
            let mut found = vec![0_u32; logits.len()];
            for token in samples(&logits, sampling, count) {
                found[token as usize] += 1;
            }
            for &(token, probability) in &kept {
                let expected = probability / total * count as f64;
                let error = (f64::from(found[token as usize]) - expected).abs();
                assert!(
                    error < 5.0 * expected.sqrt().max(1.0),
                    "{sampling:?}: the count of token {token} is {error} off; expected {expected}"
                );
                found[token as usize] = 0;
            }
            assert_eq!(found.iter().sum::<u32>(), 0, "{sampling:?}: a token outside the candidates was sampled");
        }
    }
}
