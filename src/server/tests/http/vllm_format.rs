//! Details of `/v1/completions` that clients of vLLM rely on: orders, ids, stop reasons and usage.

use serde_json::{Value, json};
use surprisal_api::{CompletionsResponse, OrderedMap};

use crate::support::{MAX_LENGTH, Server};

async fn ask(server: &Server, body: Value) -> CompletionsResponse {
    let reply = server.post("/v1/completions", &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_str(&reply.text).unwrap()
}

/// Returns the events of a stream without the last one, `[DONE]`.
async fn events(server: &Server, body: &Value) -> Vec<Value> {
    let text = server.post("/v1/completions", body).await.text;
    let events: Vec<&str> = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

fn keys<K: Clone, V>(map: Option<&OrderedMap<K, V>>) -> Vec<K> {
    map.unwrap().0.iter().map(|member| member.0.clone()).collect()
}

/// The scorer's most probable tokens are 0, 1, 2 and so on.
#[tokio::test]
async fn the_own_token_comes_first_and_the_others_follow_by_rank() {
    let server = Server::start().await;
    let body = json!({"prompt": [7, 97, 1], "max_tokens": 1, "echo": true, "logprobs": 3, "prompt_logprobs": 3});
    let choice = ask(&server, body).await.choices.remove(0);
    let listed = choice.prompt_logprobs.unwrap();
    assert!(listed[0].is_none());
    assert_eq!(keys(listed[1].as_ref()), [97, 0, 1, 2]);
    assert_eq!(keys(listed[2].as_ref()), [1, 0, 2], "the own token is listed once");
    let ranks =
        |at: usize| listed[at].as_ref().unwrap().0.iter().map(|entry| entry.1.rank.unwrap()).collect::<Vec<_>>();
    assert_eq!((ranks(1), ranks(2)), (vec![98, 1, 2, 3], vec![2, 1, 3]));
    let top = choice.logprobs.unwrap().top_logprobs;
    assert_eq!(keys(top[1].as_ref()), ["a", "\0", "\u{1}", "\u{2}"]);
    assert_eq!(keys(top[2].as_ref()), ["\u{1}", "\0", "\u{2}"]);
    assert_eq!(keys(top[3].as_ref()), ["\u{2}", "\0", "\u{1}"], "generated tokens, too");
}

#[tokio::test]
async fn ranks_are_present_without_alternatives() {
    let server = Server::start().await;
    let choice =
        ask(&server, json!({"prompt": [7, 97], "max_tokens": 0, "prompt_logprobs": 0})).await.choices.remove(0);
    assert_eq!(choice.prompt_logprobs.unwrap()[1].as_ref().unwrap().0[0].1.rank, Some(98));
}

#[tokio::test]
async fn token_ids_replace_texts_on_request() {
    let server = Server::start().await;
    let body = json!({"prompt": [7, 97, 98], "max_tokens": 2, "echo": true, "logprobs": 1,
        "return_tokens_as_token_ids": true, "return_token_ids": true});
    let choice = ask(&server, body.clone()).await.choices.remove(0);
    let lists = choice.logprobs.unwrap();
    assert_eq!(lists.tokens, ["token_id:7", "token_id:97", "token_id:98", "token_id:99", "token_id:100"]);
    assert_eq!(keys(lists.top_logprobs[1].as_ref()), ["token_id:97", "token_id:0"]);
    assert_eq!(lists.text_offset, [0, 1, 2, 3, 4], "offsets are those of the text");
    assert_eq!((choice.prompt_token_ids, choice.token_ids), (Some(vec![7, 97, 98]), Some(vec![99, 100])));

    for (echo, ids) in [(true, json!([[], [99], [100]])), (false, json!([[99], [100]]))] {
        let mut body = body.clone();
        (body["stream"], body["echo"]) = (json!(true), json!(echo));
        let events = events(&server, &body).await;
        let found: Vec<&Value> = events.iter().map(|event| &event["choices"][0]["token_ids"]).collect();
        assert_eq!(json!(found), ids);
        let prompts: Vec<_> = events.iter().filter_map(|event| event["choices"][0].get("prompt_token_ids")).collect();
        assert_eq!(prompts, [&json!([7, 97, 98])], "only in the first event");
        assert!(events[0]["choices"][0].get("prompt_token_ids").is_some());
    }
}

#[tokio::test]
async fn the_stop_reason_is_the_stop_string_or_token() {
    let server = Server::start().await;
    for (more, reason) in [
        (json!({"stop": ["zz", "d"]}), json!("d")),
        (json!({"stop_token_ids": [100]}), json!(100)),
        (json!({}), Value::Null),
    ] {
        let mut body = json!({"prompt": "a", "max_tokens": 5});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let whole = server.post("/v1/completions", &body).await.json();
        assert_eq!(whole["choices"][0].get("stop_reason"), Some(&reason), "{more}");
        body["stream"] = json!(true);
        let events = events(&server, &body).await;
        assert_eq!(events.last().unwrap()["choices"][0]["stop_reason"], reason, "{more}");
        assert_eq!(events[0]["choices"][0]["stop_reason"], Value::Null);
    }
}

#[tokio::test]
async fn responses_have_the_fingerprint_the_request_id_and_cached_tokens() {
    let server = Server::start().await;
    // The scorer reports as cached everything before the token that precedes the first scored one.
    let body = json!({"prompt": [[7, 97, 98], [1, 2]], "max_tokens": 1, "n": 2, "request_id": "r1"});
    let whole = server.post("/v1/completions", &body).await.json();
    assert_eq!((&whole["id"], &whole["system_fingerprint"]), (&json!("cmpl-r1"), &json!("letters-1")));
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 3}});
    assert_eq!(whole["usage"], usage, "each prompt counts once");
    let mut streamed = body.clone();
    (streamed["stream"], streamed["stream_options"]) = (json!(true), json!({"include_usage": true}));
    let events = events(&server, &streamed).await;
    assert!(events.iter().all(|event| event["id"] == "cmpl-r1" && event["system_fingerprint"] == "letters-1"));
    assert_eq!(events.last().unwrap()["usage"], usage);
    assert!(events[..events.len() - 1].iter().all(|event| event.get("usage").is_none()));
}

#[tokio::test]
async fn continuous_usage_counts_the_tokens_so_far() {
    let server = Server::start().await;
    let body = json!({"prompt": [7, 97], "max_tokens": 3, "stream": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let events = events(&server, &body).await;
    let counts: Vec<_> = events.iter().map(|event| event["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 2, 3, 3]);
    assert!(events.iter().all(|event| event["usage"]["prompt_tokens"] == 2));
}

/// The official SDKs show `error.message`, and litellm recognizes "maximum context length is".
#[tokio::test]
async fn problems_contain_openais_error_object() {
    let server = Server::start().await;
    let long = json!({"prompt": vec![1; MAX_LENGTH + 1]});
    for (path, body, param, code) in [
        ("/v1/completions", json!({"prompt": 5}), json!("prompt"), "invalid_field"),
        ("/v1/completions", json!({"prompt": "a", "model": "b"}), json!("model"), "model_not_found"),
        ("/v1/completions", long, json!("prompt"), "context_length_exceeded"),
        ("/v1/chat/completions", json!({}), Value::Null, "route_not_found"),
        ("/logprobs", json!({}), json!("queries"), "missing_form"),
    ] {
        let (_, _, problem) = server.post(path, &body).await.problem();
        let error =
            json!({"message": problem["detail"], "type": "invalid_request_error", "param": param, "code": code});
        assert_eq!((&problem["message"], &problem["error"]), (&problem["detail"], &error));
    }
    let too_long = json!({"prompt": "a", "max_tokens": MAX_LENGTH});
    let (_, name, problem) = server.post("/v1/completions", &too_long).await.problem();
    let text = format!("this model's maximum context length is {MAX_LENGTH} tokens");
    assert!(name == "sequence-too-long" && problem["detail"].as_str().unwrap().starts_with(&text), "{problem}");
    assert_eq!(
        (&problem["field"], &problem["value"], &problem["limit"]),
        (&json!("max_tokens"), &json!(64), &json!(62))
    );
}
