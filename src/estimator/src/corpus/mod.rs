//! From files to documents: `texts` reads texts from files, `documents` tokenizes them, and `windows` cuts the tokens into windows.
//!
//! Start with [`Texts`], the part of an experiment file that describes the corpus, and `Texts::documents`, which carries it out.

mod documents;
mod texts;
mod windows;

pub use documents::CorpusStatistics;
pub(crate) use documents::Documents;
pub use texts::Texts;
pub use windows::{Corpus, Spacing};
