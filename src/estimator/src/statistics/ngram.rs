//! Entropies of the n-grams of texts.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::statistics::count::{COUNT_MEMORY_BYTES, count_ngrams, count_tokens};
use crate::statistics::entropy::EntropyMethod;
use crate::statistics::entropy_bias::EntropyBias;
use crate::statistics::token_store::TokenTexts;
use crate::value::Estimate;

/// The entropy of the n-grams of texts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NgramEntropy {
    /// Tokens in an n-gram.
    pub n: usize,
    /// Estimator of the entropy.
    #[serde(default)]
    pub method: EntropyMethod,
    /// `H_n` in nats.
    pub nats: f64,
    /// Standard error in nats, which treats the n-grams as drawn independently.
    pub error: f64,
    /// Number of n-grams counted.
    pub total: u64,
    /// Number of distinct n-grams.
    pub distinct: u64,
    /// The bias of `nats`; `None` in reports of versions that did not compute it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<EntropyBias>,
}

impl NgramEntropy {
    /// Returns the entropy, by Grassberger's estimator, of all overlapping n-grams of texts in memory; see
    /// [`of`](Self::of).
    ///
    /// # Errors
    /// The errors of [`of`](Self::of).
    pub fn of_texts<'a>(texts: impl IntoIterator<Item = &'a [u32]>, n: usize) -> Result<Self, Error> {
        Self::with_method(EntropyMethod::Grassberger, texts, n)
    }

    /// Returns the entropy, by `method`, of all overlapping n-grams of texts in memory; see [`of`](Self::of).
    ///
    /// # Errors
    /// The errors of [`of`](Self::of).
    pub fn with_method<'a>(
        method: EntropyMethod,
        texts: impl IntoIterator<Item = &'a [u32]>,
        n: usize,
    ) -> Result<Self, Error> {
        Self::of(method, &texts.into_iter().collect::<Vec<_>>(), n)
    }

    /// Returns the entropy, by `method`, of all overlapping n-grams of `texts`; no n-gram spans two texts.
    ///
    /// Counting takes about 2 GiB of memory at most, however long the texts are.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `n` is 0, or if no text has `n` tokens; [`Error::Spill`] if the texts cannot be read.
    pub fn of(method: EntropyMethod, texts: &impl TokenTexts, n: usize) -> Result<Self, Error> {
        let spectrum = match n {
            0 => return Err(Error::invalid("n-gram length", n, "at least 1")),
            1 => count_tokens(texts, COUNT_MEMORY_BYTES)?,
            _ => count_ngrams(texts, n, COUNT_MEMORY_BYTES)?,
        };
        if spectrum.distinct() == 0 {
            return Err(Error::invalid("n-gram length", n, "at most the length of the longest text"));
        }
        let Estimate { value, error, .. } = method.of(&spectrum);
        let (total, distinct, bias) = (spectrum.total(), spectrum.distinct(), EntropyBias::of(method, &spectrum));
        Ok(Self { n, method, nats: value, error, total, distinct, bias: Some(bias) })
    }
}
