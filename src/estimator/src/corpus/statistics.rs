//! Statistics of the counted texts of a corpus.

use serde::{Deserialize, Serialize};

use crate::corpus::texts::Counted;
use crate::error::Error;
use crate::number::with_error;
use crate::statistics::{EntropyMethod, NgramEntropy, TokenStore};
use crate::unit::Unit;

/// Statistics of a corpus, over the texts whose tokens are counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CorpusStatistics {
    /// The choice of texts whose tokens are counted. Older versions counted only those that windows were taken from.
    #[serde(default = "older")]
    pub counted: Counted,
    /// The number of counted texts (or pieces).
    pub texts: usize,
    /// The number of texts (or pieces) that windows were taken from; `None` in reports of older versions, in which it
    /// equals `texts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windowed: Option<usize>,
    /// The number of texts (or pieces) that were too short for the requested windows.
    pub left_out: usize,
    /// The number of Unicode characters.
    pub characters: usize,
    /// The number of tokens.
    pub tokens: usize,
    /// Tokens in the shortest text.
    pub shortest: usize,
    /// Tokens in the text of median length; for an even number of texts, in the longer of the two middle texts.
    pub median: usize,
    /// Tokens in the longest text.
    pub longest: usize,
    /// The number of distinct tokens, and the unigram entropy, computed with the experiment's entropy estimator.
    pub unigrams: NgramEntropy,
}

fn older() -> Counted {
    Counted::Sample
}

/// The numbers of texts that windows were cut from and that were too short for them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WindowedTexts {
    pub(crate) windowed: usize,
    pub(crate) too_short: usize,
}

impl CorpusStatistics {
    /// Returns the statistics as a sentence. The entropy must already be in `unit`.
    pub(crate) fn summary(&self, unit: Unit) -> String {
        let Self { texts, left_out, characters, tokens, shortest, median, longest, unigrams, .. } = self;
        let windowed = self.windowed.unwrap_or(*texts);
        let counted = match self.counted {
            Counted::Texts => "all texts counted",
            Counted::Pieces => "all pieces counted",
            Counted::Sample => "only texts with windows counted",
        };
        format!(
            "windows from {windowed} texts ({left_out} more were too short); {counted}: {texts} texts with {characters} \
             characters and {tokens} tokens in total; {shortest} to {longest} tokens per text, median {median}; {} \
             distinct tokens with an entropy of {} {}",
            unigrams.distinct,
            with_error(unigrams.nats, unigrams.error),
            unit.name()
        )
    }

    /// Computes the statistics; `None` if there are no tokens.
    pub(crate) fn of(
        counted: Counted,
        texts: &TokenStore,
        characters: usize,
        WindowedTexts { windowed, too_short }: WindowedTexts,
        method: EntropyMethod,
    ) -> Result<Option<Self>, Error> {
        let mut lengths = texts.lengths().to_vec();
        lengths.sort_unstable();
        let tokens = lengths.iter().sum();
        let (Some(&shortest), Some(&longest), 1..) = (lengths.first(), lengths.last(), tokens) else {
            return Ok(None);
        };
        Ok(Some(Self {
            counted,
            texts: lengths.len(),
            windowed: Some(windowed),
            left_out: too_short,
            characters,
            tokens,
            shortest,
            median: lengths[lengths.len() / 2],
            longest,
            unigrams: NgramEntropy::of(method, texts, 1)?,
        }))
    }
}
