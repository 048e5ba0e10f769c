//! The steps from files to documents: `files` lists files, `rows` reads their rows, `batches` selects texts, `reservoir`
//! samples them, `documents` tokenizes them with `tokenized_text` and counts their tokens, and `windows` cuts the tokens
//! into windows.
//!
//! Start with [`TextCorpus`] in `texts`, the corpus that an experiment file describes, and its method `documents`.
//! `format` has the tables of formats and file names, `decode` decompresses and decodes files, `sentences` cuts long
//! texts into pieces, and `omission` describes the files and texts that a corpus omits. `places` has the ranges of a
//! window's tokens in its text, `window_size` their total sizes, and `identity` the digests that determine whether two experiments measure the same documents.

mod batches;
mod collection;
mod decode;
mod documents;
mod files;
mod format;
mod identity;
mod omission;
mod places;
mod reservoir;
mod rows;
mod sentences;
mod statistics;
mod texts;
mod tokenized_text;
mod window_size;
mod windows;

pub(crate) use collection::Documents;
pub use format::Format;
pub use identity::CorpusIdentity;
pub(crate) use identity::IdentityHasher;
pub use omission::Omission;
pub(crate) use places::{TextOrigin, TokenRange, TokenRanges, WindowPlace};
pub use statistics::CorpusStatistics;
pub use texts::{Counted, TextCorpus};
pub use tokenized_text::TokenizedText;
pub use windows::Spacing;
