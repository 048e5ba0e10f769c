//! The texts of a corpus, read from files: plain, JSON lines or Parquet, whole or in pieces of sentences, all or a seeded sample.

use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use crate::corpus::formats::{read_jsonl, read_parquet};
use crate::corpus::sentences::for_each_piece;
use crate::corpus::windows::Spacing;
use crate::error::Error;

/// The texts in groups, each of which is in memory at a time.
type Batches<'a> = Box<dyn Iterator<Item = Result<Vec<String>, Error>> + Send + 'a>;

/// A corpus of texts in files, and what is taken of it: the `[corpus]` table of an experiment file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextCorpus {
    /// Files, or folders that stand for the `.txt`, `.jsonl` and `.parquet` files in them; relative to the experiment file's
    /// folder. A `.jsonl` file has a text a line, a `.parquet` file a text a row, any other is one text, in UTF-8.
    pub files: Vec<PathBuf>,
    /// The field of a line, or the column, that holds the text.
    #[serde(default = "field")]
    pub field: String,
    /// Leaves out texts of fewer words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_words: Option<usize>,
    /// Cuts each text into pieces, each of as few sentences (Unicode Standard Annex 29) as have this many words; what is left at
    /// a text's end is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<usize>,
    /// Takes so many texts, or pieces, at random, by the experiment's seed. None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<usize>,
    /// Windows taken from each text, none overlapping.
    #[serde(default = "windows")]
    pub windows: usize,
    /// Where in the text they lie.
    #[serde(default)]
    pub spacing: Spacing,
    /// Leave out texts too short for their windows, rather than fail.
    #[serde(default)]
    pub skip_short: bool,
    /// A `tokenizer.json` of Hugging Face's. None: the model's server tokenises.
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
    /// All of these files, forty windows from each.
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

    /// Checks that there are files, and that no number is zero.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.files.is_empty() {
            return Err(Error::invalid("corpus.files", "empty", "at least one file or folder"));
        }
        let numbers = [("windows", Some(self.windows)), ("words", self.words), ("sample", self.sample)];
        match numbers.iter().find(|number| number.1 == Some(0)) {
            Some((key, _)) => {
                Err(Error::invalid("corpus", format!("with {key} = 0"), format!("with {key} of at least 1")))
            }
            None => Ok(()),
        }
    }

    /// Puts the experiment file's folder before all paths.
    pub(crate) fn relative_to(&mut self, folder: &Path) {
        self.files.iter_mut().chain(&mut self.tokenizer).for_each(|file| *file = folder.join(&*file));
    }

    /// Reduces all paths to their last component.
    pub(crate) fn without_folders(&mut self) {
        for file in self.files.iter_mut().chain(&mut self.tokenizer) {
            *file = file.file_name().map(PathBuf::from).unwrap_or_default();
        }
    }

    /// Lists the files; those of a folder by name.
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

    /// Counts the texts at most: those to be sampled, or as many as the files hold.
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

    /// Reads the texts in the files' order, those of a file at a time; or the sample of them, at once.
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

    /// Samples texts, each with the same probability: Algorithm R (Vitter 1985).
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

    /// Visits the texts of one file that are long enough, in pieces if there are to be any.
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

/// Lists the files of a folder that hold texts, by name.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::File { path: folder.to_owned(), source };
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder).map_err(failed)?.collect();
    let mut files: Vec<PathBuf> = entries.map_err(failed)?.iter().map(std::fs::DirEntry::path).collect();
    files.retain(|file| ["txt", "jsonl", "parquet"].iter().any(|kind| is(file, kind)));
    if files.is_empty() {
        let none = "there is no .txt, .jsonl or .parquet file in this folder";
        return Err(failed(std::io::Error::other(none)));
    }
    files.sort_unstable();
    Ok(files)
}

/// Returns whether a file's name has this extension.
fn is(path: &Path, kind: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(kind))
}

#[cfg(test)]
mod tests;
