//! The Santa Fe process and its oracle model in closed form: a ground truth for the estimators.

use rand::{Rng, RngExt};

use crate::error::Error;
use crate::process::Process;

/// The maximum number of symbols `K`. Token ids go up to `2K`, which fits in a `u32`.
const MAX_SYMBOLS: usize = 1 << 30;

/// The tolerance for the sum of the probabilities, which must be 1.
const SUM_TOLERANCE: f64 = 1e-6;

/// A finite Santa Fe process and its oracle model (Dębowski, *On Hidden Markov Processes with Infinite Excess
/// Entropy*, 2014, and *Information Theory Meets Power Laws*, 2020).
///
/// **The process.** A document states facts about `K` symbols. Each token is a pair `(k, z_k)`: the symbol `k` is drawn
/// independently from a Zipf law `p_k ∝ (k+1)^-a`, and its value `z_k` is a fair coin flipped once per document. The
/// token id is `2k + z`; [`bos`](Self::bos) is `2K`.
///
/// **The oracle** `q` knows the process, but has a `doubt` `δ` in `(0, 1/2)`. The probability that the next token is
/// symbol `k` with value `z` is
/// * `p_k / 2`, if the history has no value of `k`, or both (impossible in the process, but possible in a crossed
///   query);
/// * `p_k (1 - δ)`, if the history has only `z`; `p_k δ`, if it has only the other value.
///
/// So `q` is normalized after every history, and as `δ -> 0` it becomes the process itself.
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
    /// Cumulative probabilities, for sampling: `cumulative[k]` = p_0 + ... + p_k.
    cumulative: Vec<f64>,
    /// The Zipf exponent; `None` if the probabilities were given.
    exponent: Option<f64>,
    doubt: f64,
}

impl SantaFe {
    /// Creates a process over `symbols` symbols with Zipf exponent `exponent`, and an oracle with `doubt`.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless `symbols` is in 1..=2^30, `exponent` is finite and not negative, and `doubt` is in
    /// `(0, 1/2)`.
    pub fn new(symbols: usize, exponent: f64, doubt: f64) -> Result<Self, Error> {
        if !(1..=MAX_SYMBOLS).contains(&symbols) {
            return Err(Error::invalid("symbols", symbols, format!("from 1 to {MAX_SYMBOLS}")));
        }
        if !(exponent.is_finite() && exponent >= 0.0) {
            return Err(Error::invalid("exponent", exponent, "finite and at least 0"));
        }
        let weights: Vec<f64> = (1..=symbols).map(|rank| (rank as f64).powf(-exponent)).collect();
        // Smallest first, so that the tail is not lost to rounding.
        let total: f64 = weights.iter().rev().sum();
        let probabilities = weights.iter().map(|weight| weight / total).collect();
        Ok(Self { exponent: Some(exponent), ..Self::from_probabilities(probabilities, doubt)? })
    }

    /// Creates a process whose symbols have these probabilities, and an oracle with `doubt`.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless there are 1 to 2^30 probabilities that are not negative and sum to 1, and `doubt` is
    /// in (0, 1/2).
    pub fn from_probabilities(probabilities: Vec<f64>, doubt: f64) -> Result<Self, Error> {
        if !(1..=MAX_SYMBOLS).contains(&probabilities.len()) {
            return Err(Error::invalid("symbols", probabilities.len(), format!("from 1 to {MAX_SYMBOLS}")));
        }
        if let Some(negative) = probabilities.iter().find(|&&p| p.is_nan() || p < 0.0) {
            return Err(Error::invalid("probability", negative, "at least 0"));
        }
        let total: f64 = probabilities.iter().rev().sum();
        if (total - 1.0).abs() >= SUM_TOLERANCE {
            return Err(Error::invalid("sum of probabilities", total, "1"));
        }
        if !(doubt > 0.0 && doubt < 0.5) {
            return Err(Error::invalid("doubt", doubt, "above 0 and below 0.5"));
        }
        let mut cumulative = Vec::with_capacity(probabilities.len());
        let mut sum = 0.0;
        for p in &probabilities {
            sum += p;
            cumulative.push(sum);
        }
        Ok(Self { probabilities, cumulative, exponent: None, doubt })
    }

    /// Returns the probability `p_k` of each symbol `k`; they sum to 1. A Zipf law has the most frequent symbol first.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// Returns the token that begins a document: `2K`, the last id of the vocabulary.
    pub fn bos(&self) -> u32 {
        2 * self.probabilities.len() as u32
    }

    /// Returns the Zipf exponent `a`; `None` if the probabilities were given.
    pub fn exponent(&self) -> Option<f64> {
        self.exponent
    }

    /// Returns the oracle's doubt `δ`.
    pub fn doubt(&self) -> f64 {
        self.doubt
    }

    /// Returns 16 hex digits of a hash of the probabilities.
    fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for p in &self.probabilities {
            hasher.update(&p.to_le_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    /// Samples a document of `length` tokens, without BOS.
    pub fn sample(&self, length: usize, rng: &mut impl Rng) -> Vec<u32> {
        let coins: Vec<bool> = self.probabilities.iter().map(|_| rng.random()).collect();
        let last = coins.len() - 1;
        let mut tokens = Vec::with_capacity(length);
        for _ in 0..length {
            let u: f64 = rng.random();
            // Rounding may leave the last cumulative sum just below 1.
            let symbol = self.cumulative.partition_point(|&c| c <= u).min(last);
            tokens.push(2 * symbol as u32 + u32::from(coins[symbol]));
        }
        tokens
    }

    /// Returns `ln q(tokens[t] | history, tokens[..t])` for each `t`, in nats.
    ///
    /// With an empty history, these are the marginal log-probabilities of a segment from anywhere in a text, because
    /// the process is stationary. A BOS in the history has no effect.
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
        let mut logprobs = Vec::with_capacity(tokens.len());
        for (position, &token) in tokens.iter().enumerate() {
            self.check(token, position)?;
            let (this, other) = (token as usize, (token ^ 1) as usize);
            let value = match (seen[this], seen[other]) {
                (true, false) => (-self.doubt).ln_1p(),
                (false, true) => self.doubt.ln(),
                (false, false) | (true, true) => 0.5_f64.ln(),
            };
            seen[this] = true;
            logprobs.push(self.probabilities[this / 2].ln() + value);
        }
        Ok(logprobs)
    }

    /// Returns `ln p(tokens[t] | tokens[..t])` of a document for each `t` under the process itself, in nats: `ln p_k - ln 2`
    /// for the first token of a symbol `k`, and `ln p_k` for a later one with the same value. It is negative infinity for
    /// a token that contradicts all earlier ones of its symbol.
    ///
    /// # Errors
    /// The same as [`logprobs`](Self::logprobs).
    pub fn log_probabilities(&self, tokens: &[u32]) -> Result<Vec<f64>, Error> {
        let mut seen = vec![false; self.bos() as usize];
        let mut log_probabilities = Vec::with_capacity(tokens.len());
        for (position, &token) in tokens.iter().enumerate() {
            self.check(token, position)?;
            let (this, other) = (token as usize, (token ^ 1) as usize);
            let value = match (seen[this], seen[other]) {
                (true, _) => 0.0,
                (false, false) => 0.5_f64.ln(),
                (false, true) => f64::NEG_INFINITY,
            };
            seen[this] = true;
            log_probabilities.push(self.probabilities[this / 2].ln() + value);
        }
        Ok(log_probabilities)
    }

    fn check(&self, token: u32, position: usize) -> Result<(), Error> {
        if token < self.bos() {
            return Ok(());
        }
        Err(Error::TokenOutOfRange { token, position, limit: self.bos() as usize })
    }

    /// Returns the mutual information between `m` tokens and the `n` tokens that follow, in nats:
    /// `I = ln 2 · Σ_k (1 - (1-p_k)^m) (1 - (1-p_k)^n)`.
    ///
    /// The two segments share only the coins of the symbols that appear in both. For `K -> ∞` and `a > 1`, `I(n, n)`
    /// grows as `n^(1/a)`.
    pub fn mutual_information(&self, m: usize, n: usize) -> f64 {
        let shared = |&p: &f64| appears(p, m) * appears(p, n);
        std::f64::consts::LN_2 * self.probabilities.iter().rev().map(shared).sum::<f64>()
    }

    /// Returns the limit of the direct estimator `E[ln q(y|x)] - E[ln q(y)]` with the oracle, in nats, for `|x| = m`,
    /// `|y| = n`: `ln(2(1-δ)) / ln 2 · I(m, n)`. The limit is below the truth, and converges to the truth as `δ -> 0`.
    ///
    /// Both terms score symbol `k` at position `t` of `y` as `ln p_k - ln 2`, plus `ln(2(1-δ))` if `k` was seen. The
    /// probability that `k` was seen in `x` but not in `y[..t]` is `(1 - (1-p_k)^m) (1-p_k)^t`, and
    /// `Σ_t p_k (1-p_k)^t = 1 - (1-p_k)^n`.
    pub fn direct_limit(&self, m: usize, n: usize) -> f64 {
        self.known_coin_gain() / std::f64::consts::LN_2 * self.mutual_information(m, n)
    }

    /// Returns the limit of vCLUB, `E_joint[ln q(y|x)] - E_independent[ln q(y|x)]`, with the oracle, in nats, for
    /// `|x| = m`, `|y| = n`: `V = ½ Σ_k (1 - (1-p_k)^m) [ n p_k ln(2(1-δ)) - (1 - (1-p_k)^n) ln(2δ) ]`.
    ///
    /// **Derivation.** Take symbol `k` at position `t` of `y`, which has probability `p_k`. Let `A = (1-p_k)^m` and
    /// `B = (1-p_k)^t` be the probabilities that `x` and `y[..t]` do not have `k`. Compared with the score of an
    /// unknown coin, `ln p_k - ln 2`, the oracle gains `u = ln(2(1-δ)) > 0` if it knows the coin, and `w = ln(2δ) < 0`
    /// (a loss) if it is misled.
    /// * If `x` and `y` are joint, the oracle knows the coin if `k` is in either: the gain is `(1 - AB) u`.
    /// * If `x` and `y` are independent, `x` has other coins, each equal to `y`'s with probability ½. If only `x` has
    ///   `k`, with probability `(1-A) B`, the gain is `(u + w)/2`. If only `y[..t]` has it, with probability `A (1-B)`,
    ///   the gain is `u`. If both have it, with probability `(1-A)(1-B)`, the gain is `u` if the coins agree and 0 if
    ///   they differ, so `u/2` on average.
    ///
    /// The difference is `(1-A) (u - B w) / 2`. The sum over `t`, with `Σ_t p_k B = 1 - (1-p_k)^n`, is `V`.
    ///
    /// **Above the truth.** CLUB (Cheng et al., *CLUB: A Contrastive Log-ratio Upper Bound of Mutual Information*,
    /// 2020) bounds `I` from above if `q = p` and `x` is independent of `y` in the second term, by Jensen's inequality:
    /// `E_x[ln p(y|x)] <= ln E_x[p(y|x)] = ln p(y)`. With a model instead of `p` (the v of vCLUB) this is not a
    /// theorem, but for this oracle it holds for every `δ <= 1/5`: because `n p_k >= 1 - (1-p_k)^n`,
    /// `V - I >= ½ ln((1-δ)/(4δ)) · I / ln 2`. As `δ -> 0` the bound becomes infinite, because a crossed pair can
    /// contradict itself, which the process never does.
    ///
    /// **Faster growth.** Besides `½ ln(1/(2δ)) / ln 2 · I`, a multiple of the truth, `V` has the term
    /// `½ ln(2(1-δ)) · n Σ_k p_k (1 - (1-p_k)^m)`. Half of the coins of an independent `x` contradict those of `y`.
    /// After both coins of a symbol have appeared, the oracle never regains its certainty and misses the gain `u` at
    /// *every* later token of that symbol. This term grows as `n`, not as `n^(1/a)`, so vCLUB's exponent for this
    /// process is larger than the true exponent.
    pub fn vclub_limit(&self, m: usize, n: usize) -> f64 {
        let (gain, loss) = (self.known_coin_gain(), (2.0 * self.doubt).ln());
        let term = |&p: &f64| appears(p, m) * (n as f64 * p * gain - appears(p, n) * loss);
        0.5 * self.probabilities.iter().rev().map(term).sum::<f64>()
    }

    /// Returns the two-point mutual information at any distance, in nats: `ln 2 · Σ_k p_k²`. `Σ_k p_k²` is the
    /// probability that both tokens have the same symbol, and so share its coin.
    pub fn two_point(&self) -> f64 {
        std::f64::consts::LN_2 * self.probabilities.iter().rev().map(|p| p * p).sum::<f64>()
    }

    /// Returns `KL(process || oracle)` over the first `n` tokens, in nats: `-ln(1-δ) · (n - Σ_k (1 - (1-p_k)^n))`. The
    /// oracle loses only at tokens whose coin was already seen, because it doubts that coin: the token at position `t`,
    /// counted from 1, adds `-ln(1-δ) · Σ_k p_k (1 - (1-p_k)^(t-1))`.
    pub fn divergence(&self, n: usize) -> f64 {
        let fresh: f64 = self.probabilities.iter().rev().map(|&p| appears(p, n)).sum();
        -(-self.doubt).ln_1p() * (n as f64 - fresh)
    }

    /// Returns `ln(2(1-δ))`, in nats: the oracle's gain from knowing a coin.
    fn known_coin_gain(&self) -> f64 {
        std::f64::consts::LN_2 + (-self.doubt).ln_1p()
    }
}

/// Returns `1 - (1-p)^n`, accurately for small `p`: the probability that a symbol of probability `p` appears in `n`
/// tokens.
fn appears(p: f64, n: usize) -> f64 {
    if n == 0 {
        return 0.0;
    }
    -(n as f64 * (-p).ln_1p()).exp_m1()
}

impl Process for SantaFe {
    type Symbol = u32;

    fn name(&self) -> String {
        format!("Santa Fe oracle, {} symbols", self.probabilities().len())
    }

    fn fingerprint(&self) -> String {
        let (symbols, doubt) = (self.probabilities.len(), self.doubt);
        let law = match self.exponent {
            Some(exponent) => format!("exponent {exponent}"),
            None => format!("probabilities {}", self.digest()),
        };
        format!("santa fe, f64, {symbols} symbols, {law}, doubt {doubt}")
    }

    fn sample(&self, length: usize, rng: &mut impl Rng) -> Vec<u32> {
        SantaFe::sample(self, length, rng)
    }

    fn logprobs(&self, history: &[u32], symbols: &[u32]) -> Result<Vec<f64>, Error> {
        SantaFe::logprobs(self, history, symbols)
    }

    fn log_probabilities(&self, tokens: &[u32]) -> Result<Vec<f64>, Error> {
        SantaFe::log_probabilities(self, tokens)
    }

    fn mutual_information(&self, m: usize, n: usize) -> f64 {
        SantaFe::mutual_information(self, m, n)
    }

    fn direct_limit(&self, m: usize, n: usize) -> f64 {
        SantaFe::direct_limit(self, m, n)
    }

    fn vclub_limit(&self, m: usize, n: usize) -> f64 {
        SantaFe::vclub_limit(self, m, n)
    }
}

#[cfg(test)]
mod tests;
