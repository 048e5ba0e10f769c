//! The documents of an experiment (windows of tokenized texts), and the tokens of all texts that are counted.

use std::panic::AssertUnwindSafe;
use std::path::Path;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokenizers::Tokenizer;

use crate::corpus::batches::SelectedText;
use crate::corpus::collection::{CONCURRENT, Collection, Documents};
use crate::corpus::omission::{Omission, first_names};
use crate::corpus::reservoir::Reservoir;
use crate::corpus::texts::{Counted, TextCorpus};
use crate::corpus::tokenized_text::TokenizedText;
use crate::error::Error;
use crate::progress_log::{LOG_TARGET, LogClock};
use crate::source::{Replicas, Tokenize, TokensAndOffsets};
use crate::statistics::EntropyMethod;

/// The number of sampled texts that are tokenized before their windows are cut.
const SAMPLED_BATCH: usize = 64;

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
                Ok(encoding.map_err(|error| rejected(&error))?.get_ids().to_vec())
            }
        }
    }

    /// A local tokenizer takes longer with offsets than without.
    async fn tokenize_with_offsets(&self, text: &str) -> Result<Option<TokensAndOffsets>, Error> {
        match self {
            Self::Server(server) => server.tokenize_with_offsets(text).await,
            Self::Local(tokenizer) => {
                let encoding = catch_panic(|| tokenizer.encode(text, false)).map_err(|error| rejected(&error))?;
                let offsets = encoding.get_offsets().iter().map(|&(from, to)| [from, to]).collect();
                Ok(Some((encoding.get_ids().to_vec(), offsets)))
            }
        }
    }
}

fn rejected(error: &tokenizers::Error) -> Error {
    Error::invalid("text", "rejected by the tokenizer", format!("valid input: {error}"))
}

impl TextCorpus {
    /// Returns the local tokenizer if the corpus names one, otherwise the server's.
    pub(crate) fn tokenizer<'a>(&self, server: &'a Replicas) -> Result<CorpusTokenizer<'a>, Error> {
        let Some(path) = &self.tokenizer else { return Ok(CorpusTokenizer::Server(server)) };
        let tokenizer = read_tokenizer(path)
            .map_err(|error| Error::File { path: path.clone(), source: std::io::Error::other(error) })?;
        Ok(CorpusTokenizer::Local(Box::new(tokenizer)))
    }

    /// Reads and tokenizes the texts, and cuts windows of `length` tokens from them, or from a sample of them. Also
    /// tokenizes and counts the texts that `count` names, if there is a method for their entropies.
    pub(crate) async fn documents(
        &self,
        tokenizer: &impl Tokenize,
        seed: u64,
        length: usize,
        method: Option<EntropyMethod>,
    ) -> Result<Documents, Error> {
        let counted = method.map(|_| self.counted());
        let mut collection = Collection::new(self, length, counted == Some(Counted::Sample));
        let mut reservoir = self.sample.map(|size| Reservoir::new(size, seed));
        let mut clock = LogClock::start();
        let mut batches = self.batches()?;
        for texts in &mut batches {
            let texts = texts?;
            let cut = self.words.map(|words| texts.iter().flat_map(|text| text.pieces(words)).collect::<Vec<_>>());
            let pieces = cut.as_ref().unwrap_or(&texts);
            let mut tokenized = None;
            match &mut reservoir {
                Some(reservoir) => pieces.iter().for_each(|piece| reservoir.offer(piece)),
                None => {
                    let tokenized = tokenized.insert(tokenize(tokenizer, pieces).await?);
                    collection.add_windows(tokenizer, pieces, tokenized).await?;
                }
            }
            match (counted, tokenized) {
                (Some(Counted::Texts), _) => collection.count(&texts, &tokenize(tokenizer, &texts).await?)?,
                (Some(Counted::Pieces), Some(tokenized)) => collection.count(pieces, &tokenized)?,
                (Some(Counted::Pieces), None) => collection.count(pieces, &tokenize(tokenizer, pieces).await?)?,
                (Some(Counted::Sample) | None, _) => {}
            }
            if clock.is_due() {
                let (texts, tokens) = (collection.counted_texts(), collection.counted_tokens());
                tracing::info!(target: LOG_TARGET, texts, tokens, "reading and counting the corpus");
            }
        }
        for texts in reservoir.map(Reservoir::into_texts).unwrap_or_default().chunks(SAMPLED_BATCH) {
            collection.add_windows(tokenizer, texts, &tokenize(tokenizer, texts).await?).await?;
        }
        let omissions = batches.into_omissions();
        for summary in Omission::summaries(&omissions) {
            tracing::warn!(%summary, "left out of the corpus");
        }
        collection.into_documents(self.names()?, method, omissions)
    }

    /// Returns the choice of counted texts. Without pieces, whole texts are the same as pieces, and need not be
    /// tokenized twice.
    fn counted(&self) -> Counted {
        match self.count {
            Counted::Texts if self.words.is_none() => Counted::Pieces,
            counted => counted,
        }
    }

    /// Returns a string with the paths of the first eight files, and the number of further files.
    fn names(&self) -> Result<String, Error> {
        Ok(first_names(self.listing()?.files.iter().map(|file| file.path.display().to_string())))
    }
}

/// Tokenizes texts, several at a time.
async fn tokenize(tokenizer: &impl Tokenize, texts: &[SelectedText]) -> Result<Vec<TokenizedText>, Error> {
    let tokenized = stream::iter(texts).map(|text| TokenizedText::from_text(tokenizer, &text.content));
    tokenized.buffered(CONCURRENT).try_collect().await
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::windows::Spacing;
    use crate::statistics::{NgramEntropy, TokenTexts};

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
        let texts = TextCorpus { count: Counted::Sample, ..texts };
        let documents = texts.documents(&Words, 0, 2, Some(EntropyMethod::PlugIn)).await.unwrap();
        assert_eq!(documents.windows, [[1, 2], [4, 2], [1, 2], [1, 2]]);
        let mut found = Vec::new();
        documents.texts.for_each(&mut |text| found.push(text.to_vec())).unwrap();
        assert_eq!(found, [vec![1, 2, 3, 4, 2], vec![1, 2, 1, 2]]);
        let statistics = documents.statistics.unwrap();
        let NgramEntropy { nats, total, distinct, .. } = statistics.unigrams;
        assert_eq!((statistics.texts, statistics.left_out, statistics.characters), (2, 1, 15 + 9));
        assert_eq!((statistics.windowed, statistics.counted), (Some(2), Counted::Sample));
        assert_eq!((statistics.tokens, statistics.shortest, statistics.median, statistics.longest), (9, 4, 5, 5));
        let expected: f64 = [3.0_f64, 4.0, 1.0, 1.0].iter().map(|count| -count / 9.0 * (count / 9.0).ln()).sum();
        assert_eq!((total, distinct), (9, 4));
        assert!((nats - expected).abs() < 1e-12);
    }

    /// Pieces of one text are not independent, so they count as one text for errors.
    #[tokio::test]
    async fn pieces_know_their_whole_text() {
        let (_dir, texts) = texts(&["A b. C d. E f. G h.", "A", "F gg. Hh ii.", "A b. C d. E f."]);
        let whole_texts = async |windows, words| {
            let corpus = TextCorpus { windows, words, ..texts.clone() };
            let documents = corpus.documents(&Words, 5, 2, None).await.unwrap();
            documents.whole_texts().collect::<Vec<_>>()
        };
        assert_eq!(whole_texts(1, Some(2)).await, [0, 0, 0, 0, 1, 1, 2, 2, 2]);
        assert_eq!(whole_texts(1, None).await, [0, 1, 2]);
        assert_eq!(whole_texts(2, Some(4)).await, [0, 0, 0, 0, 1, 1, 2, 2]);
    }

    /// A sample limits windows, not counts, unless `count` says so; the rest of a text after its pieces counts as text.
    #[tokio::test]
    async fn a_sample_does_not_limit_what_is_counted() {
        let lines = ["A bb. Ccc dddd. E", "A", "F gg. Hh ii jj. K.", "A b. C d. E f. G h."];
        let (_dir, texts) = texts(&lines);
        let sampled = TextCorpus { windows: 1, words: Some(2), sample: Some(3), ..texts };
        let mut windows = Vec::new();
        for (count, tokens, counted_texts) in
            [(Counted::Texts, 20, 4), (Counted::Pieces, 17, 8), (Counted::Sample, 7, 3)]
        {
            let corpus = TextCorpus { count, ..sampled.clone() };
            let documents = corpus.documents(&Words, 5, 2, Some(EntropyMethod::PlugIn)).await.unwrap();
            let statistics = documents.statistics.unwrap();
            assert_eq!((statistics.tokens, statistics.texts), (tokens, counted_texts), "{count:?}");
            assert_eq!((statistics.windowed, documents.windows.len()), (Some(3), 3));
            windows.push(documents.windows);
            let uncounted = corpus.documents(&Words, 5, 2, None).await.unwrap();
            assert!(uncounted.statistics.is_none() && uncounted.texts.lengths().is_empty());
            windows.push(uncounted.windows);
        }
        assert!(windows.iter().all(|found| *found == windows[0]), "{windows:?}");
    }

    /// Without a sample, all pieces give windows, and short texts are counted, too.
    #[tokio::test]
    async fn short_texts_and_rests_are_counted() {
        let (_dir, texts) = texts(&["A bb. Ccc dddd. E", "A"]);
        for (words, count, tokens, counted_texts) in [
            (None, Counted::Texts, 6, 2),
            (Some(2), Counted::Texts, 6, 2),
            (Some(2), Counted::Pieces, 4, 2),
            (None, Counted::Sample, 5, 1),
        ] {
            let corpus = TextCorpus { windows: 1, words, count, ..texts.clone() };
            let documents = corpus.documents(&Words, 5, 2, Some(EntropyMethod::PlugIn)).await.unwrap();
            let statistics = documents.statistics.unwrap();
            assert_eq!((statistics.tokens, statistics.texts), (tokens, counted_texts), "{words:?} {count:?}");
        }
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
        let windows = texts.documents(&Words, 0, 2, Some(EntropyMethod::PlugIn)).await.unwrap().windows;
        let of_texts: std::collections::HashSet<_> = windows.chunks(2).collect();
        assert_eq!(of_texts.len(), 4, "{windows:?}");
        let again = texts.documents(&Words, 0, 2, Some(EntropyMethod::PlugIn)).await.unwrap();
        assert_eq!(again.windows, windows);
    }

    #[tokio::test]
    async fn a_short_text_fails_without_skip_short() {
        let (_dir, texts) = texts(&["a b c d", "a b c"]);
        let strict = TextCorpus { skip_short: false, ..texts };
        let found = strict.documents(&Words, 0, 2, Some(EntropyMethod::PlugIn)).await;
        assert!(matches!(found, Err(Error::TooShort { tokens: 3, .. })));
    }
}
