//! Continuation of prompts: texts, lists, stops, seeds and streams, in the formats of OpenAI and SGLang.

use std::collections::HashSet;

use serde_json::{Value, json};
use surprisal_engine::Scorer;

use crate::support::{BOS, FAILS, Server, logprob, until};

async fn ask(server: &Server, body: Value) -> Value {
    let reply = server.post("/v1/completions", &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// Returns a log-probability as the server writes it: the shortest decimal that reads back as the same f32.
fn written(before: u32, token: u32) -> Value {
    serde_json::from_str(&serde_json::to_string(&logprob(before, token)).unwrap()).unwrap()
}

fn f32_of(number: &Value) -> f32 {
    serde_json::from_value(number.clone()).unwrap()
}

/// Sends a request and reads the response in the same way as lm-evaluation-harness.
#[tokio::test]
async fn the_lm_evaluation_harness_can_read_log_likelihoods() {
    let server = Server::start().await;
    let prompt = [vec![7, 0, 0], vec![7, 8, 1]];
    let answer = ask(
        &server,
        json!({"model": "letters", "prompt": prompt, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": true}),
    )
    .await;
    for (index, (prompt, greedy)) in prompt.iter().zip([true, false]).enumerate() {
        let choice = &answer["choices"][index];
        assert_eq!(choice["index"], index);
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        let tops = choice["logprobs"]["top_logprobs"].as_array().unwrap();
        assert_eq!((logprobs.len(), tops.len()), (4, 4), "the prompt's tokens and one more");
        assert_eq!((&logprobs[0], &tops[0]), (&Value::Null, &Value::Null));
        let mut is_greedy = true;
        for at in 1..3 {
            assert_eq!(f32_of(&logprobs[at]), logprob(prompt[at - 1], prompt[at]));
            let best = tops[at].as_object().unwrap().values().map(f32_of).fold(f32::MIN, f32::max);
            is_greedy &= f32_of(&logprobs[at]) == best;
        }
        assert_eq!(is_greedy, greedy);
    }
    assert_eq!((&answer["usage"]["completion_tokens"], &answer["usage"]["total_tokens"]), (&json!(2), &json!(8)));
}

#[tokio::test]
async fn a_prompt_is_continued_until_it_is_long_enough_or_stops() {
    let server = Server::start().await;
    for (more, text, reason, tokens) in [
        (json!({"max_tokens": 3}), "bcd", "length", 3),
        (json!({"max_tokens": 0}), "", "length", 0),
        (json!({"max_tokens": 20, "stop": "fg"}), "bcde", "stop", 6),
        (json!({"max_tokens": 20, "stop": ["zz", "ef", "def"]}), "bc", "stop", 5),
        (json!({"max_tokens": 3, "stop": "de"}), "bcd", "length", 3),
        (json!({"max_tokens": 20, "stop_token_ids": [101]}), "bcd", "stop", 4),
        (json!({"max_tokens": 2, "echo": true}), "abc", "length", 2),
        (json!({}), "bcdefghijklmnopq", "length", 16),
    ] {
        let mut body = json!({"prompt": "a", "add_special_tokens": false});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = ask(&server, body).await;
        let choice = &answer["choices"][0];
        assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!(text), &json!(reason)), "{more}");
        assert_eq!(answer["usage"]["completion_tokens"], tokens, "{more}");
    }
    // Without `max_tokens`, the model limits the length.
    let answer = ask(&server, json!({"prompt": vec![33; 60]})).await;
    assert_eq!((&answer["usage"]["completion_tokens"], &answer["usage"]["total_tokens"]), (&json!(4), &json!(64)));
    assert_eq!(server.scorer.stats().running_queries, 0, "a stopped continuation does not keep running");
}

#[tokio::test]
async fn logprob_lists_continue_after_the_prompt() {
    let server = Server::start().await;
    let body = json!({"prompt": "ab", "max_tokens": 2, "echo": true, "logprobs": 2, "prompt_logprobs": 1});
    let choice = ask(&server, body).await["choices"][0].clone();
    let lists = &choice["logprobs"];
    assert_eq!(lists["tokens"], json!(["<256>", "a", "b", "c", "d"]));
    assert_eq!(lists["text_offset"], json!([0, 5, 6, 7, 8]));
    let ids = [BOS, 97, 98, 99, 100];
    for at in 1..5 {
        assert_eq!(lists["token_logprobs"][at], written(ids[at - 1], ids[at]));
        let expected = json!({"\u{0}": written(ids[at - 1], 0), "\u{1}": written(ids[at - 1], 1), lists["tokens"][at].as_str().unwrap(): written(ids[at - 1], ids[at])});
        assert_eq!(lists["top_logprobs"][at], expected);
    }
    let listed = &choice["prompt_logprobs"];
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]), (3, &Value::Null));
    assert_eq!(listed[2]["98"], json!({"logprob": written(97, 98), "rank": 99, "decoded_token": "b"}));
    assert_eq!(listed[2]["0"], json!({"logprob": written(97, 0), "rank": 1, "decoded_token": "\u{0}"}));
    assert_eq!(listed[2].as_object().unwrap().len(), 2);
    let short = ask(&server, json!({"prompt": "ab", "max_tokens": 2, "logprobs": 0})).await["choices"][0].clone();
    assert_eq!(short["logprobs"]["tokens"], json!(["c", "d"]));
    assert_eq!(short["logprobs"]["text_offset"], json!([0, 1]));
}

#[tokio::test]
async fn completions_of_a_prompt_are_adjacent() {
    let server = Server::start().await;
    let answer = ask(&server, json!({"prompt": ["a", "c"], "n": 2, "max_tokens": 1})).await;
    let choices = answer["choices"].as_array().unwrap();
    let found: Vec<_> =
        choices.iter().map(|choice| (choice["index"].as_u64().unwrap(), choice["text"].as_str().unwrap())).collect();
    assert_eq!(found, [(0, "b"), (1, "b"), (2, "d"), (3, "d")]);
}

/// Without a seed in the request, each completion has a different seed.
#[tokio::test]
async fn completions_have_distinct_seeds_unless_the_request_has_one() {
    let server = Server::start().await;
    let seeds = async |path: &str, body: Value| {
        server.scorer.seeds.lock().unwrap().clear();
        assert_eq!(server.post(path, &body).await.status, 200);
        server.scorer.seeds.lock().unwrap().clone()
    };
    for (path, body) in [
        ("/v1/completions", json!({"prompt": ["a", "a", "c"], "n": 2, "max_tokens": 1})),
        ("/generate", json!({"text": ["a", "a", "a", "a", "a", "a"], "sampling_params": {"max_new_tokens": 1}})),
    ] {
        let sampled = seeds(path, body).await;
        assert_eq!((sampled.len(), sampled.iter().collect::<HashSet<_>>().len()), (6, 6), "{path}");
    }
    // With a seed, the continuation of a prompt does not depend on the other prompts.
    let seeded = json!({"prompt": ["a", "b"], "n": 2, "max_tokens": 1, "seed": 7});
    assert_eq!(seeds("/v1/completions", seeded).await, [7, 8, 7, 8]);
}

/// Returns the events of a stream, and checks that `[DONE]` follows them.
async fn events(server: &Server, body: &Value) -> Vec<Value> {
    let response = server.client.post(format!("{}/v1/completions", server.url)).json(body).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let mut events: Vec<&str> =
        text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(events.pop(), Some("[DONE]"));
    events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

#[tokio::test]
async fn stream_events_add_up_to_the_whole_response() {
    let server = Server::start().await;
    for more in [
        json!({}),
        json!({"echo": true}),
        json!({"stop": "éab"}),
        json!({"stop": ["abd", "c"]}),
        json!({"max_tokens": 0, "echo": true}),
    ] {
        let mut body = json!({"prompt": "XY", "max_tokens": 8, "logprobs": 1, "add_special_tokens": false});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let whole = ask(&server, body.clone()).await;
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let mut pieces = events(&server, &body).await;
        assert_eq!(pieces.pop().unwrap()["usage"], whole["usage"], "{more}");
        let (mut text, mut logprobs, mut offsets) = (String::new(), Vec::new(), Vec::new());
        for (at, piece) in pieces.iter().enumerate() {
            assert_eq!((&piece["id"], &piece["object"]), (&pieces[0]["id"], &json!("text_completion")));
            let choice = &piece["choices"][0];
            assert_eq!(choice["finish_reason"].is_null(), at + 1 < pieces.len(), "{more}: {piece}");
            text.push_str(choice["text"].as_str().unwrap());
            logprobs.extend(choice["logprobs"]["token_logprobs"].as_array().unwrap().clone());
            offsets.extend(choice["logprobs"]["text_offset"].as_array().unwrap().clone());
        }
        let choice = &whole["choices"][0];
        assert_eq!(
            (&choice["text"], &choice["finish_reason"]),
            (&json!(text), &pieces.last().unwrap()["choices"][0]["finish_reason"]),
            "{more}"
        );
        assert_eq!(choice["logprobs"]["token_logprobs"], json!(logprobs), "{more}");
        assert_eq!(choice["logprobs"]["text_offset"], json!(offsets), "{more}");
    }
    assert_eq!(ask(&server, json!({"prompt": "XY", "max_tokens": 4})).await["choices"][0]["text"], "Zéa");
}

#[tokio::test]
async fn a_failure_in_a_stream_is_sent_as_an_event() {
    let server = Server::start().await;
    let events = events(&server, &json!({"prompt": [1, FAILS], "logprobs": 0, "echo": true, "stream": true})).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["type"], "urn:surprisal:problem:backend-failed");
    let error = &events[0]["error"];
    assert_eq!((&error["type"], &error["param"]), (&json!("server_error"), &json!("prompt")));
}

#[tokio::test]
async fn a_disconnected_reader_cancels_generation() {
    let server = Server::start().await;
    server.scorer.set_open(false);
    let request = server.client.post(format!("{}/v1/completions", server.url));
    let reading = request.json(&json!({"prompt": ["a", "b"], "stream": true})).send().await.unwrap();
    server.until_running(2).await;
    drop(reading);
    server.until_running(0).await;
    assert_eq!(server.scorer.stats().cancelled_queries, 2);
    until(async || server.metric("surprisal_admitted_tokens").await == 0.0).await;
}

#[tokio::test]
async fn generate_responds_in_sglangs_format() {
    let server = Server::start().await;
    let body = json!({"input_ids": [7, 97], "return_logprob": true, "logprob_start_len": 0, "top_logprobs_num": 1,
        "return_text_in_logprobs": true, "sampling_params": {"max_new_tokens": 3, "temperature": 0}});
    let answer = server.post("/generate", &body).await.json();
    assert_eq!((&answer["text"], &answer["output_ids"]), (&json!("bcd"), &json!([98, 99, 100])));
    let info = &answer["meta_info"];
    assert_eq!(info["finish_reason"], json!({"type": "length", "length": 3}));
    assert_eq!(info["completion_tokens"], 3);
    assert_eq!(info["output_token_logprobs"][1], json!([written(98, 99), 99, "c"]));
    assert_eq!(info["input_top_logprobs"], json!([null, [[written(7, 0), 0, "\u{0}"]]]));
    assert_eq!(info["output_top_logprobs"][2], json!([[written(99, 0), 0, "\u{0}"]]));
    for (params, text, reason) in [
        (json!({"stop": ["d"]}), "bc", json!({"type": "stop", "matched": "d"})),
        (json!({"stop_token_ids": [100]}), "bc", json!({"type": "stop", "matched": 100})),
    ] {
        let answer = server.post("/generate", &json!({"input_ids": [97], "sampling_params": params})).await.json();
        assert_eq!((&answer["text"], &answer["meta_info"]["finish_reason"]), (&json!(text), &reason));
    }
}
