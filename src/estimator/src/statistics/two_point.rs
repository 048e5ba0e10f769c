//! Two-point mutual information: how much one token tells about another at a distance, from counts alone.

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
    /// How entropies were estimated.
    pub method: EntropyMethod,
    /// `H_1`, the entropy of the tokens.
    pub entropy: Estimate,
    /// One for each distance, in the order asked.
    pub points: Vec<TwoPointEstimate>,
    /// Least squares of `ln I` on `ln d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// `A d^β + c` with `0 <= c < min I`, as in the paper's scripts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additive: Option<Fit>,
}

/// The two-point mutual information at one distance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwoPointEstimate {
    /// `d`: 1 for neighbours.
    pub distance: usize,
    /// How many pairs were counted.
    pub pairs: u64,
    /// `I(d) = 2 H_1 - H_d`, with the entropy `H_d` of the pairs. The error is that of independent tokens and pairs:
    /// `4 σ_1² + σ_d²`, its root.
    #[serde(flatten)]
    pub estimate: Estimate,
}

impl TwoPoint {
    /// Returns the two-point mutual information of texts in memory; see [`of`](Self::of).
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn of_texts<'a>(
        texts: impl IntoIterator<Item = &'a [u32]>,
        distances: &[usize],
        method: EntropyMethod,
    ) -> Result<Self, Error> {
        Self::of(&texts.into_iter().collect::<Vec<_>>(), distances, method)
    }

    /// Of all pairs within `texts`, none across two of them.
    ///
    /// They are counted in about 2 GiB, whatever the vocabulary and the length of the texts.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no distance, one is 0, or one is not less than the longest text; [`Error::Spill`] if the
    /// texts cannot be read.
    pub fn of(texts: &impl TokenTexts, distances: &[usize], method: EntropyMethod) -> Result<Self, Error> {
        let mut longest = 0;
        texts.for_each(&mut |text| longest = longest.max(text.len()))?;
        if let Some(distance) = distances.iter().find(|&&distance| distance == 0 || distance >= longest) {
            let limit = format!("at least 1 and less than the longest text, {longest} tokens");
            return Err(Error::invalid("distance", distance, limit));
        }
        if distances.is_empty() {
            return Err(Error::invalid("distances", "none", "at least one"));
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
    fn the_process_s_two_point_information_is_found() {
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
    fn bad_distances_are_named() {
        let text = [1, 2, 3];
        for distances in [&[0][..], &[3], &[]] {
            let error = TwoPoint::of_texts([&text[..]], distances, EntropyMethod::PlugIn).unwrap_err().to_string();
            assert!(error.starts_with("distance"), "{error}");
        }
    }
}
