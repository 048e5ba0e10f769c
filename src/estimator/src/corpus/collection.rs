//! The windows and the counted texts of a corpus while it is read, and the documents that they become.

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::corpus::batches::SelectedText;
use crate::corpus::identity::{CorpusIdentity, IdentityHasher};
use crate::corpus::omission::Omission;
use crate::corpus::places::{TextOrigin, WindowPlace};
use crate::corpus::statistics::{CorpusStatistics, WindowedTexts};
use crate::corpus::texts::TextCorpus;
use crate::corpus::tokenized_text::TokenizedText;
use crate::error::Error;
use crate::source::Tokenize;
use crate::statistics::{EntropyMethod, TokenStore};

/// The number of texts that are tokenized concurrently.
pub(crate) const CONCURRENT: usize = 8;

/// The documents of an experiment (one window each), the texts to count, and a note that describes both.
pub(crate) struct Documents {
    /// The windows. The windows of a text are consecutive. Texts have equally many windows, but if they are pieces, whole
    /// texts may differ.
    pub(crate) windows: Vec<Vec<u32>>,
    /// The texts whose tokens are counted.
    pub(crate) texts: TokenStore,
    /// The place of each window in its text.
    pub(crate) places: Vec<WindowPlace>,
    /// The origins of the texts; empty for sampled documents.
    pub(crate) origins: Vec<TextOrigin>,
    pub(crate) identity: CorpusIdentity,
    pub(crate) note: String,
    pub(crate) statistics: Option<CorpusStatistics>,
    /// The files and texts that the documents omit.
    pub(crate) omissions: Vec<Omission>,
    /// `ln p` of each token of each window given those before it, in nats, under the process that generated the window;
    /// `None` for a corpus of texts.
    pub(crate) ln_p: Option<Vec<Vec<f64>>>,
}

impl Documents {
    /// Returns the number of the text that each window is from. Pieces of one text have the same number: they are not
    /// independent.
    pub(crate) fn whole_texts(&self) -> impl Iterator<Item = usize> {
        let mut numbers = vec![0; self.origins.len()];
        for text in 1..numbers.len() {
            let [before, this] = [&self.origins[text - 1], &self.origins[text]];
            numbers[text] = numbers[text - 1] + usize::from((&before.file, before.row) != (&this.file, this.row));
        }
        self.places.iter().map(move |place| numbers.get(place.text).copied().unwrap_or(place.text))
    }
}

/// The windows and the counted texts of a corpus while it is read.
pub(crate) struct Collection<'a> {
    corpus: &'a TextCorpus,
    /// Tokens per window.
    length: usize,
    windows: Vec<Vec<u32>>,
    places: Vec<WindowPlace>,
    origins: Vec<TextOrigin>,
    identity: IdentityHasher,
    /// The numbers of texts that windows were cut from, and that were too short.
    texts: WindowedTexts,
    /// `true` if texts are counted if windows are taken from them.
    counts_windowed: bool,
    store: TokenStore,
    /// The number of characters in the counted texts.
    characters: usize,
    /// The number of tokens in the counted texts.
    tokens: usize,
}

impl<'a> Collection<'a> {
    pub(crate) fn new(corpus: &'a TextCorpus, length: usize, counts_windowed: bool) -> Self {
        Self {
            corpus,
            length,
            windows: Vec::new(),
            places: Vec::new(),
            origins: Vec::new(),
            identity: IdentityHasher::default(),
            texts: WindowedTexts::default(),
            counts_windowed,
            store: TokenStore::default(),
            characters: 0,
            tokens: 0,
        }
    }

    /// Returns the number of texts counted so far.
    pub(crate) fn counted_texts(&self) -> usize {
        self.store.lengths().len()
    }

    /// Returns the number of tokens counted so far.
    pub(crate) fn counted_tokens(&self) -> usize {
        self.tokens
    }

    /// Cuts windows from texts or pieces that are long enough.
    pub(crate) async fn add_windows(
        &mut self,
        tokenizer: &impl Tokenize,
        texts: &[SelectedText],
        tokenized: &[TokenizedText],
    ) -> Result<(), Error> {
        let TextCorpus { windows, spacing, skip_short, .. } = *self.corpus;
        let length = self.length;
        let mut cut = Vec::with_capacity(texts.len());
        for (text, tokenized) in texts.iter().zip(tokenized) {
            self.identity.add_text(text.content.as_bytes(), tokenized.tokens());
            match tokenized.window_starts(windows, length, spacing, self.texts.windowed) {
                Err(Error::TooShort { .. }) if skip_short => self.texts.too_short += 1,
                starts => {
                    let starts = starts?;
                    self.identity.add_windows(&starts);
                    self.windows.extend(starts.iter().map(|&start| tokenized.tokens()[start..start + length].to_vec()));
                    self.origins.push(text.origin.clone());
                    self.texts.windowed += 1;
                    if self.counts_windowed {
                        self.count(std::slice::from_ref(text), std::slice::from_ref(tokenized))?;
                    }
                    cut.push((text, tokenized, starts));
                }
            }
        }
        let ranges = stream::iter(&cut)
            .map(|(text, tokenized, starts)| tokenized.token_ranges(tokenizer, &text.content, starts, length));
        let ranges: Vec<_> = ranges.buffered(CONCURRENT).try_collect().await?;
        for ranges in ranges.into_iter().flatten() {
            self.places.push(WindowPlace { text: self.places.len() / windows, ranges });
        }
        Ok(())
    }

    /// Adds texts to those that are counted.
    pub(crate) fn count(&mut self, texts: &[SelectedText], tokenized: &[TokenizedText]) -> Result<(), Error> {
        for (text, tokenized) in texts.iter().zip(tokenized) {
            self.characters += text.content.chars().count();
            self.tokens += tokenized.tokens().len();
            self.store.push(tokenized.tokens())?;
        }
        Ok(())
    }

    /// Returns the documents of the corpus whose files are `names`.
    pub(crate) fn into_documents(
        self,
        names: String,
        method: Option<EntropyMethod>,
        omissions: Vec<Omission>,
    ) -> Result<Documents, Error> {
        let Self { corpus, length, windows, places, origins, identity, texts, store, characters, .. } = self;
        let note = format!("{names}; {} windows of {length} tokens from each text", corpus.windows);
        let statistics = match method {
            Some(method) => CorpusStatistics::of(corpus.count, &store, characters, texts, method)?,
            None => None,
        };
        let identity = identity.finish(note.clone());
        Ok(Documents { windows, texts: store, places, origins, identity, note, statistics, omissions, ln_p: None })
    }
}
