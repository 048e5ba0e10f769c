//! Two-point mutual information: between two tokens at a given distance, estimated from counts without a model.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::fit::Fit;
use crate::statistics::count::{COUNT_MEMORY_BYTES, count_pairs, count_tokens};
use crate::statistics::entropy::EntropyMethod;
use crate::statistics::spectrum::Spectrum;
use crate::statistics::token_store::TokenTexts;
use crate::value::Estimate;

/// The two-point mutual information of a text at several distances, in nats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwoPoint {
    /// Estimator of the entropies.
    pub method: EntropyMethod,
    /// `H_1`, the entropy of the tokens.
    pub entropy: Estimate,
    /// One estimate for each distance, in the requested order.
    pub points: Vec<TwoPointEstimate>,
    /// Power law fitted by least squares of `ln I` on `ln d`; `None` if there are too few positive points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// Power law with a bias, `A d^β + c` with `0 <= c < min I`, as in the L2M paper's scripts; `None` if there are too
    /// few positive points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additive: Option<Fit>,
}

/// The two-point mutual information at one distance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwoPointEstimate {
    /// `d`: the distance in tokens, 1 for neighbors.
    pub distance: usize,
    /// Number of pairs counted.
    pub pairs: u64,
    /// `I(d) = 2 H_1 - H_d`, where `H_d` is the entropy of the pairs. The standard error is `sqrt(4 σ_1² + σ_d²)`,
    /// which treats tokens and pairs as independent.
    #[serde(flatten)]
    pub estimate: Estimate,
}

impl TwoPoint {
    /// Returns the two-point mutual information of texts in memory; see [`of`](Self::of).
    ///
    /// # Errors
    /// The errors of [`of`](Self::of).
    pub fn of_texts<'a>(
        texts: impl IntoIterator<Item = &'a [u32]>,
        distances: &[usize],
        method: EntropyMethod,
    ) -> Result<Self, Error> {
        Self::of(&texts.into_iter().collect::<Vec<_>>(), distances, method)
    }

    /// Returns the two-point mutual information of `texts`, from all pairs within a text; no pair spans two texts.
    ///
    /// Counting takes about 2 GiB of memory at most, however large the vocabulary and the texts are.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there are no distances, or if one is 0 or not less than the length of the longest text;
    /// [`Error::Spill`] if the texts cannot be read.
    pub fn of(texts: &impl TokenTexts, distances: &[usize], method: EntropyMethod) -> Result<Self, Error> {
        let mut longest = 0;
        texts.for_each(&mut |text| longest = longest.max(text.len()))?;
        if let Some(distance) = distances.iter().find(|&&distance| distance == 0 || distance >= longest) {
            let limit = format!("at least 1 and less than {longest}, the length of the longest text");
            return Err(Error::invalid("distance", distance, limit));
        }
        if distances.is_empty() {
            return Err(Error::invalid("distances", "empty", "a list of at least one distance"));
        }
        let entropy = method.of(&count_tokens(texts, COUNT_MEMORY_BYTES)?);
        let point = |(&distance, spectrum): (&usize, &Spectrum)| {
            let joint = method.of(spectrum);
            let estimate = Estimate::new(2.0 * entropy.value - joint.value, (2.0 * entropy.error).hypot(joint.error));
            TwoPointEstimate { distance, pairs: spectrum.total(), estimate }
        };
        let spectra = count_pairs(texts, distances, COUNT_MEMORY_BYTES)?;
        let points: Vec<TwoPointEstimate> = distances.iter().zip(&spectra).map(point).collect();
        let values: Vec<_> = points.iter().map(|point| (point.distance as f64, point.estimate.value)).collect();
        Ok(Self { method, entropy, fit: Fit::of(&values), additive: Fit::additive(&values, 0.0), points })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::process::SantaFe;

    #[test]
    fn the_two_point_information_of_the_process_is_found() {
        let process = SantaFe::new(12, 1.2, 1e-3).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let texts: Vec<Vec<u32>> = (0..40_000).map(|_| process.sample(12, &mut rng)).collect();
        for method in EntropyMethod::ALL {
            let two_point = TwoPoint::of_texts(texts.iter().map(Vec::as_slice), &[1, 3, 11], method).unwrap();
            for point in &two_point.points {
                assert_eq!(point.pairs, 40_000 * (12 - point.distance as u64));
                let off = (point.estimate.value - process.two_point()) / point.estimate.error;
                assert!(off.abs() < 3.0, "{method:?} {point:?}, truth {}", process.two_point());
            }
        }
    }

    #[test]
    fn errors_name_the_invalid_distances() {
        let text = [1, 2, 3];
        for distances in [&[0][..], &[3], &[]] {
            let error = TwoPoint::of_texts([&text[..]], distances, EntropyMethod::PlugIn).unwrap_err().to_string();
            assert!(error.starts_with("distance"), "{error}");
        }
    }
}
