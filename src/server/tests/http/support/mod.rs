//! A server for tests, with a scorer and codecs whose results are known.
//!
//! Start with `server`. `stepped` uses the real engine instead of the scorer.

mod codec;
mod scorer;
mod server;
pub(crate) mod stepped;

pub(crate) use codec::{ByteCodec, SpacePrefixCodec};
pub(crate) use scorer::{LetterScorer, logprob};
pub(crate) use server::{Reply, Server, until};

pub(crate) const BOS: u32 = 256;
pub(crate) const VOCABULARY: usize = 260;
pub(crate) const MAX_LENGTH: usize = 64;

/// A token that makes its query fail with a backend error. The next three tokens make queries fail in other ways.
pub(crate) const FAILS: u32 = 250;
pub(crate) const STOPS: u32 = 251;
pub(crate) const PANICS: u32 = 252;
pub(crate) const INFINITE: u32 = 253;
