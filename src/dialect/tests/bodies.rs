//! Request bodies, byte for byte, as the estimator and the load tester send them.
#![allow(clippy::unwrap_used)]

use surprisal_dialect::{Batch, Dialect, Query, Request, SglangOptions, SglangStart};

fn body(dialect: Dialect, batch: &Batch<'_>, start: SglangStart, max_new_tokens: u32) -> String {
    let request = Request { model: "m", batch, sglang: SglangOptions { start, max_new_tokens } };
    serde_json::to_string(&dialect.body(&request)).unwrap()
}

/// Returns a body as the estimator sends it: separate queries, with or without a BOS.
fn of_queries(dialect: Dialect, bos: Option<u32>) -> String {
    let queries = vec![Query { context: &[1, 2], target: &[3, 4] }, Query { context: &[], target: &[5] }];
    body(dialect, &Batch::Queries { queries, bos }, SglangStart::Earliest, 0)
}

/// Returns a body as the load tester sends it: contexts and targets in pairs.
fn of_pairs(dialect: Dialect, pairs: &[[usize; 2]]) -> String {
    let (contexts, targets) = ([vec![0, 5], vec![0]], [vec![7, 8]]);
    body(dialect, &Batch::Pairs { contexts: &contexts, targets: &targets, pairs }, SglangStart::PerQuery, 1)
}

#[test]
fn bodies_of_queries() {
    assert_eq!(
        of_queries(Dialect::Surprisal, Some(9)),
        r#"{"bos":"none","detail":"tokens","queries":[{"context":[9,1,2],"target":[3,4]},{"context":[9],"target":[5]}],"texts":"none"}"#
    );
    assert_eq!(
        of_queries(Dialect::Surprisal, None),
        r#"{"bos":"always","detail":"tokens","queries":[{"context":[1,2],"target":[3,4]},{"context":[],"target":[5]}],"texts":"none"}"#
    );
    assert_eq!(
        of_queries(Dialect::OpenAi, Some(9)),
        r#"{"echo":true,"logprobs":1,"max_tokens":1,"model":"m","prompt":[[9,1,2,3,4],[9,5]],"temperature":0}"#
    );
    assert_eq!(
        of_queries(Dialect::Vllm, None),
        r#"{"max_tokens":1,"model":"m","prompt":[[1,2,3,4],[5]],"prompt_logprobs":0,"temperature":0}"#
    );
    assert_eq!(
        of_queries(Dialect::Sglang, Some(9)),
        r#"{"input_ids":[[9,1,2,3,4],[9,5]],"logprob_start_len":0,"return_logprob":true,"sampling_params":{"max_new_tokens":0,"temperature":0}}"#
    );
}

#[test]
fn bodies_of_pairs() {
    let all = &[[0, 0], [1, 0]];
    assert_eq!(
        of_pairs(Dialect::Surprisal, all),
        r#"{"contexts":[[0,5],[0]],"targets":[[7,8]],"pairs":"all","detail":"tokens","bos":"none","texts":"none"}"#
    );
    assert_eq!(
        of_pairs(Dialect::Surprisal, &[[1, 0]]),
        r#"{"contexts":[[0,5],[0]],"targets":[[7,8]],"pairs":[[1,0]],"detail":"tokens","bos":"none","texts":"none"}"#
    );
    assert_eq!(
        of_pairs(Dialect::OpenAi, all),
        r#"{"echo":true,"logprobs":1,"max_tokens":1,"model":"m","prompt":[[0,5,7,8],[0,7,8]],"temperature":0}"#
    );
    assert_eq!(
        of_pairs(Dialect::Vllm, all),
        r#"{"max_tokens":1,"model":"m","prompt":[[0,5,7,8],[0,7,8]],"prompt_logprobs":0,"temperature":0}"#
    );
    assert_eq!(
        of_pairs(Dialect::Sglang, all),
        r#"{"input_ids":[[0,5,7,8],[0,7,8]],"logprob_start_len":[1,0],"return_logprob":true,"sampling_params":{"max_new_tokens":1,"temperature":0}}"#
    );
    assert!(of_pairs(Dialect::Sglang, &[[0, 0]]).contains(r#""logprob_start_len":1,"#));
    assert_eq!(
        of_pairs(Dialect::LlamaCpp, all),
        r#"{"cache_prompt":true,"n_predict":1,"prompt":[[0,5,7,8],[0,7,8]],"temperature":0}"#
    );
}
