//! The steps from files to documents: `texts` reads texts from files, `documents` tokenizes the texts with
//! `tokenized_text`, and `windows` cuts the tokens into windows.
//!
//! Start with [`TextCorpus`], the corpus that an experiment file describes, and its method `documents`. `formats` reads
//! the file formats, and `sentences` cuts long texts into pieces.

mod documents;
mod formats;
mod sentences;
mod texts;
mod tokenized_text;
mod windows;

pub use documents::CorpusStatistics;
pub(crate) use documents::Documents;
pub use texts::TextCorpus;
pub use tokenized_text::TokenizedText;
pub use windows::Spacing;
