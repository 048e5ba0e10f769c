//! Bounds and checks of responses to requests other than those of [`ScoringDialect`](super::ScoringDialect).

use surprisal_api::{LogprobsRequest, LogprobsResponse, Pairs, Text};
use surprisal_dialect::{check_logprobs, check_token_ids};

/// The most that a response with a description of the server may have, in bytes. Chat templates are the longest parts.
pub(crate) const MAX_INFO_BYTES: usize = 16 << 20;

/// Bytes of a response beside its results.
const BASE_BYTES: usize = 256 << 10;

/// Bytes of one result beside its tokens.
const RESULT_BYTES: usize = 1 << 10;

/// Bytes for each byte of a text that is tokenized: a normalizer may turn a byte into several tokens, each with an id.
const TOKENIZED_BYTES: usize = 256;

/// Bytes for each entry of a token: its own, or one of its alternatives.
const ENTRY_BYTES: usize = 1 << 10;

/// Returns the most that a response to `/tokenize` may have for this text, in bytes.
pub(crate) fn max_tokenized_bytes(text: &str) -> usize {
    BASE_BYTES.saturating_add(text.len().saturating_mul(TOKENIZED_BYTES))
}

/// Returns the maximum size of the response to a request to `/logprobs`, in bytes.
pub(crate) fn max_logprobs_bytes(request: &LogprobsRequest) -> usize {
    let targets = targets(request);
    let entries = 1 + usize::from(request.top);
    // A text rarely has more than one token per byte; an entry's bound leaves room for the rest.
    let size = |target: &&Text| match target {
        Text::String(text) => text.len(),
        Text::Tokens(tokens) => tokens.len(),
    };
    let tokens = targets.iter().map(size).fold(0, usize::saturating_add).saturating_mul(entries);
    let results = targets.len().saturating_mul(RESULT_BYTES);
    BASE_BYTES.saturating_add(results).saturating_add(tokens.saturating_mul(ENTRY_BYTES))
}

/// Checks that a response has one result per target, each with possible log-probabilities.
///
/// # Errors
/// A description of the first mismatch.
pub(crate) fn check_logprobs_response(request: &LogprobsRequest, response: &LogprobsResponse) -> Result<(), String> {
    let targets = targets(request);
    if targets.len() != response.results.len() {
        return Err(format!("results: expected {}, got {}", targets.len(), response.results.len()));
    }
    for (index, (target, result)) in targets.into_iter().zip(&response.results).enumerate() {
        let in_result = |reason: String| format!("result {index}: {reason}");
        // Each token may be above 0 by a rounding error.
        let mean = result.sum / result.tokens.max(1) as f64;
        check_logprobs([Some(mean)]).map_err(|_| in_result(format!("sum is {}; it must be at most 0", result.sum)))?;
        if let Some(logprobs) = &result.logprobs {
            if logprobs.len() != result.tokens {
                return Err(in_result(format!("tokens is {}, but logprobs has {}", result.tokens, logprobs.len())));
            }
            check_logprobs(logprobs.iter().copied().map(Some)).map_err(in_result)?;
        }
        if let (Text::Tokens(sent), Some(echoed)) = (target, &result.token_ids) {
            check_token_ids(sent, echoed).map_err(in_result)?;
        }
    }
    Ok(())
}

/// Returns the target of each result, in order.
fn targets(request: &LogprobsRequest) -> Vec<&Text> {
    let queries = request.queries.iter().flatten().map(|query| &query.target);
    let (contexts, targets) = (request.contexts.as_deref().unwrap_or(&[]), request.targets.as_deref().unwrap_or(&[]));
    match &request.pairs {
        Some(Pairs::List(pairs)) => {
            queries.chain(pairs.iter().filter_map(|&[_, target]| targets.get(target))).collect()
        }
        Some(Pairs::All) | None => queries.chain(contexts.iter().flat_map(|_| targets)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request() -> LogprobsRequest {
        let queries = json!([{"target": [3, 4]}, {"context": "a", "target": " text"}]);
        serde_json::from_value(json!({"queries": queries, "detail": "tokens"})).unwrap()
    }

    #[test]
    fn results_that_do_not_match_the_request_are_rejected() {
        let result = |logprobs: &[f64], ids: &[u32]| {
            let sum: f64 = logprobs.iter().sum();
            json!({"sum": sum, "tokens": logprobs.len(), "cached_tokens": 0, "logprobs": logprobs, "token_ids": ids})
        };
        let check = |results: serde_json::Value| {
            let usage = json!({"computed_tokens": 1, "cached_tokens": 0, "scored_tokens": 1});
            let response = json!({"model": "m", "fingerprint": "f", "results": results, "usage": usage});
            check_logprobs_response(&request(), &serde_json::from_value(response).unwrap())
        };
        let (first, second) = (result(&[-1.0, -2.0], &[3, 4]), result(&[-1.0], &[7]));
        assert_eq!(check(json!([first, second])), Ok(()));
        let mut sum = second.clone();
        sum["sum"] = json!(5.0);
        let mut count = second.clone();
        count["tokens"] = json!(3);
        for (results, reason) in [
            (json!([first]), "results: expected 2, got 1"),
            (json!([result(&[-1.0, -2.0], &[3, 5]), second]), "result 0: target token 1 was sent as 4"),
            (json!([first, result(&[-9.0, 5.0], &[7, 8])]), "result 1: target token 1 has log-probability 5"),
            (json!([first, sum]), "result 1: sum is 5; it must be at most 0"),
            (json!([first, count]), "result 1: tokens is 3, but logprobs has 1"),
        ] {
            let error = check(results).unwrap_err();
            assert!(error.starts_with(reason), "{error}");
        }
    }

    #[test]
    fn bounds_grow_with_the_request() {
        let mut request = request();
        assert_eq!(max_logprobs_bytes(&request), BASE_BYTES + 2 * RESULT_BYTES + 7 * ENTRY_BYTES);
        request.top = 4;
        assert_eq!(max_logprobs_bytes(&request), BASE_BYTES + 2 * RESULT_BYTES + 35 * ENTRY_BYTES);
        let matrix = json!({"contexts": ["a", "b"], "targets": [[1, 2, 3], "four"]});
        let matrix: LogprobsRequest = serde_json::from_value(matrix).unwrap();
        assert_eq!(max_logprobs_bytes(&matrix), BASE_BYTES + 4 * RESULT_BYTES + 14 * ENTRY_BYTES);
        assert_eq!(max_tokenized_bytes("abc"), BASE_BYTES + 3 * TOKENIZED_BYTES);
    }
}
