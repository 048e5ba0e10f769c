//! Workloads: the requests of a load test.
//!
//! A [`Workload`] is a stream of requests, each determined by the seed and the request's index. Start reading at
//! [`Workload::request`]. `request` defines one request, `generator` generates random requests, and `trace` reads
//! recorded requests from a file.

mod generator;
mod request;
#[cfg(test)]
mod tests;
mod trace;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use generator::{ContextPool, Generator, SPECIAL_IDS};
pub use request::{LatencyClass, PairRequest};
pub use trace::{Trace, TraceLine};

/// Number of request indices per stream. Streams do not share requests.
pub(crate) const STREAM_LENGTH: u64 = 1 << 40;

/// The shape of a stream of requests. Except in a trace, token ids are drawn uniformly from the vocabulary (without its
/// first 3 ids), and every text begins with id 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Workload {
    /// One new text of `length` tokens per request; all tokens but the first are scored. No part is cached, unless the
    /// server has seen the seed before.
    Documents {
        /// Length of a text, in tokens, at least 2.
        length: usize,
    },
    /// `contexts` x `targets` pairs per request: contexts from a pool that all requests share, with new targets.
    Pairs {
        /// Contexts per request.
        contexts: usize,
        /// Length of a context, in tokens.
        context_length: usize,
        /// Targets per request.
        targets: usize,
        /// Length of a target, in tokens.
        target_length: usize,
        /// Number of contexts in the pool.
        prefixes: usize,
    },
    /// The queries of mutual-information estimates: two new texts x and y of `length` tokens. At each split s = 2, 4,
    /// .., `length` / 2, the targets are the s tokens after the split: those of x given the first s tokens of x, those
    /// of y given the first s tokens of x, and those of y after the start token only.
    Splits {
        /// Length of a text, in tokens: a power of two, at least 4.
        length: usize,
    },
    /// Documents mixed with short interactive requests, whose latencies are reported separately.
    Mixed {
        /// Length of a document, in tokens.
        length: usize,
        /// Fraction of requests that are interactive, from 0 to 1.
        interactive: f64,
        /// Length of an interactive context, in tokens.
        context_length: usize,
        /// Length of an interactive target, in tokens.
        target_length: usize,
        /// Number of contexts in the pool.
        prefixes: usize,
    },
    /// Recorded requests from a file.
    Trace(Trace),
}

impl Workload {
    /// Reads a trace from a file.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read, has no request, or has an invalid line.
    pub fn trace(path: &Path) -> Result<Self, Error> {
        Trace::read(path).map(Self::Trace)
    }

    /// Checks the shape against the server's vocabulary size and, if known, its maximum length in tokens.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the field that is out of bounds.
    pub fn check(&self, vocabulary: u32, max_length: Option<usize>) -> Result<(), Error> {
        if vocabulary <= SPECIAL_IDS {
            return Err(Error::invalid("vocabulary", vocabulary, format!("more than {SPECIAL_IDS}")));
        }
        self.check_shape()?;
        if let Self::Trace(trace) = self {
            let texts = trace.lines.iter().flat_map(|request| request.contexts.iter().chain(&request.targets));
            if let Some(id) = texts.flatten().find(|&&id| id >= vocabulary) {
                return Err(Error::invalid("token id", id, format!("less than the vocabulary size, {vocabulary}")));
            }
        }
        match max_length {
            Some(max_length) if self.max_length() > max_length => {
                let limit = format!("at most {max_length}, the server's limit");
                Err(Error::invalid("length of a text", self.max_length(), limit))
            }
            _ => Ok(()),
        }
    }

    /// Checks each number of the shape against its bounds.
    fn check_shape(&self) -> Result<(), Error> {
        match *self {
            Self::Documents { length } => at_least("length", length, 2),
            Self::Pairs { contexts, context_length, targets, target_length, prefixes } => {
                at_least("contexts", contexts, 1)?;
                at_least("context_length", context_length, 1)?;
                at_least("targets", targets, 1)?;
                at_least("target_length", target_length, 1)?;
                at_least("prefixes", prefixes, contexts)
            }
            Self::Splits { length } if length < 4 || !length.is_power_of_two() => {
                Err(Error::invalid("length", length, "a power of two, at least 4"))
            }
            Self::Mixed { length, interactive, context_length, target_length, prefixes } => {
                at_least("length", length, 2)?;
                at_least("context_length", context_length, 1)?;
                at_least("target_length", target_length, 1)?;
                at_least("prefixes", prefixes, 1)?;
                match (0.0..=1.0).contains(&interactive) {
                    true => Ok(()),
                    false => Err(Error::invalid("interactive", interactive, "from 0 to 1")),
                }
            }
            Self::Splits { .. } | Self::Trace(_) => Ok(()),
        }
    }

    /// Returns the length of the longest text, in tokens.
    pub fn max_length(&self) -> usize {
        match self {
            Self::Documents { length } | Self::Splits { length } => *length,
            Self::Pairs { context_length, target_length, .. } => context_length + target_length,
            Self::Mixed { length, context_length, target_length, .. } => *length.max(&(context_length + target_length)),
            Self::Trace(trace) => {
                let texts = trace.lines.iter().flat_map(PairRequest::pair_texts);
                texts.map(|(context, target)| context.len() + target.len()).max().unwrap_or(0)
            }
        }
    }

    /// Returns the request at an index.
    pub fn request(&self, seed: u64, index: u64, vocabulary: u32) -> PairRequest {
        let generator = Generator { seed, vocabulary };
        match *self {
            Self::Documents { length } => generator.document(index, length),
            Self::Pairs { contexts, context_length, targets, target_length, prefixes } => {
                let pool = ContextPool { size: prefixes, context_length };
                generator.pairs(index, pool, contexts, targets, target_length)
            }
            Self::Splits { length } => generator.splits(index, length),
            Self::Mixed { length, interactive, context_length, target_length, prefixes } => {
                let pool = ContextPool { size: prefixes, context_length };
                let request = generator.interactive(index, interactive, pool, target_length);
                request.unwrap_or_else(|| generator.document(index, length))
            }
            Self::Trace(ref trace) => {
                let place = (index % STREAM_LENGTH) as usize % trace.lines.len().max(1);
                trace.lines.get(place).cloned().unwrap_or_default()
            }
        }
    }
}

fn at_least(field: &'static str, value: usize, least: usize) -> Result<(), Error> {
    match value >= least {
        true => Ok(()),
        false => Err(Error::invalid(field, value, format!("at least {least}"))),
    }
}
