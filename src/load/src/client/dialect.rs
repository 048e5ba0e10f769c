//! Request bodies in the server's dialect, and checks that responses are complete.

use bytes::Bytes;
use surprisal_dialect::{Batch, Dialect, Logprobs, Query, ReadError, Request, SglangOptions, SglangStart};

use crate::workload::PairRequest;

/// Options of SGLang requests: generate one token, as requests to the other servers do.
const SGLANG: SglangOptions = SglangOptions { start: SglangStart::PerQuery, max_new_tokens: 1 };

/// The error message for a result that does not have the dialect's form.
const UNKNOWN_RESULT: &str = "a result does not have the form that this API defines";

/// A complete response.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CompleteResponse {
    /// Log-probabilities of the targets, in nats, in order; `None` from llama.cpp, which returns no log-probabilities.
    pub(crate) logprobs: Option<Vec<f64>>,
    /// Tokens that went through the model; `None` if the response does not report them.
    pub(crate) computed_tokens: Option<u64>,
    /// Tokens found in a cache; `None` if the response does not report them.
    pub(crate) cached_tokens: Option<u64>,
}

/// Writes the body of a request.
pub(crate) fn write_body(dialect: Dialect, request: &PairRequest, model: &str) -> Result<Bytes, serde_json::Error> {
    let request = Request { model, batch: &batch(request), sglang: SGLANG };
    Ok(serde_json::to_vec(&dialect.body(&request))?.into())
}

/// Returns the most that the response to `request` may have, in bytes.
pub(crate) fn max_response_bytes(dialect: Dialect, request: &PairRequest) -> usize {
    dialect.max_response_bytes(&batch(request))
}

/// Reads the response to `request`, which must contain every log-probability and, if it states a fingerprint, the given
/// one. The error describes the problem.
pub(crate) fn read_response(
    dialect: Dialect,
    request: &PairRequest,
    fingerprint: Option<&str>,
    body: &[u8],
) -> Result<CompleteResponse, String> {
    let response = dialect.read::<f64>(&batch(request), body).map_err(|error| match error {
        ReadError::Response(error) => error.to_string(),
        ReadError::Result(_) => UNKNOWN_RESULT.to_owned(),
    })?;
    if let (Some(expected), Some(found)) = (fingerprint, &response.fingerprint)
        && expected != found
    {
        return Err(format!("the served model changed: fingerprint {expected} became {found}"));
    }
    let logprobs = match dialect {
        Dialect::LlamaCpp => {
            check_count(response.results.len(), "completions", request)?;
            None
        }
        _ => Some(target_logprobs(dialect, request, response.results)?),
    };
    Ok(CompleteResponse { logprobs, computed_tokens: response.computed_tokens, cached_tokens: response.cached_tokens })
}

fn batch(request: &PairRequest) -> Batch<'_> {
    Batch::Pairs { contexts: &request.contexts, targets: &request.targets, pairs: &request.pairs }
}

/// Checks that there is one result for each pair.
fn check_count(found: usize, results: &str, request: &PairRequest) -> Result<(), String> {
    match request.pairs.len() {
        expected if expected == found => Ok(()),
        expected => Err(format!("expected {expected} {results}, got {found}")),
    }
}

/// Collects the log-probabilities of all targets.
fn target_logprobs(dialect: Dialect, request: &PairRequest, results: Vec<Logprobs<f64>>) -> Result<Vec<f64>, String> {
    let noun = if matches!(dialect, Dialect::Vllm | Dialect::OpenAi) { "choices" } else { "results" };
    check_count(results.len(), noun, request)?;
    let mut logprobs = Vec::with_capacity(request.scored_tokens());
    for (result, (context, target)) in results.iter().zip(request.pair_texts()) {
        logprobs.extend(select_target(dialect, result, context, target)?);
    }
    Ok(logprobs)
}

/// Selects the target's log-probabilities from a result.
fn select_target(
    dialect: Dialect,
    result: &Logprobs<f64>,
    context: &[u32],
    target: &[u32],
) -> Result<Vec<f64>, String> {
    match (result, dialect) {
        (Logprobs::Missing, Dialect::Vllm) => return Err("a choice has no prompt_logprobs".into()),
        (Logprobs::Missing, _) => return Err("a choice has no logprobs".into()),
        _ => {}
    }
    let of_target = result.of_target(&Query { context, target }, None)?;
    let missing = |id: &u32| match dialect {
        Dialect::Vllm => format!("prompt_logprobs has no entry for token {id}"),
        Dialect::Sglang => "input_token_logprobs contains null".into(),
        _ => "token_logprobs contains null".into(),
    };
    of_target.iter().zip(target).map(|(logprob, id)| logprob.ok_or_else(|| missing(id))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Returns a request with two queries: context 0 5 with target 7 8, and context 0 with target 7 8.
    fn request() -> PairRequest {
        let (contexts, targets) = (vec![vec![0, 5], vec![0]], vec![vec![7, 8]]);
        PairRequest { contexts, targets, pairs: vec![[0, 0], [1, 0]], ..PairRequest::default() }
    }

    fn logprobs(dialect: Dialect, body: &Value) -> Result<Vec<f64>, String> {
        read_response(dialect, &request(), None, body.to_string().as_bytes()).map(|response| response.logprobs.unwrap())
    }

    #[test]
    fn all_dialects_give_the_same_log_probabilities() {
        let expected = Ok(vec![-1.0, -2.0, -3.0, -4.5]);
        let at = |id: &str, value: f64| json!({id: {"logprob": value, "rank": 1, "decoded_token": "x"}});
        let first = json!([null, at("5", -9.0), at("7", -1.0), at("8", -2.0)]);
        let second = json!([null, at("7", -3.0), at("8", -4.5)]);
        let vllm =
            json!({"choices": [{"index": 1, "prompt_logprobs": second}, {"index": 0, "prompt_logprobs": first}]});
        assert_eq!(logprobs(Dialect::Vllm, &vllm), expected);
        let choice = |index, values: Value| json!({"index": index, "logprobs": {"token_logprobs": values}});
        let echoed = [choice(0, json!([null, -9.0, -1.0, -2.0, -7.0])), choice(1, json!([null, -3.0, -4.5, -7.0]))];
        assert_eq!(logprobs(Dialect::OpenAi, &json!({"choices": echoed})), expected);
        let meta = |values: Value| json!({"meta_info": {"input_token_logprobs": values, "cached_tokens": 1}});
        let generated = json!([
            meta(json!([[null, 5, null], [-1.0, 7, null], [-2.0, 8, null]])),
            meta(json!([[-3.0, 7, null], [-4.5, 8, "x"]])),
        ]);
        assert_eq!(logprobs(Dialect::Sglang, &generated), expected);
        let result = |values: Value| json!({"sum": 0.0, "tokens": 2, "cached_tokens": 0, "logprobs": values});
        let usage = json!({"computed_tokens": 5, "cached_tokens": 2, "scored_tokens": 4});
        let results = [result(json!([-1.0, -2.0])), result(json!([-3.0, -4.5]))];
        let ours = json!({"model": "m", "fingerprint": "f", "results": results, "usage": usage});
        assert_eq!(logprobs(Dialect::Surprisal, &ours), expected);
        let body = ours.to_string();
        let response = read_response(Dialect::Surprisal, &request(), Some("f"), body.as_bytes()).unwrap();
        assert_eq!((response.computed_tokens, response.cached_tokens), (Some(5), Some(2)));
        let other = read_response(Dialect::Surprisal, &request(), Some("g"), body.as_bytes()).unwrap_err();
        assert_eq!(other, "the served model changed: fingerprint g became f");
        let mut positive = ours.clone();
        positive["results"][1]["logprobs"][0] = json!(3.5);
        let error = logprobs(Dialect::Surprisal, &positive).unwrap_err();
        assert_eq!(error, "target token 0 has log-probability 3.5; it must be at most 0");
        let mut echo = ours.clone();
        echo["results"][0]["token_ids"] = json!([7, 9]);
        assert!(logprobs(Dialect::Surprisal, &echo).unwrap_err().contains("sent as 8, but the response has 9"));
    }

    #[test]
    fn incomplete_responses_are_rejected() {
        let choice = |values: Value| json!({"index": 0, "logprobs": {"token_logprobs": values}});
        let cut = json!({"choices": [choice(json!([null, -9.0, -1.0])), choice(json!([null, -3.0, -4.5]))]});
        let error = logprobs(Dialect::OpenAi, &cut).unwrap_err();
        assert!(error.starts_with("expected 4 log-probabilities, one for each token of the prompt"), "{error}");
        let null = json!({"choices": [choice(json!([null, -9.0, null, -1.0])), choice(json!([null, -3.0, -4.5]))]});
        assert!(logprobs(Dialect::OpenAi, &null).unwrap_err().contains("null"));
        assert!(logprobs(Dialect::OpenAi, &json!({"choices": []})).unwrap_err().contains("expected 2 choices, got 0"));
        assert!(logprobs(Dialect::Surprisal, &json!({"hello": 1})).is_err());
    }

    #[test]
    fn llama_cpp_reports_computed_and_cached_tokens() {
        let one = |n: u64| json!({"tokens_evaluated": 4, "tokens_cached": 5, "timings": {"prompt_n": n}});
        let response =
            read_response(Dialect::LlamaCpp, &request(), None, json!([one(4), one(1)]).to_string().as_bytes()).unwrap();
        assert_eq!((response.logprobs, response.computed_tokens, response.cached_tokens), (None, Some(5), Some(3)));
    }
}
