//! `/generate` as a stream, and the routes that SGLang's benchmark and its language client read.

use std::collections::HashSet;

use serde_json::{Value, json};
use surprisal_engine::Scorer;

use crate::support::{FAILS, MAX_LENGTH, Server, until};

/// Returns the events of a stream, and checks that `[DONE]` follows them.
async fn events(server: &Server, body: &Value) -> Vec<Value> {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let response = server.client.post(format!("{}/generate", server.url)).json(&body).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let mut events: Vec<&str> =
        text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(events.pop(), Some("[DONE]"));
    events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

/// Returns a result without its identifier, which is random.
fn without_id(mut result: Value) -> Value {
    let id = result["meta_info"].as_object_mut().unwrap().remove("id");
    assert!(id.is_some_and(|id| !id.as_str().unwrap().is_empty()), "{result}");
    result
}

/// The events are cumulative: SGLang's clients cut off the part of the text that they have already read.
#[tokio::test]
async fn each_event_has_the_result_so_far_and_the_last_has_the_whole_result() {
    let server = Server::start().await;
    for body in [
        json!({"text": "XY", "sampling_params": {"max_new_tokens": 6}}),
        json!({"input_ids": [7, 97], "sampling_params": {"max_new_tokens": 9, "stop": "ef"}}),
        json!({"text": "a", "return_logprob": true, "logprob_start_len": 0, "top_logprobs_num": 2,
            "return_text_in_logprobs": true, "sampling_params": {"max_new_tokens": 4}}),
        json!({"text": "a", "return_logprob": true, "logprob_start_len": 0, "sampling_params": {"max_new_tokens": 0}}),
    ] {
        let whole = server.post("/generate", &body).await.json();
        let events = events(&server, &body).await;
        let count = whole["meta_info"]["completion_tokens"].as_u64().unwrap() as usize;
        assert_eq!(events.len(), count.max(1), "{body}");
        for (at, event) in events.iter().enumerate() {
            let (info, last) = (&event["meta_info"], at + 1 == events.len());
            assert_eq!((&info["id"], event.get("index")), (&events[0]["meta_info"]["id"], None));
            assert_eq!(info["finish_reason"].is_null(), !last, "{event}");
            assert_eq!(event["output_ids"].as_array().unwrap().len(), count.min(at + 1));
            assert_eq!(info["completion_tokens"], count.min(at + 1));
            assert_eq!(info["prompt_tokens"], whole["meta_info"]["prompt_tokens"]);
            assert!(whole["text"].as_str().unwrap().starts_with(event["text"].as_str().unwrap()), "{event}");
            assert_eq!(info.get("input_token_logprobs"), whole["meta_info"].get("input_token_logprobs"));
        }
        assert_eq!(without_id(events.last().unwrap().clone()), without_id(whole), "{body}");
    }
}

/// An event of many alternatives may be skipped while the client reads, because the next one has its contents too.
#[tokio::test]
async fn the_last_event_is_whole_even_if_large_events_are_skipped() {
    let server = Server::start().await;
    let body = json!({"input_ids": [1], "return_logprob": true, "top_logprobs_num": 64,
        "sampling_params": {"max_new_tokens": 60}});
    let whole = server.post("/generate", &body).await.json();
    let events = events(&server, &body).await;
    let counts: Vec<u64> =
        events.iter().map(|event| event["meta_info"]["completion_tokens"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted_by(|one, next| one < next) && counts.ends_with(&[60]), "{counts:?}");
    assert_eq!(without_id(events.last().unwrap().clone()), without_id(whole));
}

#[tokio::test]
async fn the_events_of_several_prompts_have_an_index() {
    let server = Server::start().await;
    let body = json!({"text": ["a", "m"], "sampling_params": {"max_new_tokens": 3}});
    let whole = server.post("/generate", &body).await.json();
    let events = events(&server, &body).await;
    assert_eq!(events.len(), 6);
    let ids: HashSet<&str> = events.iter().map(|event| event["meta_info"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2, "each prompt has an identifier");
    for index in 0..2 {
        let last = events.iter().rfind(|event| event["index"] == index).unwrap();
        assert_eq!(last["text"], whole[index]["text"]);
        assert_eq!(last["meta_info"]["finish_reason"], json!({"type": "length", "length": 3}));
    }
    assert_eq!(server.metric("surprisal_request_success_total").await, 2.0);
}

#[tokio::test]
async fn a_failure_in_a_stream_is_sent_as_an_event() {
    let server = Server::start().await;
    let body = json!({"input_ids": [1, FAILS], "return_logprob": true, "logprob_start_len": 0});
    let events = events(&server, &body).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["type"], "urn:surprisal:problem:backend-failed");
    assert!(!events[0]["error"]["message"].as_str().unwrap().is_empty());
    assert_eq!(events[0]["field"], "input_ids");
    // A request that is invalid from the start is rejected with a status.
    let reply = server.post("/generate", &json!({"text": "a", "stream": true, "input_ids": [1]})).await;
    assert_eq!(reply.problem().1, "text-or-ids");
}

#[tokio::test]
async fn a_disconnected_reader_cancels_generation() {
    let server = Server::start().await;
    server.scorer.set_open(false);
    let request = server.client.post(format!("{}/generate", server.url));
    let reading = request.json(&json!({"text": ["a", "b"], "stream": true})).send().await.unwrap();
    server.until_running(2).await;
    drop(reading);
    server.until_running(0).await;
    assert_eq!(server.scorer.stats().cancelled_queries, 2);
    until(async || server.metric("surprisal_admitted_tokens").await == 0.0).await;
}

#[tokio::test]
async fn the_model_and_the_server_are_described_in_sglangs_format() {
    let server = Server::start().await;
    for path in ["/model_info", "/get_model_info"] {
        let info = server.get(path).await.json();
        assert_eq!((&info["model_path"], &info["is_generation"]), (&json!("letters"), &json!(true)), "{path}");
        assert_eq!((&info["served_model_name"], &info["tokenizer_path"]), (&json!("letters"), &json!("letters")));
    }
    for path in ["/server_info", "/get_server_info"] {
        let info = server.get(path).await.json();
        assert_eq!((&info["tokenizer_path"], &info["context_length"]), (&json!("letters"), &json!(MAX_LENGTH)));
        assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
        // The benchmark reads the acceptance length of speculative decoding, which this server does not have.
        assert_eq!(info["internal_states"][0].get("avg_spec_accept_length"), None);
        assert!(info["internal_states"][0]["effective_max_running_requests_per_dp"].as_u64().unwrap() > 0);
    }
}
