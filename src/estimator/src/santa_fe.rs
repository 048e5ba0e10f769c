//! The Santa Fe process and its oracle model, in closed form: the estimators' ground truth.

use rand::{Rng, RngExt};

use crate::Error;

/// Ids run to `2K`, so this many symbols still fit a `u32`.
const MOST_SYMBOLS: usize = 1 << 30;

/// A finite Santa Fe process (Dębowski, *On Hidden Markov Processes with Infinite Excess Entropy*, 2014, and
/// *Information Theory Meets Power Laws*, 2020) with an oracle model of it.
///
/// **The process.** A document states facts about `K` symbols: each token is a pair `(k, z_k)`, the symbol `k` drawn
/// independently from a Zipf law `p_k ∝ (k+1)^-a`, its value `z_k` a fair coin flipped once per document. Token id:
/// `2k + z`; [`bos`](Self::bos) is `2K`.
///
/// **The oracle** `q` knows the process, but keeps a `doubt` `δ` in `(0, 1/2)`. Next to come is symbol `k` with value `z`
/// with probability
/// * `p_k / 2`, if the history holds no value of `k`, or both (which the process never does, but a crossed pair may);
/// * `p_k (1 - δ)`, if it holds `z` alone; `p_k δ`, if it holds the other value alone.
///
/// So `q` is normalised after every history, and at `δ -> 0` it is the process itself.
///
/// ```
/// use surprisal_estimator::SantaFe;
///
/// let process = SantaFe::new(64, 1.5, 1e-3)?;
/// let truth = process.mutual_information(8, 8);
/// assert!(process.direct_limit(8, 8) < truth && truth < process.vclub_limit(8, 8));
/// # Ok::<(), surprisal_estimator::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SantaFe {
    probabilities: Vec<f64>,
    /// `cumulative[k]` = p_0 + ... + p_k, for sampling.
    cumulative: Vec<f64>,
    exponent: f64,
    doubt: f64,
}

impl SantaFe {
    /// A process over `symbols` symbols, Zipf exponent `exponent`, and an oracle with `doubt`.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless `symbols` is in 1..=2^30, `exponent` is finite and not negative, and `doubt` is in (0, 1/2).
    pub fn new(symbols: usize, exponent: f64, doubt: f64) -> Result<Self, Error> {
        if !(1..=MOST_SYMBOLS).contains(&symbols) {
            return Err(Error::invalid("symbols", symbols, format!("in 1..={MOST_SYMBOLS}")));
        }
        if !(exponent.is_finite() && exponent >= 0.0) {
            return Err(Error::invalid("exponent", exponent, "finite and at least 0"));
        }
        if !(doubt > 0.0 && doubt < 0.5) {
            return Err(Error::invalid("doubt", doubt, "above 0 and below 0.5"));
        }
        let weights: Vec<f64> = (1..=symbols).map(|rank| (rank as f64).powf(-exponent)).collect();
        // Smallest first: the tail is not lost in rounding.
        let total: f64 = weights.iter().rev().sum();
        let probabilities: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
        let cumulative = probabilities
            .iter()
            .scan(0.0, |sum, p| {
                *sum += p;
                Some(*sum)
            })
            .collect();
        Ok(Self { probabilities, cumulative, exponent, doubt })
    }

    /// `p_k`, the most frequent symbol first; they add to 1.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// The token that begins a document: `2K`, the last id of the vocabulary.
    pub fn bos(&self) -> u32 {
        2 * self.probabilities.len() as u32
    }

    /// The Zipf exponent `a`.
    pub fn exponent(&self) -> f64 {
        self.exponent
    }

    /// The oracle's doubt `δ`.
    pub fn doubt(&self) -> f64 {
        self.doubt
    }

    /// A document of `length` tokens, without BOS.
    pub fn sample(&self, length: usize, rng: &mut impl Rng) -> Vec<u32> {
        let coins: Vec<bool> = self.probabilities.iter().map(|_| rng.random()).collect();
        let last = coins.len() - 1;
        let draw = |_| {
            let u: f64 = rng.random();
            // Rounding may leave the last cumulative sum just below 1.
            let symbol = self.cumulative.partition_point(|&c| c <= u).min(last);
            2 * symbol as u32 + u32::from(coins[symbol])
        };
        (0..length).map(draw).collect()
    }

    /// `ln q(tokens[t] | history, tokens[..t])` for each `t`, in nats.
    ///
    /// With an empty history this is the marginal of a stretch of text from anywhere: the process is stationary. A BOS in
    /// the history says nothing about any symbol.
    ///
    /// # Errors
    /// [`Error::TokenOutOfRange`] for ids above BOS, and for BOS itself among `tokens`: its probability is zero.
    pub fn logprobs(&self, history: &[u32], tokens: &[u32]) -> Result<Vec<f64>, Error> {
        let mut seen = vec![false; self.bos() as usize];
        for (position, &token) in history.iter().enumerate() {
            if token != self.bos() {
                self.check(token, position)?;
                seen[token as usize] = true;
            }
        }
        let score = |(position, &token): (usize, &u32)| {
            self.check(token, position)?;
            let (this, other) = (token as usize, (token ^ 1) as usize);
            let value = match (seen[this], seen[other]) {
                (true, false) => (-self.doubt).ln_1p(),
                (false, true) => self.doubt.ln(),
                (false, false) | (true, true) => 0.5_f64.ln(),
            };
            seen[this] = true;
            Ok(self.probabilities[this / 2].ln() + value)
        };
        tokens.iter().enumerate().map(score).collect()
    }

    /// `ln p(tokens)` of a document by the process itself: `Σ_t ln p_k - ln 2` for each symbol's first token, `ln p_k` for those that
    /// repeat its coin; negative infinity where two contradict each other.
    ///
    /// # Errors
    /// As [`logprobs`](Self::logprobs).
    pub fn log_probability(&self, tokens: &[u32]) -> Result<f64, Error> {
        let mut seen = vec![false; self.bos() as usize];
        let mut total = 0.0;
        for (position, &token) in tokens.iter().enumerate() {
            self.check(token, position)?;
            let (this, other) = (token as usize, (token ^ 1) as usize);
            let value = match (seen[this], seen[other]) {
                (true, _) => 0.0,
                (false, false) => 0.5_f64.ln(),
                (false, true) => f64::NEG_INFINITY,
            };
            seen[this] = true;
            total += self.probabilities[this / 2].ln() + value;
        }
        Ok(total)
    }

    fn check(&self, token: u32, position: usize) -> Result<(), Error> {
        if token < self.bos() {
            return Ok(());
        }
        Err(Error::TokenOutOfRange { token, position, limit: self.bos() as usize })
    }

    /// The mutual information of `m` tokens and the `n` that follow, in nats:
    /// `I = ln 2 · Σ_k (1 - (1-p_k)^m) (1 - (1-p_k)^n)`.
    ///
    /// The two stretches share the coins of those symbols that stand in both, and nothing else. For `K -> ∞` and
    /// `a > 1`, `I(n, n)` grows as `n^(1/a)`.
    pub fn mutual_information(&self, m: usize, n: usize) -> f64 {
        let shared = |&p: &f64| appears(p, m) * appears(p, n);
        std::f64::consts::LN_2 * self.probabilities.iter().rev().map(shared).sum::<f64>()
    }

    /// What the direct estimator `E[ln q(y|x)] - E[ln q(y)]` converges to on the oracle, in nats, for `|x| = m`, `|y| = n`:
    /// `ln(2(1-δ)) / ln 2 · I(m, n)`, a little below the truth, and the truth as `δ -> 0`.
    ///
    /// Both terms score symbol `k` at place `t` of `y` as `ln p_k - ln 2`, plus `ln(2(1-δ))` if `k` was seen; the
    /// chance that `x` alone showed it is `(1 - (1-p_k)^m) (1-p_k)^t`, and `Σ_t p_k (1-p_k)^t = 1 - (1-p_k)^n`.
    pub fn direct_limit(&self, m: usize, n: usize) -> f64 {
        self.right() / std::f64::consts::LN_2 * self.mutual_information(m, n)
    }

    /// What vCLUB `E_joint[ln q(y|x)] - E_independent[ln q(y|x)]` converges to on the oracle, in nats, for `|x| = m`,
    /// `|y| = n`:
    /// `V = ½ Σ_k (1 - (1-p_k)^m) [ n p_k ln(2(1-δ)) - (1 - (1-p_k)^n) ln(2δ) ]`.
    ///
    /// **Derivation.** Take symbol `k` at place `t` of `y`, which happens with probability `p_k`, and write
    /// `A = (1-p_k)^m` and `B = (1-p_k)^t`, the chances that `x` and `y[..t]` do not hold it. Against the score of an
    /// unknown coin, `ln p_k - ln 2`, the oracle gains `u = ln(2(1-δ)) > 0` where it knows the coin, and loses
    /// `-w = -ln(2δ) > 0` where it is misled.
    /// * Jointly, it knows the coin when `k` stands in either: gain `(1 - AB) u`.
    /// * Independently, `x` has coins of its own, each equal to `y`'s or not with chance ½. Only `x` holds `k`,
    ///   `(1-A) B`: the gain is `(u + w)/2`. Only `y` holds it, `A (1-B)`: `u`. Both do, `(1-A)(1-B)`: `u` if the coins
    ///   agree, 0 if they contradict each other, so `u/2`.
    ///
    /// The difference is `(1-A) (u - B w) / 2`. Summing over `t` with `Σ_t p_k B = 1 - (1-p_k)^n` gives `V`.
    ///
    /// **Above the truth.** CLUB (Cheng et al., *CLUB: A Contrastive Log-ratio Upper Bound of Mutual Information*, 2020)
    /// bounds `I` from above when `q = p`, by Jensen's inequality: `E_x[ln p(y|x)] <= ln E_x[p(y|x)] = ln p(y)`. With a model
    /// in place of `p` (the v of vCLUB) this is no theorem, but here it holds for every `δ <= 1/5`: as
    /// `n p_k >= 1 - (1-p_k)^n`, `V - I >= ½ ln((1-δ)/(4δ)) · I / ln 2`. As `δ -> 0` the bound is infinite: a crossed pair
    /// contradicts itself, which the process never does.
    ///
    /// **And growing faster.** Besides `½ ln(1/(2δ)) / ln 2 · I`, a multiple of the truth, `V` holds
    /// `½ ln(2(1-δ)) · n Σ_k p_k (1 - (1-p_k)^m)`: where a coin of `x` contradicts `y`'s, which half of them do, the oracle
    /// never regains its certainty and misses `u` at *every* later token about that symbol, however often it comes. That
    /// grows as `n`, not as `n^(1/a)`, so vCLUB's exponent on this process lies above the true one.
    pub fn vclub_limit(&self, m: usize, n: usize) -> f64 {
        let (right, wrong) = (self.right(), (2.0 * self.doubt).ln());
        let term = |&p: &f64| appears(p, m) * (n as f64 * p * right - appears(p, n) * wrong);
        0.5 * self.probabilities.iter().rev().map(term).sum::<f64>()
    }

    /// The two-point mutual information, in nats, at any distance: `ln 2 · Σ_k p_k²`, the chance that both tokens are of one
    /// symbol, whose coin they share.
    pub fn two_point(&self) -> f64 {
        std::f64::consts::LN_2 * self.probabilities.iter().rev().map(|p| p * p).sum::<f64>()
    }

    /// `KL(process || oracle)` over `n` tokens from the beginning, in nats:
    /// `-ln(1-δ) · (n - Σ_k (1 - (1-p_k)^n))`. The oracle loses only where it doubts a coin that was seen.
    pub fn divergence(&self, n: usize) -> f64 {
        let fresh: f64 = self.probabilities.iter().rev().map(|&p| appears(p, n)).sum();
        -(-self.doubt).ln_1p() * (n as f64 - fresh)
    }

    /// `ln(2(1-δ))`: what knowing a coin is worth to the oracle, in nats.
    fn right(&self) -> f64 {
        std::f64::consts::LN_2 + (-self.doubt).ln_1p()
    }
}

/// `1 - (1-p)^n`: the chance that a symbol of probability `p` stands among `n` tokens, accurate for small `p`.
fn appears(p: f64, n: usize) -> f64 {
    if n == 0 {
        return 0.0;
    }
    -(n as f64 * (-p).ln_1p()).exp_m1()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn sum(process: &SantaFe, history: &[u32], tokens: &[u32]) -> f64 {
        process.logprobs(history, tokens).unwrap().iter().sum()
    }

    /// Every sequence of `length` token ids.
    fn sequences(process: &SantaFe, length: usize) -> Vec<Vec<u32>> {
        (0..length).fold(vec![vec![]], |shorter, _| {
            let grow = |sequence: Vec<u32>| (0..process.bos()).map(move |token| [&sequence[..], &[token]].concat());
            shorter.into_iter().flat_map(grow).collect()
        })
    }

    /// The process's own probability: the mean over all coin flips of the chance of exactly these tokens.
    fn probability(process: &SantaFe, tokens: &[u32]) -> f64 {
        let coins = 1_u32 << process.probabilities().len();
        let given = |flips: u32| -> f64 {
            let chance = |&token: &u32| {
                let fits = flips >> (token / 2) & 1 == token & 1;
                f64::from(u8::from(fits)) * process.probabilities()[token as usize / 2]
            };
            tokens.iter().map(chance).product()
        };
        (0..coins).map(given).sum::<f64>() / f64::from(coins)
    }

    #[test]
    fn the_process_s_own_probability_equals_enumeration() {
        let process = SantaFe::new(3, 1.2, 0.3).unwrap();
        for tokens in sequences(&process, 4) {
            let (exact, found) = (probability(&process, &tokens), process.log_probability(&tokens).unwrap().exp());
            assert!((exact - found).abs() < 1e-15, "{tokens:?}: {exact} {found}");
        }
        assert!(process.log_probability(&[0, process.bos()]).is_err());
    }

    #[test]
    fn closed_forms_equal_enumeration() {
        for (symbols, m, n) in [(1, 2, 2), (2, 1, 1), (2, 2, 2), (3, 1, 2), (3, 2, 1), (2, 3, 2), (2, 0, 2)] {
            let process = SantaFe::new(symbols, 1.2, 0.05).unwrap();
            let (mut truth, mut direct, mut vclub) = (0.0, 0.0, 0.0);
            for x in sequences(&process, m) {
                for y in sequences(&process, n) {
                    let (px, py) = (probability(&process, &x), probability(&process, &y));
                    let joint = probability(&process, &[&x[..], &y[..]].concat());
                    let conditional = sum(&process, &x, &y);
                    vclub += (joint - px * py) * conditional;
                    if joint > 0.0 {
                        truth += joint * (joint / (px * py)).ln();
                        direct += joint * (conditional - sum(&process, &[], &y));
                    }
                }
            }
            for (name, enumerated, closed) in [
                ("truth", truth, process.mutual_information(m, n)),
                ("direct", direct, process.direct_limit(m, n)),
                ("vCLUB", vclub, process.vclub_limit(m, n)),
            ] {
                assert!(
                    (enumerated - closed).abs() < 1e-12,
                    "{name} for K={symbols}, m={m}, n={n}: {enumerated} enumerated, {closed} closed"
                );
            }
        }
    }

    #[test]
    fn two_point_information_and_divergence_equal_enumeration() {
        let process = SantaFe::new(3, 1.2, 0.05).unwrap();
        let all = sequences(&process, 2);
        let mut two_point = 0.0;
        for pair in &all {
            let (joint, left, right) =
                (probability(&process, pair), probability(&process, &pair[..1]), probability(&process, &pair[1..]));
            if joint > 0.0 {
                two_point += joint * (joint / (left * right)).ln();
            }
        }
        assert!((two_point - process.two_point()).abs() < 1e-12);
        for n in [1, 2, 4] {
            let term = |tokens: &Vec<u32>| match probability(&process, tokens) {
                0.0 => 0.0,
                p => p * (p.ln() - sum(&process, &[], tokens)),
            };
            let divergence: f64 = sequences(&process, n).iter().map(term).sum();
            assert!((divergence - process.divergence(n)).abs() < 1e-12, "{n}");
        }
    }

    #[test]
    fn closed_forms_agree_with_samples() {
        let (m, n, pairs) = (24, 40, 4000);
        let process = SantaFe::new(200, 1.3, 1e-3).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let (mut direct, mut vclub) = (vec![], vec![]);
        for _ in 0..pairs {
            let document = process.sample(m + n, &mut rng);
            let stranger = process.sample(m, &mut rng);
            let (x, y) = document.split_at(m);
            let conditional = sum(&process, x, y);
            direct.push(conditional - sum(&process, &[], y));
            vclub.push(conditional - sum(&process, &stranger, y));
        }
        for (values, limit) in [(direct, process.direct_limit(m, n)), (vclub, process.vclub_limit(m, n))] {
            let mean = values.iter().sum::<f64>() / f64::from(pairs);
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(pairs - 1);
            let error = (variance / f64::from(pairs)).sqrt();
            assert!((mean - limit).abs() < 3.0 * error, "{mean} ± {error}, but {limit}");
        }
    }

    #[test]
    fn samples_follow_the_zipf_law() {
        let process = SantaFe::new(5, 1.0, 0.1).unwrap();
        let document = process.sample(100_000, &mut ChaCha8Rng::seed_from_u64(1));
        for (symbol, p) in process.probabilities().iter().enumerate() {
            let count = document.iter().filter(|&&token| token as usize / 2 == symbol).count() as f64;
            let spread = (1e5 * p * (1.0 - p)).sqrt();
            assert!((count - 1e5 * p).abs() < 4.0 * spread, "symbol {symbol}: {count}");
            let values = document.iter().filter(|&&token| token as usize / 2 == symbol);
            assert_eq!(values.collect::<std::collections::HashSet<_>>().len(), 1, "one coin a document");
        }
    }

    #[test]
    fn direct_tends_to_the_truth_as_doubt_vanishes() {
        let process = SantaFe::new(300, 1.4, 1e-9).unwrap();
        let truth = process.mutual_information(64, 64);
        assert!((process.direct_limit(64, 64) / truth - 1.0).abs() < 1e-8);
    }

    #[test]
    fn bad_arguments_are_named() {
        for (symbols, exponent, doubt, field) in [
            (0, 1.0, 0.1, "symbols"),
            (3, f64::NAN, 0.1, "exponent"),
            (3, -1.0, 0.1, "exponent"),
            (3, 1.0, 0.0, "doubt"),
            (3, 1.0, 0.5, "doubt"),
        ] {
            let error = SantaFe::new(symbols, exponent, doubt).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
        let process = SantaFe::new(3, 1.0, 0.1).unwrap();
        assert!(process.logprobs(&[process.bos()], &[0]).is_ok());
        assert!(process.logprobs(&[], &[process.bos()]).is_err());
        assert!(process.logprobs(&[7], &[0]).is_err());
    }

    proptest! {
        #[test]
        fn the_oracle_is_normalised_after_every_history(
            symbols in 1_usize..20,
            doubt in 1e-6..0.49,
            history in prop::collection::vec(0_u32..20, 0..40),
        ) {
            let process = SantaFe::new(symbols, 1.1, doubt).unwrap();
            let history: Vec<u32> = history.iter().map(|token| token % process.bos()).collect();
            let total: f64 = (0..process.bos()).map(|token| sum(&process, &history, &[token]).exp()).sum();
            prop_assert!((total - 1.0).abs() < 1e-12);
        }

        #[test]
        fn scoring_in_two_steps_changes_nothing(tokens in prop::collection::vec(0_u32..16, 2..40), cut in 1_usize..39) {
            let process = SantaFe::new(8, 1.1, 0.01).unwrap();
            let cut = cut.min(tokens.len() - 1);
            let whole = process.logprobs(&[], &tokens).unwrap();
            let tail = process.logprobs(&tokens[..cut], &tokens[cut..]).unwrap();
            prop_assert_eq!(&whole[cut..], &tail[..]);
        }

        #[test]
        fn vclub_lies_above_the_truth_and_direct_below(
            symbols in 1_usize..500, exponent in 0.0..3.0, doubt in 1e-9..0.2, m in 1_usize..600, n in 1_usize..600,
        ) {
            let process = SantaFe::new(symbols, exponent, doubt).unwrap();
            let truth = process.mutual_information(m, n);
            prop_assert!(process.direct_limit(m, n) <= truth);
            prop_assert!(process.vclub_limit(m, n) >= truth * (1.0 - 1e-12));
        }
    }
}
