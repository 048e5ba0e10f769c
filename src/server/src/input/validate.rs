//! Checks that several routes share: limits on counts, list lengths and token ids.

use surprisal_engine::MAX_TOP;

use crate::problem::{self, Failure};

/// Maximum length of a salt of the prefix cache, in characters, as in vLLM.
const MAX_SALT_CHARS: usize = 128;

/// Rejects more alternatives than the engine can list.
pub(crate) fn check_top(field: &str, top: u16) -> Result<(), Failure> {
    check_maximum(field, top.into(), MAX_TOP.into())
}

/// Rejects a number or a length above `maximum`.
pub(crate) fn check_maximum(field: &str, value: usize, maximum: usize) -> Result<(), Failure> {
    if value > maximum { Err(problem::not_offered(field, value, maximum)) } else { Ok(()) }
}

/// Rejects an empty salt of the prefix cache, or one that is too long. No problem repeats the salt, which is secret.
pub(crate) fn check_cache_salt(salt: Option<&str>) -> Result<(), Failure> {
    match salt {
        Some("") => Err(problem::empty_cache_salt(MAX_SALT_CHARS)),
        salt => check_maximum("cache_salt", salt.unwrap_or_default().chars().count(), MAX_SALT_CHARS),
    }
}

/// Rejects an empty list of queries, or one longer than `limit`.
pub(crate) fn check_query_count(field: &str, count: usize, limit: usize) -> Result<(), Failure> {
    match count {
        0 => Err(problem::no_queries(field)),
        count if count > limit => Err(problem::too_many_queries(field, count, limit)),
        _ => Ok(()),
    }
}

/// Rejects token ids outside the model's vocabulary.
pub(crate) fn check_vocabulary(
    tokens: &[u32],
    vocab_size: usize,
    field: &str,
    query: Option<usize>,
) -> Result<(), Failure> {
    match tokens.iter().position(|&token| token as usize >= vocab_size) {
        Some(at) => Err(problem::token_out_of_range(format!("{field}[{at}]"), query, tokens[at], vocab_size)),
        None => Ok(()),
    }
}
