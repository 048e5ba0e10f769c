//! From files to documents: `texts` reads texts from files, `documents` tokenizes them, and `windows` cuts the tokens into windows.
//!
//! Start with [`TextCorpus`], which an experiment file describes, and its `documents`. `formats` reads each kind of file, and
//! `sentences` cuts long texts into pieces.

mod documents;
mod formats;
mod sentences;
mod texts;
mod windows;

pub use documents::CorpusStatistics;
pub(crate) use documents::Documents;
pub use texts::TextCorpus;
pub use windows::{Spacing, TokenizedText};
