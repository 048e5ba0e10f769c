//! Workloads: what requests are sent to a server under load.
//!
//! A [`Workload`] is a stream of requests in which each is a function of the seed and of its index. Start reading at
//! [`Workload::request`]. `request` holds one request, `generator` draws random ones, `trace` reads recorded ones from a file.

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

/// Number of request indices in one stream of requests; no two streams share a request.
pub(crate) const STREAM_LENGTH: u64 = 1 << 40;

/// The shape of a stream of requests. Token ids are uniform over the vocabulary, and every text begins with id 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Workload {
    /// One new text a request, of `length` tokens, all but the first scored. Nothing is in a cache, unless it was asked before.
    Documents {
        /// Tokens of a text, at least 2.
        length: usize,
    },
    /// `contexts` x `targets` a request: contexts from a pool of `prefixes` that all requests share, new targets.
    Pairs {
        /// Contexts of a request.
        contexts: usize,
        /// Tokens of a context.
        context_length: usize,
        /// Targets of a request.
        targets: usize,
        /// Tokens of a target.
        target_length: usize,
        /// Contexts in the pool.
        prefixes: usize,
    },
    /// Mutual information by splits, as its estimation asks: two new texts x and y of `length` tokens, and at each split
    /// s = 2, 4, .. `length` / 2, s tokens after it: x's given its beginning, y's given x's beginning, y's given nothing.
    Splits {
        /// Tokens of a text, a power of two from 4.
        length: usize,
    },
    /// Documents, and among them short requests of somebody who waits: their latencies are reported apart.
    Mixed {
        /// Tokens of a document.
        length: usize,
        /// The part of all requests that is interactive.
        interactive: f64,
        /// Tokens of an interactive context, from a pool of `prefixes`.
        context_length: usize,
        /// Tokens of an interactive target.
        target_length: usize,
        /// Contexts in the pool.
        prefixes: usize,
    },
    /// Requests from a file.
    Trace(Trace),
}

impl Workload {
    /// Reads a trace.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, has no line, or one that is no request.
    pub fn trace(path: &Path) -> Result<Self, Error> {
        Trace::read(path).map(Self::Trace)
    }

    /// Checks the shape against the server's vocabulary, and against the longest text it takes, where the server states one.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self, vocabulary: u32, max_length: Option<usize>) -> Result<(), Error> {
        if vocabulary <= SPECIAL_IDS {
            return Err(Error::invalid("vocabulary", vocabulary, format!("more than {SPECIAL_IDS}")));
        }
        self.check_shape()?;
        if let Self::Trace(trace) = self {
            let texts = trace.lines.iter().flat_map(|request| request.contexts.iter().chain(&request.targets));
            if let Some(id) = texts.flatten().find(|&&id| id >= vocabulary) {
                return Err(Error::invalid("token id", id, format!("below the vocabulary's size, {vocabulary}")));
            }
        }
        match max_length {
            Some(max_length) if self.max_length() > max_length => {
                let limit = format!("at most {max_length}, the longest the server takes");
                Err(Error::invalid("length of a text", self.max_length(), limit))
            }
            _ => Ok(()),
        }
    }

    /// Checks each number of the shape against its own limits.
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

    /// Returns the number of tokens of the longest text.
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
