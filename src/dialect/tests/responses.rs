//! Tests of reading responses in each server's format.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use surprisal_dialect::{Batch, Dialect, Logprobs, Query, ReadError, Response};

/// Reads a response to two queries: tokens 9 1 2 | 3 and 9 | 5 (context | target), where 9 is the BOS.
fn read(dialect: Dialect, answer: &Value) -> Result<Response<f64>, ReadError> {
    let queries = vec![Query { context: &[1, 2], target: &[3] }, Query { context: &[], target: &[5] }];
    dialect.read(&Batch::Queries { queries, bos: Some(9) }, answer.to_string().as_bytes())
}

#[test]
fn surprisal_responses_state_tokens_and_fingerprint() {
    let result = |logprob: f64, token: u32| {
        let (logprobs, ids) = ([logprob], [token]);
        json!({"sum": logprob, "tokens": 1, "cached_tokens": 0, "logprobs": logprobs, "token_ids": ids})
    };
    let usage = json!({"computed_tokens": 5, "cached_tokens": 2, "scored_tokens": 2});
    let answer =
        json!({"model": "m", "fingerprint": "f", "results": [result(-3.0, 3), result(-5.0, 5)], "usage": usage});
    let answer = read(Dialect::Surprisal, &answer).unwrap();
    let target = |logprob: f64, token: u32| Logprobs::Target { logprobs: vec![logprob], token_ids: Some(vec![token]) };
    assert_eq!(answer.results, [target(-3.0, 3), target(-5.0, 5)]);
    assert_eq!(
        (answer.computed_tokens, answer.cached_tokens, answer.fingerprint),
        (Some(5), Some(2), Some("f".into()))
    );
}

#[test]
fn choices_are_in_the_order_of_the_prompts() {
    let echo = json!({"choices": [
        {"index": 1, "text": "", "logprobs": {"token_logprobs": [null, -5.0, -0.5]}},
        {"index": 0, "text": "", "logprobs": {"token_logprobs": [null, -1.0, -2.0, -3.0, -0.5]}}]});
    let prompts = [vec![None, Some(-1.0), Some(-2.0), Some(-3.0), Some(-0.5)], vec![None, Some(-5.0), Some(-0.5)]];
    assert_eq!(read(Dialect::OpenAi, &echo).unwrap().results, prompts.map(Logprobs::PromptAndGenerated));
    let at = |id: &str, logprob: f64| json!({id: {"logprob": logprob, "rank": 3}, "77": {"logprob": -0.1}, "a text": {"logprob": -0.2}});
    let listed = json!({"choices": [
        {"index": 0, "prompt_logprobs": [null, at("1", -1.0), at("8", -2.0), at("3", -3.0)]},
        {"index": 1, "text": "x"}]});
    let first = Logprobs::Prompt(vec![None, Some(-1.0), None, Some(-3.0)]);
    assert_eq!(read(Dialect::Vllm, &listed).unwrap().results, [first, Logprobs::Missing]);
}

#[test]
fn sglang_and_llama_cpp_may_return_a_single_result() {
    let one = json!({"meta_info": {"input_token_logprobs": [[null, 2, null], [-3.0, 3, "c"]], "cached_tokens": 2}});
    let answer = read(Dialect::Sglang, &one).unwrap();
    assert_eq!(
        (&answer.results[..], answer.cached_tokens),
        (&[Logprobs::PromptEnd(vec![(2, None), (3, Some(-3.0))])][..], Some(2))
    );
    let two = read(Dialect::Sglang, &json!([one, {"meta_info": {"input_token_logprobs": []}}])).unwrap();
    assert_eq!((two.results.len(), two.cached_tokens), (2, None));
    let completed = |computed: u64| json!({"tokens_evaluated": 4, "timings": {"prompt_n": computed}});
    let answer = read(Dialect::LlamaCpp, &json!([completed(4), completed(1)])).unwrap();
    assert_eq!(answer.results, [Logprobs::Missing, Logprobs::Missing]);
    assert_eq!((answer.computed_tokens, answer.cached_tokens), (Some(5), Some(3)));
}

#[test]
fn an_unexpected_form_is_an_error() {
    assert!(matches!(read(Dialect::OpenAi, &json!({"hello": 1})), Err(ReadError::Response(_))));
    let error = read(Dialect::Sglang, &json!([{"meta_info": 1}])).unwrap_err();
    assert!(matches!(error, ReadError::Result(_)) && error.to_string().contains("invalid type"), "{error}");
}
