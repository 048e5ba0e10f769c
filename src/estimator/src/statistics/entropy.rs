//! Four estimators of entropy from counts, with standard errors.

use serde::{Deserialize, Serialize};
use statrs::function::gamma::digamma;

use crate::statistics::spectrum::Spectrum;
use crate::value::Estimate;

/// An estimator of entropy from counts `c_i` that add up to `N`.
///
/// All estimators except Miller and Madow's have the form `H = Σ_i (c_i/N) s(c_i)`, a mean of "surprises" `s`, and
/// therefore the standard error `sqrt(Σ_i (c_i/N) s(c_i)² - H²) / sqrt(N)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntropyMethod {
    /// The entropy of the observed frequencies, with `s = ln N - ln c`. It is too small by about `(S-1)/2N` for `S`
    /// distinct items.
    PlugIn,
    /// The plug-in entropy plus `(S-1)/2N`, with the standard error of the plug-in entropy (Miller, *Note on the bias
    /// of information estimates*, 1955).
    MillerMadow,
    /// Grassberger's estimator, as in the L2M paper's scripts: `s = ln N - G(c)` with
    /// `G(c) = ψ(c) + (-1)^c/2 · (ψ((c+1)/2) - ψ(c/2))` (*Entropy Estimates from Insufficient Samplings*, 2003,
    /// equations 27 to 30).
    #[default]
    Grassberger,
    /// Chao and Shen's estimator: `s = -C ln p / (1 - (1-p)^N)` with `p = C c/N` and the coverage `C = 1 - f/N`, where
    /// `f` is the number of items seen once (*Nonparametric estimation of Shannon's index of diversity when there are
    /// unseen species in sample*, 2003).
    ChaoShen,
}

impl EntropyMethod {
    /// All estimators.
    pub const ALL: [EntropyMethod; 4] =
        [EntropyMethod::PlugIn, EntropyMethod::MillerMadow, EntropyMethod::Grassberger, EntropyMethod::ChaoShen];

    /// Returns the entropy in nats and its standard error, which treats the items as drawn independently.
    ///
    /// ```
    /// use surprisal_estimator::{EntropyMethod, Spectrum};
    ///
    /// let spectrum: Spectrum = [3, 3, 3, 3].into_iter().collect();
    /// let plug_in = EntropyMethod::PlugIn.of(&spectrum);
    /// assert!((plug_in.value - 4_f64.ln()).abs() < 1e-12 && plug_in.error < 1e-7);
    /// assert!((EntropyMethod::MillerMadow.of(&spectrum).value - plug_in.value - 3.0 / 24.0).abs() < 1e-12);
    /// ```
    pub fn of(self, spectrum: &Spectrum) -> Estimate {
        let total = spectrum.total() as f64;
        let coverage = spectrum.coverage();
        let (mut mean, mut square) = (0.0, 0.0);
        for (count, things) in spectrum.iter() {
            let (share, s) = (things as f64 * count as f64 / total, self.surprise(count, total, coverage));
            mean += share * s;
            square += share * s * s;
        }
        let error = (square - mean * mean).max(0.0).sqrt() / total.sqrt();
        Estimate::new(mean + self.constant(spectrum.distinct() as f64, total), error)
    }

    /// Returns `s(c)`, the surprise at an item that was counted `count` times among `total`, in nats.
    pub(crate) fn surprise(self, count: u64, total: f64, coverage: f64) -> f64 {
        match self {
            Self::PlugIn | Self::MillerMadow => total.ln() - (count as f64).ln(),
            Self::Grassberger => total.ln() - grassberger_g(count),
            Self::ChaoShen => {
                let p = (coverage * count as f64 / total).min(1.0);
                -coverage * p.ln() / -(total * (-p).ln_1p()).exp_m1()
            }
        }
    }

    /// Returns the term that the method adds to the mean surprise.
    pub(crate) fn constant(self, distinct: f64, total: f64) -> f64 {
        match self {
            Self::MillerMadow => (distinct - 1.0) / (2.0 * total),
            _ => 0.0,
        }
    }
}

/// Returns `G(c) = ψ(c) + (-1)^c/2 · (ψ((c+1)/2) - ψ(c/2))`.
fn grassberger_g(count: u64) -> f64 {
    let c = count as f64;
    let sign = if count.is_multiple_of(2) { 0.5 } else { -0.5 };
    digamma(c) + sign * (digamma((c + 1.0) / 2.0) - digamma(c / 2.0))
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::statistics::ngram::NgramEntropy;

    #[test]
    fn g_follows_grassbergers_recursion() {
        // Grassberger's equation 30: G_1 = -γ - ln 2, G_2 = 2 - γ - ln 2, G_(2n+1) = G_2n, G_(2n+2) = G_2n + 2/(2n+1).
        let euler = 0.577_215_664_901_532_9;
        let mut expected = -euler - LN_2;
        assert!((grassberger_g(1) - expected).abs() < 1e-9);
        expected += 2.0;
        for n in 1..200_u64 {
            assert!((grassberger_g(2 * n) - expected).abs() < 1e-9, "{n}");
            assert!((grassberger_g(2 * n + 1) - expected).abs() < 1e-9, "{n}");
            expected += 2.0 / (2 * n + 1) as f64;
        }
    }

    #[test]
    fn a_known_entropy_is_found_within_its_error() {
        let symbols = 4096;
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        // With two draws per symbol, the plug-in entropy is too small by about 0.2 nats.
        let text: Vec<u32> = (0..2 * symbols).map(|_| rng.random_range(0..symbols)).collect();
        let truth = f64::from(symbols).ln();
        let entropy = NgramEntropy::of_texts([&text[..]], 1).unwrap();
        assert!((entropy.nats - truth).abs() < 3.0 * entropy.error, "{entropy:?}, truth {truth}");
        assert!(entropy.error < 0.02, "{entropy:?}");
        let nats = |method| NgramEntropy::with_method(method, [&text[..]], 1).unwrap().nats;
        let [plug_in, miller, chao] =
            [EntropyMethod::PlugIn, EntropyMethod::MillerMadow, EntropyMethod::ChaoShen].map(nats);
        assert!(plug_in < truth - 0.15 && plug_in < miller && miller < truth, "{plug_in}, {miller}");
        assert!(chao - miller > 0.1 && (chao - truth).abs() < 0.2, "{chao}");
    }

    #[test]
    fn items_that_were_all_seen_once_have_a_finite_entropy() {
        let spectrum: Spectrum = [1, 1, 1].into_iter().collect();
        for method in EntropyMethod::ALL {
            let entropy = method.of(&spectrum);
            assert!(entropy.value.is_finite() && entropy.value >= 3_f64.ln() - 1e-12, "{method:?}: {entropy:?}");
        }
        let one: Spectrum = [7, 0].into_iter().collect();
        assert_eq!(EntropyMethod::PlugIn.of(&one), Estimate::new(0.0, 0.0));
    }

    #[test]
    fn ngrams_overlap_and_stay_within_a_text() {
        for (n, total, distinct) in [(1, 6, 4), (2, 3, 2), (3, 1, 1)] {
            let entropy = NgramEntropy::of_texts([&[1, 2, 3][..], &[1, 2], &[9]], n).unwrap();
            assert_eq!((entropy.total, entropy.distinct), (total, distinct), "{n}");
        }
        assert!(NgramEntropy::of_texts([&[1][..]], 2).is_err());
        assert!(NgramEntropy::of_texts([&[1][..]], 0).is_err());
    }
}
