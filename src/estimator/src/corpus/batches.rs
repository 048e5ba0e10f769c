//! Texts selected from a corpus's files, whole or in pieces of whole sentences, in batches of bounded size. A random
//! sample can be drawn from them.

use encoding_rs::Encoding;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use unicode_segmentation::UnicodeSegmentation;

use crate::corpus::files::{CorpusFile, CorpusFiles};
use crate::corpus::format::Format;
use crate::corpus::omission::Omission;
use crate::corpus::rows::{Rows, open_rows};
use crate::corpus::sentences::for_each_piece;
use crate::corpus::texts::TextCorpus;
use crate::error::Error;

/// The size in bytes at which a batch of texts is complete.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

impl TextCorpus {
    /// Returns an upper bound on the number of texts: the size of the sample, or the number of texts (or pieces) in the
    /// files.
    pub(crate) fn count(&self) -> Result<usize, Error> {
        if let Some(sample) = self.sample {
            return Ok(sample);
        }
        let one_each = self.words.is_none() && self.min_words.is_none();
        let mut count = 0;
        for file in self.listing()?.files {
            if one_each && file.format == Format::Text {
                count += 1;
                continue;
            }
            check_rereadable(&file)?;
            for text in Selection::new(self, vec![file])? {
                text?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Reads the texts in the order of the files, in batches. If `sample` is set, reads only the sample, in one batch.
    pub(crate) fn batches(&self, seed: u64) -> Result<Batches<'_>, Error> {
        let CorpusFiles { files, omissions } = self.listing()?;
        Ok(Batches::new(Selection::new(self, files)?, omissions, self.sample.map(|size| (size, seed))))
    }

    /// Returns `true` if a text has at least `min_words` words.
    fn is_long_enough(&self, text: &str) -> bool {
        self.min_words.is_none_or(|least| text.unicode_words().take(least).count() == least)
    }
}

/// Texts in batches; only one batch is in memory at a time.
pub(crate) struct Batches<'a> {
    selection: Selection<'a>,
    /// The omitted files.
    omissions: Vec<Omission>,
    /// The size and seed of the sample to draw; `None` if there is no sample, or it has been drawn.
    sample: Option<(usize, u64)>,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(selection: Selection<'a>, omissions: Vec<Omission>, sample: Option<(usize, u64)>) -> Self {
        Self { selection, omissions, sample }
    }

    /// Returns the files and texts that the batches have omitted so far.
    pub(crate) fn into_omissions(mut self) -> Vec<Omission> {
        self.omissions.extend(self.selection.omissions);
        self.omissions
    }

    /// Reads texts until the batch is complete.
    fn read(&mut self) -> Result<Vec<String>, Error> {
        let (mut texts, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(text) = self.selection.next()
        {
            let text = text?;
            bytes += text.len();
            texts.push(text);
        }
        Ok(texts)
    }

    /// Samples `size` texts, each with the same probability, by Algorithm R (Vitter 1985). Keeps their order.
    fn draw(&mut self, size: usize, seed: u64) -> Result<Vec<String>, Error> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut reservoir: Vec<(usize, String)> = Vec::new();
        for (seen, text) in self.selection.by_ref().enumerate() {
            let text = text?;
            if seen < size {
                reservoir.push((seen, text));
            } else if let Some(slot) = reservoir.get_mut(rng.random_range(0..=seen)) {
                *slot = (seen, text);
            }
        }
        reservoir.sort_unstable_by_key(|&(at, _)| at);
        Ok(reservoir.into_iter().map(|(_, text)| text).collect())
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Vec<String>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.sample.take() {
            Some((size, seed)) => self.draw(size, seed),
            None => self.read(),
        };
        match batch {
            Ok(texts) if texts.is_empty() => None,
            batch => Some(batch),
        }
    }
}

/// The texts of several files that are neither null nor empty nor too short, cut into pieces if `words` is set.
pub(crate) struct Selection<'a> {
    corpus: &'a TextCorpus,
    encoding: Option<&'static Encoding>,
    files: std::vec::IntoIter<CorpusFile>,
    current: Option<OpenFile>,
    /// The pieces of the current text that are still to be returned.
    pieces: std::vec::IntoIter<String>,
    /// The omitted texts of the files that have been read.
    omissions: Vec<Omission>,
}

/// A file that is being read.
struct OpenFile {
    file: CorpusFile,
    rows: Rows,
    /// The numbers of texts omitted so far.
    omitted: OmittedCounts,
}

/// Numbers of omitted texts, by reason.
#[derive(Default)]
struct OmittedCounts {
    null: usize,
    empty: usize,
    short: usize,
}

impl<'a> Selection<'a> {
    pub(crate) fn new(corpus: &'a TextCorpus, files: Vec<CorpusFile>) -> Result<Self, Error> {
        let encoding = corpus.known_encoding()?;
        let (files, pieces) = (files.into_iter(), Vec::new().into_iter());
        Ok(Self { corpus, encoding, files, current: None, pieces, omissions: Vec::new() })
    }

    /// Returns the next text that is not omitted; `None` at the end of the last file.
    fn next_text(&mut self) -> Result<Option<String>, Error> {
        loop {
            let Some(open) = &mut self.current else {
                let Some(file) = self.files.next() else { return Ok(None) };
                let rows = open_rows(&file, &self.corpus.field, self.encoding).map_err(|error| failed(&file, error))?;
                self.current = Some(OpenFile { file, rows, omitted: OmittedCounts::default() });
                continue;
            };
            match open.rows.next().transpose().map_err(|error| failed(&open.file, error))? {
                None => self.close(),
                Some(None) => open.omitted.null += 1,
                Some(Some(text)) if text.is_empty() => open.omitted.empty += 1,
                Some(Some(text)) if !self.corpus.is_long_enough(&text) => open.omitted.short += 1,
                Some(Some(text)) => return Ok(Some(text)),
            }
        }
    }

    /// Closes the current file, and lists the texts that the corpus omits from it.
    fn close(&mut self) {
        let Some(OpenFile { file, omitted, .. }) = self.current.take() else { return };
        let least = self.corpus.min_words.unwrap_or_default();
        let reasons = [
            (omitted.null, "null".to_owned()),
            (omitted.empty, "empty".to_owned()),
            (omitted.short, format!("fewer than {least} words")),
        ];
        for (texts, reason) in reasons.into_iter().filter(|(texts, _)| *texts > 0) {
            self.omissions.push(Omission { path: file.path.display().to_string(), reason, texts: Some(texts) });
        }
    }
}

fn failed(file: &CorpusFile, source: std::io::Error) -> Error {
    Error::File { path: file.path.clone(), source }
}

impl Iterator for Selection<'_> {
    type Item = Result<String, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(piece) = self.pieces.next() {
                return Some(Ok(piece));
            }
            match (self.next_text(), self.corpus.words) {
                (Ok(Some(text)), Some(words)) => {
                    let mut pieces = Vec::new();
                    for_each_piece(&text, words, &mut |piece: &str| pieces.push(piece.to_owned()));
                    self.pieces = pieces.into_iter();
                }
                (text, _) => return text.transpose(),
            }
        }
    }
}

/// Rejects pipes and devices, because the texts are counted before they are read.
fn check_rereadable(file: &CorpusFile) -> Result<(), Error> {
    let failed = |source| Error::File { path: file.path.clone(), source };
    if std::fs::metadata(&file.path).map_err(failed)?.is_file() {
        return Ok(());
    }
    let reason = format!(
        "not a regular file; the estimator reads {} files twice, so save the data in a file first",
        file.format
    );
    Err(failed(std::io::Error::other(reason)))
}

#[cfg(test)]
mod tests;
