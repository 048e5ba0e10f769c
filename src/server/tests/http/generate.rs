//! `/generate`, as clients of SGLang use it for scoring.

use serde_json::{Value, json};

use crate::support::{BOS, Server, logprob};

#[tokio::test]
async fn prompt_tokens_are_scored_from_logprob_start_len() {
    let server = Server::start().await;
    let ids = [7, 8, 97];
    let ask = async |start: Value| {
        let request = json!({"input_ids": ids, "sampling_params": {"max_new_tokens": 0, "temperature": 0},
            "return_logprob": true, "logprob_start_len": start, "return_text_in_logprobs": true});
        let reply = server.post("/generate", &request).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["meta_info"]["input_token_logprobs"].clone()
    };
    type Entries = Vec<(Option<f32>, u32, Option<String>)>;
    let entry = |at: usize| {
        let before = at.checked_sub(1).map(|before| logprob(ids[before], ids[at]));
        (before, ids[at], Some(String::from_utf8(vec![u8::try_from(ids[at]).unwrap()]).unwrap()))
    };
    for start in 0..4 {
        let entries: Entries = serde_json::from_value(ask(json!(start)).await).unwrap();
        assert_eq!(entries, (start..3).map(entry).collect::<Entries>(), "from {start}");
    }
    for none in [json!(-1), Value::Null] {
        assert_eq!(ask(none).await, json!([]));
    }
}

#[tokio::test]
async fn a_list_of_prompts_returns_a_list() {
    let server = Server::start().await;
    let request = json!({"text": ["ab", "c"], "sampling_params": {"max_new_tokens": 0}, "return_logprob": true,
        "logprob_start_len": 0});
    let answer = server.post("/generate", &request).await.json();
    assert_eq!(answer.as_array().unwrap().len(), 2);
    assert_eq!(answer[0]["meta_info"]["prompt_tokens"], 3);
    assert_eq!(answer[1]["meta_info"]["input_token_logprobs"][0], json!([null, BOS, null]));
    assert_eq!(answer[1]["meta_info"]["input_token_logprobs"][1][1], 99);
    let plain = json!({"text": "ab", "sampling_params": {"max_new_tokens": 0}});
    let plain = server.post("/generate", &plain).await.json();
    assert_eq!(plain["meta_info"].get("input_token_logprobs"), None);
}

#[tokio::test]
async fn invalid_parameters_are_rejected_by_name() {
    let server = Server::start().await;
    for (body, name, field) in [
        (json!({"text": [1, 2]}), "invalid-field", "text"),
        (json!({"text": ["a", [1, 2]]}), "invalid-field", "text[1]"),
        (json!({"input_ids": "a"}), "invalid-field", "input_ids"),
        (json!({"input_ids": ["a"]}), "invalid-field", "input_ids[0]"),
        (json!({"text": "a", "return_logprob": true, "logprob_start_len": 3}), "out-of-range", "logprob_start_len"),
        (json!({"text": "a", "return_logprob": true, "logprob_start_len": -2}), "out-of-range", "logprob_start_len"),
        (json!({"text": "a", "return_logprob": true, "top_logprobs_num": 65}), "not-offered", "top_logprobs_num"),
        (json!({"text": "a", "sampling_params": {"temperature": -1}}), "out-of-range", "sampling_params.temperature"),
        (json!({"text": "a", "sampling_params": {"stop": ""}}), "empty-stop", "sampling_params.stop[0]"),
        (
            json!({"text": "a", "sampling_params": {"max_new_tokens": 63}}),
            "sequence-too-long",
            "sampling_params.max_new_tokens",
        ),
        (json!({"sampling_params": {"max_new_tokens": 0}}), "text-or-ids", "input_ids"),
        (json!({"text": "a", "sampling_params": {"min_p": 0.5}}), "not-offered", "sampling_params.min_p"),
    ] {
        let (status, found, problem) = server.post("/generate", &body).await.problem();
        assert_eq!((status, found.as_str(), &problem["field"]), (400, name, &json!(field)), "{body}: {problem}");
    }
}

#[tokio::test]
async fn problems_name_the_kind_of_prompt_and_the_limit_that_are_expected() {
    let server = Server::start().await;
    for (body, detail) in [
        (json!({"text": ["a", [1]]}), "is an array of token ids; it must be a string"),
        (json!({"input_ids": "a"}), "is a string; it must be an array of token ids"),
        (
            json!({"input_ids": [[7, 8, 9], [7]], "return_logprob": true, "logprob_start_len": 2}),
            "`logprob_start_len` is 2; it must be at most 1, the number of tokens of `input_ids[1]`",
        ),
    ] {
        let (_, _, problem) = server.post("/generate", &body).await.problem();
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
    // As in SGLang, the start does not matter if the response has no log-probabilities.
    let body = json!({"text": "a", "logprob_start_len": 9, "sampling_params": {"max_new_tokens": 1}});
    assert_eq!(server.post("/generate", &body).await.status, 200);
}
