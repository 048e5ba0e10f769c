//! The documents of an experiment (windows of tokenized texts), and statistics of the corpus.

use std::panic::AssertUnwindSafe;
use std::path::Path;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use crate::corpus::omission::{Omission, first_names};
use crate::corpus::texts::TextCorpus;
use crate::corpus::tokenized_text::TokenizedText;
use crate::error::Error;
use crate::source::{Replicas, Tokenize};
use crate::statistics::{EntropyMethod, NgramEntropy, TokenStore};
use crate::unit::Unit;

/// The number of texts that are tokenized concurrently.
const CONCURRENT: usize = 8;

/// The documents of an experiment (one window each), the texts that they come from, and a note that describes both.
pub(crate) struct Documents {
    /// The windows. The windows of a text are consecutive, and all texts have the same number of windows.
    pub(crate) windows: Vec<Vec<u32>>,
    pub(crate) texts: TokenStore,
    pub(crate) note: String,
    pub(crate) statistics: Option<CorpusStatistics>,
    /// The files and texts that the documents omit.
    pub(crate) omissions: Vec<Omission>,
    /// `ln p` of each window, in nats, under the process that generated it; `None` for a corpus of texts.
    pub(crate) ln_p: Option<Vec<f64>>,
}

/// Statistics of a corpus, over the texts that are long enough for the requested windows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CorpusStatistics {
    /// The number of texts that windows were taken from.
    pub texts: usize,
    /// The number of texts that were too short for the requested windows.
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

/// The tokenizer of a corpus: the model's server, or a local `tokenizer.json`.
pub(crate) enum CorpusTokenizer<'a> {
    Server(&'a Replicas),
    Local(Box<Tokenizer>),
}

impl Tokenize for CorpusTokenizer<'_> {
    async fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
        match self {
            Self::Server(server) => server.tokenize(text).await,
            Self::Local(tokenizer) => {
                let encoding = catch_panic(|| tokenizer.encode_fast(text, false));
                let refused = |error: tokenizers::Error| {
                    Error::invalid("text", "rejected by the tokenizer", format!("valid input: {error}"))
                };
                Ok(encoding.map_err(refused)?.get_ids().to_vec())
            }
        }
    }
}

impl TextCorpus {
    /// Returns the local tokenizer if the corpus names one, otherwise the server's.
    pub(crate) fn tokenizer<'a>(&self, server: &'a Replicas) -> Result<CorpusTokenizer<'a>, Error> {
        let Some(path) = &self.tokenizer else { return Ok(CorpusTokenizer::Server(server)) };
        let tokenizer = read_tokenizer(path)
            .map_err(|error| Error::File { path: path.clone(), source: std::io::Error::other(error) })?;
        Ok(CorpusTokenizer::Local(Box::new(tokenizer)))
    }

    /// Reads and tokenizes the texts, and cuts windows of `length` tokens from them.
    pub(crate) async fn documents(
        &self,
        tokenizer: &impl Tokenize,
        seed: u64,
        length: usize,
        method: EntropyMethod,
    ) -> Result<Documents, Error> {
        let (mut windows, mut store) = (Vec::new(), TokenStore::default());
        let (mut characters, mut too_short) = (0, 0);
        let mut batches = self.batches(seed)?;
        for texts in &mut batches {
            let texts = texts?;
            let tokenized = stream::iter(&texts).map(|text| TokenizedText::from_text(tokenizer, text));
            let tokenized: Vec<_> = tokenized.buffered(CONCURRENT).try_collect().await?;
            for (text, tokenized) in texts.iter().zip(tokenized) {
                match tokenized.windows(self.windows, length, self.spacing, store.lengths().len()) {
                    Err(Error::TooShort { .. }) if self.skip_short => too_short += 1,
                    found => {
                        windows.extend(found?);
                        characters += text.chars().count();
                        store.push(tokenized.tokens())?;
                    }
                }
            }
        }
        let note = format!("{}; {} windows of {length} tokens from each text", self.names()?, self.windows);
        let statistics = CorpusStatistics::of(&store, characters, too_short, method)?;
        let omissions = batches.into_omissions();
        for summary in Omission::summaries(&omissions) {
            tracing::warn!(%summary, "left out of the corpus");
        }
        Ok(Documents { windows, texts: store, note, statistics, omissions, ln_p: None })
    }

    /// Returns a string with the paths of the first eight files, and the number of further files.
    fn names(&self) -> Result<String, Error> {
        Ok(first_names(self.listing()?.files.iter().map(|file| file.path.display().to_string())))
    }
}

/// Reads a `tokenizer.json`, and disables its truncation and padding.
fn read_tokenizer(path: &Path) -> Result<Tokenizer, tokenizers::Error> {
    let bytes = std::fs::read(path)?;
    let mut tokenizer = catch_panic(|| Tokenizer::from_bytes(bytes))?;
    tokenizer.with_truncation(None)?.with_padding(None);
    Ok(tokenizer)
}

/// Calls the tokenizers library, and turns a panic, which some damaged files cause, into an error.
fn catch_panic<T>(call: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, tokenizers::Error> {
    std::panic::catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err("the tokenizers library panicked; tokenizer.json is corrupted or not supported".into()))
}

impl CorpusStatistics {
    /// Returns the statistics as a sentence. The entropy must already be in `unit`.
    pub(crate) fn summary(&self, unit: Unit) -> String {
        let Self { texts, left_out, characters, tokens, shortest, median, longest, unigrams } = self;
        format!(
            "{texts} texts ({left_out} more were too short) with {characters} characters and {tokens} tokens in total; \
             {shortest} to {longest} tokens per text, median {median}; {} distinct tokens with an entropy of {:.3} ± \
             {:.3} {}",
            unigrams.distinct,
            unigrams.nats,
            unigrams.error,
            unit.name()
        )
    }

    /// Computes the statistics; `None` if there are no tokens.
    fn of(
        texts: &TokenStore,
        characters: usize,
        left_out: usize,
        method: EntropyMethod,
    ) -> Result<Option<Self>, Error> {
        let mut lengths = texts.lengths().to_vec();
        lengths.sort_unstable();
        let tokens = lengths.iter().sum();
        let (Some(&shortest), Some(&longest), 1..) = (lengths.first(), lengths.last(), tokens) else {
            return Ok(None);
        };
        let (median, unigrams) = (lengths[lengths.len() / 2], NgramEntropy::of(method, texts, 1)?);
        let texts = lengths.len();
        Ok(Some(Self { texts, left_out, characters, tokens, shortest, median, longest, unigrams }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::windows::Spacing;
    use crate::statistics::TokenTexts;

    /// A tokenizer with one token per word, whose id is the word's length.
    struct Words;

    impl Tokenize for Words {
        async fn tokenize(&self, text: &str) -> Result<Vec<u32>, Error> {
            Ok(text.split_whitespace().map(|word| word.len() as u32).collect())
        }
    }

    fn texts(lines: &[&str]) -> (tempfile::TempDir, TextCorpus) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("texts.jsonl");
        let lines: String = lines.iter().map(|text| serde_json::json!({"text": text}).to_string() + "\n").collect();
        std::fs::write(&path, lines).unwrap();
        (dir, TextCorpus { windows: 2, skip_short: true, ..TextCorpus::of(vec![path]) })
    }

    #[tokio::test]
    async fn documents_are_windows_of_texts_that_are_long_enough() {
        let (_dir, texts) = texts(&["a bb ccc dddd é", "a b c", "a bb a bb"]);
        let documents = texts.documents(&Words, 0, 2, EntropyMethod::PlugIn).await.unwrap();
        assert_eq!(documents.windows, [[1, 2], [4, 2], [1, 2], [1, 2]]);
        let mut found = Vec::new();
        documents.texts.for_each(&mut |text| found.push(text.to_vec())).unwrap();
        assert_eq!(found, [vec![1, 2, 3, 4, 2], vec![1, 2, 1, 2]]);
        let statistics = documents.statistics.unwrap();
        let NgramEntropy { nats, total, distinct, .. } = statistics.unigrams;
        assert_eq!((statistics.texts, statistics.left_out, statistics.characters), (2, 1, 15 + 9));
        assert_eq!((statistics.tokens, statistics.shortest, statistics.median, statistics.longest), (9, 4, 5, 5));
        let expected: f64 = [3.0_f64, 4.0, 1.0, 1.0].iter().map(|count| -count / 9.0 * (count / 9.0).ln()).sum();
        assert_eq!((total, distinct), (9, 4));
        assert!((nats - expected).abs() < 1e-12);
    }

    /// A table of replacements with an empty trie makes the library panic with every text.
    #[tokio::test]
    async fn a_tokenizer_that_makes_the_library_panic_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        let model = serde_json::json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"});
        let normalizer = serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="});
        let json = serde_json::json!({"version": "1.0", "normalizer": normalizer, "model": model});
        std::fs::write(&path, json.to_string()).unwrap();
        let tokenizer = CorpusTokenizer::Local(Box::new(read_tokenizer(&path).unwrap()));
        let error = tokenizer.tokenize("a").await.unwrap_err().to_string();
        assert!(error.contains("the tokenizers library panicked"), "{error}");
    }

    #[tokio::test]
    async fn random_windows_differ_between_texts() {
        let text: Vec<String> = (1..100).map(|length| "a".repeat(length)).collect();
        let (_dir, texts) = texts(&[text.join(" ").as_str(); 4]);
        let texts = TextCorpus { spacing: Spacing::Random { seed: 1 }, ..texts };
        let windows = texts.documents(&Words, 0, 2, EntropyMethod::PlugIn).await.unwrap().windows;
        let of_texts: std::collections::HashSet<_> = windows.chunks(2).collect();
        assert_eq!(of_texts.len(), 4, "{windows:?}");
        let again = texts.documents(&Words, 0, 2, EntropyMethod::PlugIn).await.unwrap();
        assert_eq!(again.windows, windows);
    }

    #[tokio::test]
    async fn a_short_text_fails_without_skip_short() {
        let (_dir, texts) = texts(&["a b c d", "a b c"]);
        let strict = TextCorpus { skip_short: false, ..texts };
        let found = strict.documents(&Words, 0, 2, EntropyMethod::PlugIn).await;
        assert!(matches!(found, Err(Error::TooShort { tokens: 3, .. })));
    }
}
