//! The description of a corpus of texts: its files, their format, and the selection of texts from them.

use std::path::{Path, PathBuf};

use encoding_rs::Encoding;
use serde::{Deserialize, Serialize};

use crate::corpus::files::CorpusFiles;
use crate::corpus::format::Format;
use crate::corpus::windows::Spacing;
use crate::error::Error;

/// The texts whose tokens are counted, for the n-gram correction, two-point information and the statistics of the
/// corpus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Counted {
    /// All texts of the corpus, whole: including remainders after the last piece, texts that are not sampled, and texts
    /// that are too short for the windows.
    #[default]
    Texts,
    /// All pieces, or all texts if they are not cut into pieces. Includes those that are not sampled.
    Pieces,
    /// Only the texts or pieces that windows are taken from. This needs the least time, but if it is a small sample, the
    /// entropies are too small.
    Sample,
}

/// A corpus of texts in files, and the selection of texts from it: the `[corpus]` table of an experiment file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextCorpus {
    /// Files and folders, relative to the experiment file's folder. A folder stands for the files in it and in its
    /// subfolders whose format is known, in the order of their paths. A file's extension determines its [`Format`];
    /// `.gz` and `.zst` may follow it. A named file without a known extension is one text.
    pub files: Vec<PathBuf>,
    /// The format of named files, and of the files in folders whose extensions are unknown. Files in folders that have
    /// the extension of another format are omitted. `None` if names determine all formats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The encoding of files that are not Parquet and have no byte-order mark, by a label of the WHATWG Encoding
    /// Standard; `None` for UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// The name of the field (JSON) or column (CSV, TSV, Parquet) that contains the text.
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
    /// The number of texts or pieces to sample at random, for windows. The experiment's seed determines the sample.
    /// `None` keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<usize>,
    /// The texts whose tokens are counted. A sample does not limit them, unless this says so.
    #[serde(default, skip_serializing_if = "Counted::is_default")]
    pub count: Counted,
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

impl Counted {
    /// Returns `true` for the default, which the digest of an experiment omits.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
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
            format: None,
            encoding: None,
            field: field(),
            min_words: None,
            words: None,
            sample: None,
            count: Counted::default(),
            windows: windows(),
            spacing: Spacing::default(),
            skip_short: false,
            tokenizer: None,
        }
    }

    /// Checks that there are files, that the encoding exists, and that `windows`, `words` and `sample` are not 0.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.files.is_empty() {
            return Err(Error::invalid("corpus.files", "empty", "at least one file or folder"));
        }
        self.known_encoding()?;
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

    /// Returns the path of a file below the nearest folder that contains all of `files`. This path does not depend on
    /// the location of the corpus.
    pub(crate) fn file_name(&self, path: &Path) -> String {
        let mut common = self.files.first().and_then(|file| file.parent()).unwrap_or(Path::new(""));
        for file in &self.files {
            while !file.parent().unwrap_or(file).starts_with(common) {
                common = common.parent().unwrap_or(Path::new(""));
            }
        }
        path.strip_prefix(common).unwrap_or(path).display().to_string()
    }

    /// Returns the declared encoding.
    pub(crate) fn known_encoding(&self) -> Result<Option<&'static Encoding>, Error> {
        let Some(label) = &self.encoding else { return Ok(None) };
        let limit = "an encoding of the WHATWG standard, such as utf-8, utf-16le, windows-1252, gb18030 or shift_jis";
        let unknown = || Error::invalid("corpus.encoding", label, limit);
        Encoding::for_label_no_replacement(label.as_bytes()).map(Some).ok_or_else(unknown)
    }

    /// Lists the files to read and those that the corpus omits from folders.
    pub(crate) fn listing(&self) -> Result<CorpusFiles, Error> {
        CorpusFiles::list(&self.files, self.format)
    }
}
