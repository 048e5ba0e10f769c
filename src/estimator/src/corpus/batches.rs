//! Texts selected from a corpus's files, in batches of bounded size.

use std::sync::Arc;

use encoding_rs::Encoding;
use unicode_segmentation::UnicodeSegmentation;

use crate::corpus::files::{CorpusFile, CorpusFiles};
use crate::corpus::format::Format;
use crate::corpus::omission::Omission;
use crate::corpus::places::TextOrigin;
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
        Ok(self.pieces_of_texts(usize::MAX)?.iter().sum())
    }

    /// Returns the whole text of each window, as far as the files determine it without a tokenizer. For a sample, pieces
    /// are divided evenly among the texts if `counts_texts`; otherwise, each counts as a text.
    pub(crate) fn expected_texts(&self, counts_texts: bool) -> Result<Vec<usize>, Error> {
        let pieces = match self.sample {
            None => self.pieces_of_texts(usize::MAX)?,
            Some(sample) if !counts_texts => vec![1; sample],
            Some(sample) => {
                let texts = self.pieces_of_texts(sample)?.len();
                (0..texts).map(|text| (text + 1) * sample / texts - text * sample / texts).collect()
            }
        };
        let windows = |(text, pieces): (usize, usize)| std::iter::repeat_n(text, pieces.saturating_mul(self.windows));
        Ok(pieces.into_iter().enumerate().flat_map(windows).collect())
    }

    /// Returns the number of pieces of each whole text, 1 if texts are not cut, in the order of the files. Omits texts
    /// without a piece, and stops reading after `limit` texts.
    fn pieces_of_texts(&self, limit: usize) -> Result<Vec<usize>, Error> {
        let one_each = self.words.is_none() && self.min_words.is_none();
        let mut found = Vec::new();
        for file in self.listing()?.files {
            if one_each && file.format == Format::Text {
                found.push(1);
                continue;
            }
            check_rereadable(&file)?;
            for text in Selection::new(self, vec![file])? {
                if found.len() >= limit {
                    return Ok(found);
                }
                let text = text?;
                let mut pieces = usize::from(self.words.is_none());
                if let Some(words) = self.words {
                    for_each_piece(&text.content, words, &mut |_| pieces += 1);
                }
                if pieces > 0 {
                    found.push(pieces);
                }
            }
        }
        Ok(found)
    }

    /// Reads all whole texts in the order of the files, in batches.
    pub(crate) fn batches(&self) -> Result<Batches<'_>, Error> {
        let CorpusFiles { files, omissions } = self.listing()?;
        Ok(Batches { selection: Selection::new(self, files)?, omissions })
    }

    /// Returns `true` if a text has at least `min_words` words.
    fn is_long_enough(&self, text: &str) -> bool {
        self.min_words.is_none_or(|least| text.unicode_words().take(least).count() == least)
    }
}

/// A text or piece of a text, and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SelectedText {
    pub(crate) content: String,
    pub(crate) origin: TextOrigin,
}

impl SelectedText {
    /// Cuts the text into pieces of whole sentences with at least `words` words each.
    pub(crate) fn pieces(&self, words: usize) -> Vec<Self> {
        let (mut pieces, mut byte, mut character) = (Vec::new(), 0, 0);
        for_each_piece(&self.content, words, &mut |piece: &str| {
            // Between two pieces there is only white space.
            let rest = &self.content[byte..];
            let space = &rest[..rest.len() - rest.trim_start().len()];
            byte += space.len();
            character += space.chars().count();
            let origin = TextOrigin { byte, character, ..self.origin.clone() };
            pieces.push(Self { content: piece.to_owned(), origin });
            byte += piece.len();
            character += piece.chars().count();
        });
        pieces
    }
}

/// Texts in batches; only one batch is in memory at a time.
pub(crate) struct Batches<'a> {
    selection: Selection<'a>,
    /// The omitted files.
    omissions: Vec<Omission>,
}

impl Batches<'_> {
    /// Returns the files and texts that the batches have omitted so far.
    pub(crate) fn into_omissions(mut self) -> Vec<Omission> {
        self.omissions.extend(self.selection.omissions);
        self.omissions
    }

    /// Reads texts until the batch is complete.
    fn read(&mut self) -> Result<Vec<SelectedText>, Error> {
        let (mut texts, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(text) = self.selection.next()
        {
            let text = text?;
            bytes += text.content.len();
            texts.push(text);
        }
        Ok(texts)
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Vec<SelectedText>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.read() {
            Ok(texts) if texts.is_empty() => None,
            batch => Some(batch),
        }
    }
}

/// The texts of several files that are neither null nor empty nor too short.
pub(crate) struct Selection<'a> {
    corpus: &'a TextCorpus,
    encoding: Option<&'static Encoding>,
    files: std::vec::IntoIter<CorpusFile>,
    current: Option<OpenFile>,
    /// The omitted texts of the files that have been read.
    omissions: Vec<Omission>,
}

/// A file that is being read.
struct OpenFile {
    file: CorpusFile,
    rows: Rows,
    /// The path in the origin of each text.
    name: Arc<str>,
    /// The number of rows read so far.
    rows_read: usize,
    /// The numbers of texts omitted so far.
    omitted: OmittedCounts,
}

impl OpenFile {
    /// Returns the origin of the text that was read last.
    fn origin(&self) -> TextOrigin {
        let row = (self.file.format != Format::Text).then(|| self.rows_read - 1);
        TextOrigin { file: self.name.clone(), row, byte: 0, character: 0 }
    }
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
        Ok(Self { corpus, encoding, files: files.into_iter(), current: None, omissions: Vec::new() })
    }

    /// Returns the next text that is not omitted; `None` at the end of the last file.
    fn next_text(&mut self) -> Result<Option<SelectedText>, Error> {
        loop {
            let Some(open) = &mut self.current else {
                let Some(file) = self.files.next() else { return Ok(None) };
                let rows = open_rows(&file, &self.corpus.field, self.encoding).map_err(|error| failed(&file, error))?;
                let (name, omitted) = (self.corpus.file_name(&file.path).into(), OmittedCounts::default());
                self.current = Some(OpenFile { file, rows, name, rows_read: 0, omitted });
                continue;
            };
            let row = open.rows.next().transpose().map_err(|error| failed(&open.file, error))?;
            open.rows_read += 1;
            match row {
                None => self.close(),
                Some(None) => open.omitted.null += 1,
                Some(Some(text)) if text.is_empty() => open.omitted.empty += 1,
                Some(Some(text)) if !self.corpus.is_long_enough(&text) => open.omitted.short += 1,
                Some(Some(content)) => return Ok(Some(SelectedText { content, origin: open.origin() })),
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
    type Item = Result<SelectedText, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_text().transpose()
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
