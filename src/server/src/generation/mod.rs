//! Prompts scored, continued, or both: what `/v1/completions` and `/generate` have in common.
//!
//! Start with `batch`, the prompts of one request. `params` has their generation settings, `continuation` follows one prompt's
//! continuation, and `decoder` turns its tokens into text.

pub(crate) mod batch;
pub(crate) mod continuation;
pub(crate) mod decoder;
pub(crate) mod params;
