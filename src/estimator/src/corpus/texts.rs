//! The texts of a corpus, read from plain-text, JSON Lines or Parquet files. Texts can be cut into pieces of whole
//! sentences, and a random sample can be drawn from them.

use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use crate::corpus::formats::{read_jsonl, read_parquet};
use crate::corpus::sentences::for_each_piece;
use crate::corpus::windows::Spacing;
use crate::error::Error;

/// Texts in batches; only one batch is in memory at a time.
type Batches<'a> = Box<dyn Iterator<Item = Result<Vec<String>, Error>> + Send + 'a>;

/// A corpus of texts in files, and the selection of texts from it: the `[corpus]` table of an experiment file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextCorpus {
    /// Files and folders, relative to the experiment file's folder. A folder stands for the `.txt`, `.jsonl` and
    /// `.parquet` files in it. A `.jsonl` file has one text per line and a `.parquet` file one text per row. Any other
    /// file is one UTF-8 text.
    pub files: Vec<PathBuf>,
    /// The name of the field (`.jsonl`) or column (`.parquet`) that contains the text.
    #[serde(default = "field")]
    pub field: String,
    /// The minimum number of words of a text; shorter texts are omitted. `None` keeps all texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_words: Option<usize>,
    /// The minimum number of words of a piece. Each text is cut into pieces, each with just enough whole sentences
    /// (Unicode Standard Annex 29) for this many words; the rest at the end of a text is omitted. `None` keeps texts
    /// whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<usize>,
    /// The number of texts or pieces to sample at random. The experiment's seed determines the sample. `None` keeps
    /// all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<usize>,
    /// The number of windows cut from each text. The windows do not overlap.
    #[serde(default = "windows")]
    pub windows: usize,
    /// The spacing of the windows in a text.
    #[serde(default)]
    pub spacing: Spacing,
    /// `true` if texts that are too short for the windows are omitted; `false` if such a text is an error.
    #[serde(default)]
    pub skip_short: bool,
    /// A Hugging Face `tokenizer.json`; `None` if the model's server tokenizes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
}

fn field() -> String {
    "text".to_owned()
}

fn windows() -> usize {
    40
}

impl TextCorpus {
    /// Creates a corpus of all texts in `files`, with 40 windows per text, evenly spaced.
    pub fn of(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            field: field(),
            min_words: None,
            words: None,
            sample: None,
            windows: windows(),
            spacing: Spacing::default(),
            skip_short: false,
            tokenizer: None,
        }
    }

    /// Checks that there are files, and that `windows`, `words` and `sample` are not 0.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.files.is_empty() {
            return Err(Error::invalid("corpus.files", "empty", "at least one file or folder"));
        }
        let numbers =
            [("corpus.windows", Some(self.windows)), ("corpus.words", self.words), ("corpus.sample", self.sample)];
        match numbers.iter().find(|number| number.1 == Some(0)) {
            Some((key, _)) => Err(Error::invalid(key, 0, "at least 1")),
            None => Ok(()),
        }
    }

    /// Resolves all paths against the experiment file's folder.
    pub(crate) fn relative_to(&mut self, folder: &Path) {
        self.files.iter_mut().chain(&mut self.tokenizer).for_each(|file| *file = folder.join(&*file));
    }

    /// Reduces all paths to their last component.
    pub(crate) fn without_folders(&mut self) {
        for file in self.files.iter_mut().chain(&mut self.tokenizer) {
            *file = file.file_name().map(PathBuf::from).unwrap_or_default();
        }
    }

    /// Lists the files. The files of a folder are sorted by name.
    pub(crate) fn paths(&self) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        for path in &self.files {
            if path.is_dir() {
                found.extend(files_of(path)?);
            } else {
                found.push(path.clone());
            }
        }
        Ok(found)
    }

    /// Returns an upper bound on the number of texts: the size of the sample, or the number of texts (or pieces) in the
    /// files.
    pub(crate) fn count(&self) -> Result<usize, Error> {
        if let Some(sample) = self.sample {
            return Ok(sample);
        }
        let one_each = self.words.is_none() && self.min_words.is_none();
        let mut count = 0;
        for path in self.paths()? {
            if one_each && !is(&path, "jsonl") && !is(&path, "parquet") {
                count += 1;
            } else {
                self.read(&path, |_| count += 1)?;
            }
        }
        Ok(count)
    }

    /// Reads the texts in the order of the files, in one batch per file. If `sample` is set, reads only the sample, in
    /// one batch.
    pub(crate) fn batches(&self, seed: u64) -> Result<Batches<'_>, Error> {
        let paths = self.paths()?;
        let whole = |path: PathBuf| {
            let mut texts = Vec::new();
            self.read(&path, |text| texts.push(text.to_owned()))?;
            Ok(texts)
        };
        Ok(match self.sample {
            None => Box::new(paths.into_iter().map(whole)),
            Some(sample) => Box::new(std::iter::once(self.sample(&paths, sample, seed))),
        })
    }

    /// Samples `size` texts, each with the same probability, by Algorithm R (Vitter 1985). Keeps their order.
    fn sample(&self, paths: &[PathBuf], size: usize, seed: u64) -> Result<Vec<String>, Error> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut reservoir: Vec<(usize, String)> = Vec::new();
        let mut seen = 0;
        for path in paths {
            self.read(path, |text| {
                if seen < size {
                    reservoir.push((seen, text.to_owned()));
                } else if let Some(slot) = reservoir.get_mut(rng.random_range(0..=seen)) {
                    *slot = (seen, text.to_owned());
                }
                seen += 1;
            })?;
        }
        reservoir.sort_unstable_by_key(|&(at, _)| at);
        Ok(reservoir.into_iter().map(|(_, text)| text).collect())
    }

    /// Visits the texts of one file that are long enough, cut into pieces if `words` is set.
    fn read(&self, path: &Path, mut visit: impl FnMut(&str)) -> Result<(), Error> {
        let mut visit_pieces = |text: &str| {
            if !self.is_long_enough(text) {
                return;
            }
            match self.words {
                Some(words) => for_each_piece(text, words, &mut visit),
                None => visit(text),
            }
        };
        let read = if is(path, "jsonl") {
            read_jsonl(path, &self.field, &mut visit_pieces)
        } else if is(path, "parquet") {
            read_parquet(path, &self.field, &mut visit_pieces).map_err(std::io::Error::other)
        } else {
            std::fs::read_to_string(path).map(|text| visit_pieces(&text))
        };
        read.map_err(|source| Error::File { path: path.to_owned(), source })
    }

    fn is_long_enough(&self, text: &str) -> bool {
        self.min_words.is_none_or(|least| text.unicode_words().take(least).count() == least)
    }
}

/// Lists the `.txt`, `.jsonl` and `.parquet` files of a folder, sorted by name.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::File { path: folder.to_owned(), source };
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder).map_err(failed)?.collect();
    let mut files: Vec<PathBuf> = entries.map_err(failed)?.iter().map(std::fs::DirEntry::path).collect();
    files.retain(|file| ["txt", "jsonl", "parquet"].iter().any(|kind| is(file, kind)));
    if files.is_empty() {
        let none = "no .txt, .jsonl or .parquet file in this folder";
        return Err(failed(std::io::Error::other(none)));
    }
    files.sort_unstable();
    Ok(files)
}

/// Returns `true` if a file's name has this extension, ignoring case.
fn is(path: &Path, kind: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(kind))
}

#[cfg(test)]
mod tests;
