//! The steps from files to documents: `files` lists files, `rows` reads their rows, `batches` selects texts, `documents`
//! tokenizes the texts with `tokenized_text`, and `windows` cuts the tokens into windows.
//!
//! Start with [`TextCorpus`] in `texts`, the corpus that an experiment file describes, and its method `documents`.
//! `format` has the tables of formats and file names, `decode` decompresses and decodes files, `sentences` cuts long
//! texts into pieces, and `omission` describes the files and texts that a corpus omits.

mod batches;
mod decode;
mod documents;
mod files;
mod format;
mod omission;
mod rows;
mod sentences;
mod texts;
mod tokenized_text;
mod windows;

pub use documents::CorpusStatistics;
pub(crate) use documents::Documents;
pub use format::Format;
pub use omission::Omission;
pub use texts::TextCorpus;
pub use tokenized_text::TokenizedText;
pub use windows::Spacing;
