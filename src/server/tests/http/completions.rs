//! `/v1/completions`, as clients of OpenAI and vLLM use it for scoring.

use serde_json::{Value, json};

use crate::support::{BOS, FAILS, INFINITE, MAX_LENGTH, Server, logprob};

async fn ask(server: &Server, body: Value) -> Value {
    let reply = server.post("/v1/completions", &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// Reads a number as f32, because the server wrote it as f32: the shortest decimal of an f32 differs from that of the
/// same number as f64.
fn f32_of(number: &Value) -> f32 {
    serde_json::from_value(number.clone()).unwrap()
}

#[tokio::test]
async fn echo_lists_every_token_of_the_prompt() {
    let server = Server::start().await;
    let answer = ask(&server, json!({"prompt": "aé", "max_tokens": 0, "echo": true, "logprobs": 0})).await;
    assert_eq!((&answer["object"], &answer["model"]), (&json!("text_completion"), &json!("letters")));
    let usage = json!({"prompt_tokens": 4, "completion_tokens": 0, "total_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 0}});
    assert_eq!(answer["usage"], usage);
    let ids = [BOS, 97, 0xc3, 0xa9];
    let texts = ["<256>", "a", "", "é"];
    let values: Vec<f32> = ids.windows(2).map(|pair| logprob(pair[0], pair[1])).collect();
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(texts));
    assert_eq!((&logprobs["token_logprobs"][0], &logprobs["top_logprobs"][0]), (&Value::Null, &Value::Null));
    for at in 1..4 {
        let value = &logprobs["token_logprobs"][at];
        assert_eq!(f32_of(value), values[at - 1]);
        assert_eq!(logprobs["top_logprobs"][at], json!({texts[at]: value}));
    }
    assert_eq!(logprobs["text_offset"], json!([0, 5, 6, 6]));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn prompts_are_strings_token_ids_or_lists_of_either() {
    let server = Server::start().await;
    for (prompt, expected) in [
        (json!("ab"), vec![vec![BOS, 97, 98]]),
        (json!([97, 98]), vec![vec![97, 98]]),
        (json!(["ab", "c"]), vec![vec![BOS, 97, 98], vec![BOS, 99]]),
        (json!([[97, 98], [99], [100, 101, 102]]), vec![vec![97, 98], vec![99], vec![100, 101, 102]]),
    ] {
        let answer = ask(&server, json!({"prompt": prompt, "max_tokens": 0, "prompt_logprobs": 0})).await;
        let choices = answer["choices"].as_array().unwrap();
        assert_eq!(choices.len(), expected.len());
        for (index, (choice, ids)) in choices.iter().zip(expected).enumerate() {
            assert_eq!((&choice["index"], &choice["text"]), (&json!(index), &json!("")));
            let list = choice["prompt_logprobs"].as_array().unwrap();
            assert_eq!((list.len(), &list[0]), (ids.len(), &Value::Null));
            for (at, pair) in ids.windows(2).enumerate() {
                let entry = &list[at + 1][pair[1].to_string()];
                assert_eq!(f32_of(&entry["logprob"]), logprob(pair[0], pair[1]));
                assert_eq!(entry["decoded_token"], json!(char::from(u8::try_from(pair[1]).unwrap()).to_string()));
            }
        }
    }
    let plain = ask(&server, json!({"prompt": "ab", "max_tokens": 0, "add_special_tokens": false, "echo": true})).await;
    assert_eq!((&plain["choices"][0]["text"], &plain["usage"]["prompt_tokens"]), (&json!("ab"), &json!(2)));
    let begun = ask(&server, json!({"prompt": "ab", "max_tokens": 1, "echo": true})).await;
    assert_eq!((&begun["choices"][0]["text"], &begun["usage"]["prompt_tokens"]), (&json!("abc"), &json!(3)));
    assert_eq!(plain["choices"][0]["logprobs"], Value::Null);
}

#[tokio::test]
async fn minus_infinity_is_written_as_in_vllm() {
    let server = Server::start().await;
    let answer = ask(&server, json!({"prompt": [1, INFINITE], "max_tokens": 0, "echo": true, "logprobs": 0})).await;
    assert_eq!(answer["choices"][0]["logprobs"]["token_logprobs"], json!([null, -9999.0]));
}

#[tokio::test]
async fn invalid_parameters_are_rejected_by_name() {
    let server = Server::start().await;
    let long = vec![1; MAX_LENGTH + 1];
    for (body, name, field, limit) in [
        (json!({"prompt": "a", "max_tokens": 63}), "sequence-too-long", "max_tokens", json!(MAX_LENGTH - 2)),
        (json!({"prompt": "a", "max_tokens": 0, "logprobs": 65}), "not-offered", "logprobs", json!(64)),
        (json!({"prompt": "a", "max_tokens": 0, "prompt_logprobs": 99}), "not-offered", "prompt_logprobs", json!(64)),
        (json!({"prompt": "a", "n": 0}), "out-of-range", "n", Value::Null),
        (json!({"prompt": "a", "temperature": -1}), "out-of-range", "temperature", Value::Null),
        (json!({"prompt": "a", "top_p": 1.5}), "out-of-range", "top_p", Value::Null),
        (json!({"prompt": "a", "top_k": -2}), "out-of-range", "top_k", Value::Null),
        (json!({"prompt": "a", "stop": ["x", ""]}), "empty-stop", "stop[1]", Value::Null),
        (json!({"prompt": "a", "stop": vec!["x"; 65]}), "not-offered", "stop", json!(64)),
        (json!({"prompt": "a", "stop": ["x", "y".repeat(1025)]}), "not-offered", "stop[1]", json!(1024)),
        (json!({"prompt": "a", "stop_token_ids": vec![1; 257]}), "not-offered", "stop_token_ids", json!(256)),
        (json!({"prompt": "a", "stop_token_ids": [1, 260]}), "token-out-of-range", "stop_token_ids[1]", json!(260)),
        (json!({"prompt": "a", "best_of": 2}), "not-offered", "best_of", Value::Null),
        (json!({"prompt": "a", "presence_penalty": 0.5}), "not-offered", "presence_penalty", Value::Null),
        (json!({"prompt": "a", "logit_bias": {"1": 2}}), "not-offered", "logit_bias", Value::Null),
        (json!({"prompt": "a", "max_tokens": 0, "best_off": 2}), "invalid-field", "best_off", Value::Null),
        (json!({"prompt": [], "max_tokens": 0}), "no-queries", "prompt", Value::Null),
        (json!({"prompt": ["a", []], "max_tokens": 0}), "empty-prompt", "prompt[1]", Value::Null),
        (json!({"prompt": ["a", [260]], "max_tokens": 0}), "token-out-of-range", "prompt[1][0]", json!(260)),
        (json!({"prompt": long, "max_tokens": 0}), "sequence-too-long", "prompt", json!(MAX_LENGTH)),
        (json!({"prompt": [long], "max_tokens": 0}), "sequence-too-long", "prompt[0]", json!(MAX_LENGTH)),
    ] {
        let (status, found, problem) = server.post("/v1/completions", &body).await.problem();
        assert_eq!((status, found.as_str()), (400, name), "{body}: {problem}");
        assert_eq!((&problem["field"], &problem["limit"]), (&json!(field), &limit), "{body}: {problem}");
    }
    let failing = json!({"prompt": ["a", [1], [1, FAILS]], "max_tokens": 0, "echo": true, "logprobs": 0});
    let (status, name, problem) = server.post("/v1/completions", &failing).await.problem();
    assert_eq!((status, name.as_str(), &problem["field"]), (500, "backend-failed", &json!("prompt[2]")));
}
