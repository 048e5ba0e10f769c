//! `/logprobs`: results, their order, and the routes that describe the model.

use std::sync::Arc;

use serde_json::{Value, json};
use surprisal_api::{LogprobsResponse, ModelList, NDJSON};
use surprisal_server::{ApiKeys, ServerConfig};

use crate::support::{BOS, LetterScorer, MAX_LENGTH, Server, SpacePrefixCodec, VOCABULARY, logprob};

/// Returns the expected scores of a target after a whole context.
fn scores(context: &[u32], target: &[u32]) -> Vec<f32> {
    let before = context.last().into_iter().chain(target);
    before.zip(target).map(|(&before, &token)| logprob(before, token)).collect()
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

async fn ask(server: &Server, request: Value) -> LogprobsResponse {
    let reply = server.post("/logprobs", &request).await;
    assert_eq!((reply.status, reply.content_type.as_str()), (200, "application/json"), "{reply:?}");
    serde_json::from_str(&reply.text).unwrap()
}

/// A target has the tokens that follow its context, or those of a whole text if no ordinary token precedes it.
#[tokio::test]
async fn a_target_is_tokenized_as_it_stands_in_the_text() {
    let scorer = Arc::new(LetterScorer::new());
    let server =
        Server::with_codec(scorer, Arc::new(SpacePrefixCodec), ServerConfig::default(), ApiKeys::default()).await;
    for (context, target, tokens, offsets) in [
        (json!(" a"), " bc", " bc", vec![[0, 1], [1, 2], [2, 3]]),
        (json!(" a"), "bc", "bc", vec![[0, 1], [1, 2]]),
        (json!([97]), " ", " ", vec![[0, 1]]),
    ] {
        let answer =
            ask(&server, json!({"queries": [{"context": context, "target": target}], "detail": "tokens"})).await;
        let result = &answer.results[0];
        assert_eq!((&result.token_ids, &result.offsets), (&Some(bytes(tokens)), &Some(offsets)), "{target:?}");
        assert_eq!(result.texts.as_ref().unwrap().concat(), target, "{context}");
    }
}

#[tokio::test]
async fn results_are_in_the_order_of_the_queries() {
    let server = Server::start().await;
    let queries: Vec<Value> = (0..100)
        .map(|n| json!({"id": format!("q{n}"), "context": format!("context {n}"), "target": format!("target {}", n * n)}))
        .collect();
    let answer = ask(&server, json!({"queries": queries, "detail": "tokens"})).await;
    assert_eq!((answer.model.as_str(), answer.fingerprint.as_str()), ("letters", "letters-1"));
    assert_eq!(answer.results.len(), 100);
    for (n, result) in answer.results.iter().enumerate() {
        let (context, target) = (bytes(&format!("context {n}")), bytes(&format!("target {}", n * n)));
        let expected = scores(&context, &target);
        assert_eq!(result.id, Some(format!("q{n}")));
        assert_eq!(result.pair, None);
        assert_eq!(result.tokens, target.len());
        assert_eq!(result.cached_tokens, context.len());
        assert_eq!(result.sum, expected.iter().map(|&logprob| f64::from(logprob)).sum::<f64>());
        assert_eq!(result.logprobs.as_ref(), Some(&expected));
        assert_eq!(result.token_ids.as_ref(), Some(&target));
        let offsets: Vec<_> = (0..target.len()).map(|at| [at, at + 1]).collect();
        assert_eq!(result.offsets, Some(offsets));
    }
}

#[tokio::test]
async fn token_details_are_returned_on_request() {
    let server = Server::start().await;
    let query = json!({"context": [7], "target": [8, 9], "id": "q"});
    let plain = ask(&server, json!({"queries": [query], "detail": "tokens"})).await.results.remove(0);
    assert_eq!((&plain.top, &plain.ranks, &plain.entropies), (&None, &None, &None));
    let all = json!({"queries": [query], "detail": "tokens", "top": 2, "rank": true, "entropy": true});
    let all = ask(&server, all).await.results.remove(0);
    let top = |before| vec![(0, logprob(before, 0)), (1, logprob(before, 1))];
    assert_eq!(all.top, Some(vec![top(7), top(8)]));
    assert_eq!(all.ranks, Some(vec![9, 10]));
    assert_eq!(all.entropies, Some(vec![15.0 / 256.0, 17.0 / 256.0]));
    assert_eq!((all.logprobs, all.sum), (plain.logprobs, plain.sum));
    let ranks = ask(&server, json!({"queries": [query], "detail": "tokens", "rank": true})).await.results.remove(0);
    assert_eq!((ranks.top, ranks.ranks, ranks.entropies), (None, Some(vec![9, 10]), None));
    for (more, name, field) in [
        (json!({"top": 1}), "needs-tokens", "top"),
        (json!({"rank": true}), "needs-tokens", "rank"),
        (json!({"entropy": true}), "needs-tokens", "entropy"),
        (json!({"subset": [1]}), "needs-tokens", "subset"),
        (json!({"top": 65, "detail": "tokens"}), "not-offered", "top"),
        (json!({"subset": [], "detail": "tokens"}), "subset-size", "subset"),
        (json!({"subset": vec![3; VOCABULARY + 1], "detail": "tokens"}), "subset-size", "subset"),
        (json!({"subset": [3, VOCABULARY], "detail": "tokens"}), "token-out-of-range", "subset[1]"),
    ] {
        let mut body = json!({"queries": [query]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, found, problem) = server.post("/logprobs", &body).await.problem();
        assert_eq!((status, found.as_str(), &problem["field"]), (400, name, &json!(field)));
    }
}

/// A subset's log-probability is returned for each token of every query, in JSON and in NDJSON.
#[tokio::test]
async fn a_subsets_logprob_is_returned_for_each_token() {
    let server = Server::start().await;
    let body = json!({"contexts": [[7]], "targets": [[8, 9], [4]], "detail": "tokens", "subset": [5, 200, 5]});
    let answer = ask(&server, body.clone()).await;
    let mass = |before: u32| -((5 + 200 + 2 * before) as f32) / 1024.0;
    let masses: Vec<_> = answer.results.iter().map(|result| result.subset_logprobs.clone().unwrap()).collect();
    assert_eq!(masses, [vec![mass(7), mass(8)], vec![mass(7)]]);
    assert!(answer.results[0].ranks.is_none() && answer.results[0].top.is_none());
    let lines = server.client.post(format!("{}/logprobs", server.url)).header("accept", NDJSON).json(&body);
    let lines = lines.send().await.unwrap().text().await.unwrap();
    assert_eq!(lines.matches("\"subset_logprobs\":[").count(), 2, "{lines}");
}

/// An alternative counts as a token.
#[tokio::test]
async fn alternatives_count_against_the_token_limit() {
    let config = ServerConfig { max_waiting_tokens: 21, ..ServerConfig::default() };
    let server = Server::with_config(config, Some(BOS)).await;
    let body = |top: u16| json!({"queries": [{"target": "abc"}], "detail": "tokens", "top": top});
    assert_eq!(server.post("/logprobs", &body(5)).await.status, 200);
    let (status, name, problem) = server.post("/logprobs", &body(6)).await.problem();
    assert_eq!((status, name.as_str(), &problem["value"]), (413, "request-too-large", &json!(22)));
    let written = |max: u32| json!({"prompt": "abc", "max_tokens": max, "logprobs": 1, "n": 2});
    assert_eq!(server.post("/v1/completions", &written(3)).await.status, 200);
    assert_eq!(server.post("/v1/completions", &written(4)).await.problem().1, "request-too-large");
}

#[tokio::test]
async fn health_and_readiness_report_a_dead_engine() {
    let server = Server::start().await;
    server.scorer.alive.store(false, std::sync::atomic::Ordering::SeqCst);
    for path in ["/health", "/ready"] {
        let reply = server.get(path).await;
        assert_eq!((reply.problem().1.as_str(), reply.retry_after.as_deref()), ("engine-stopped", Some("1")), "{path}");
    }
}

#[tokio::test]
async fn a_sum_is_returned_without_tokens() {
    let server = Server::start().await;
    let query = json!({"context": "It was", "target": " a dark night"});
    let sum = ask(&server, json!({"queries": [query]})).await;
    let tokens = ask(&server, json!({"queries": [query], "detail": "tokens"})).await;
    let sums = &sum.results[0];
    assert_eq!((&sums.logprobs, &sums.token_ids, &sums.offsets), (&None, &None, &None));
    assert_eq!(sum.results[0].sum, tokens.results[0].sum);
    assert_eq!(sum.results[0].tokens, 13);
    assert_eq!(sum.usage, tokens.usage);
    assert_eq!((sum.usage.scored_tokens, sum.usage.cached_tokens, sum.usage.computed_tokens), (13, 6, 14));
}

#[tokio::test]
async fn pairs_carry_their_indices_and_score_like_queries() {
    let server = Server::start().await;
    let (contexts, targets) = (json!(["ab", [7, 8, 9]]), json!(["x", [1, 2], "yz"]));
    let form = |pairs: Value| json!({"contexts": contexts, "targets": targets, "pairs": pairs, "detail": "tokens"});
    let all = ask(&server, form(json!("all"))).await;
    let indices: Vec<_> = all.results.iter().map(|result| result.pair.unwrap()).collect();
    assert_eq!(indices, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]);
    for result in &all.results {
        let [context, target] = result.pair.unwrap();
        let query = json!({"context": contexts[context], "target": targets[target]});
        let single = ask(&server, json!({"queries": [query], "detail": "tokens"})).await;
        assert_eq!(result.logprobs, single.results[0].logprobs);
        assert_eq!(result.token_ids, single.results[0].token_ids);
    }
    let listed = ask(&server, form(json!([[1, 2], [0, 0], [1, 2]]))).await;
    let indices: Vec<_> = listed.results.iter().map(|result| result.pair.unwrap()).collect();
    assert_eq!(indices, [[1, 2], [0, 0], [1, 2]]);
    assert_eq!(listed.results[0], all.results[5]);
    let absent = ask(&server, json!({"contexts": contexts, "targets": targets, "detail": "tokens"})).await;
    assert_eq!(absent, all);
}

#[tokio::test]
async fn bos_precedes_the_context_if_the_model_has_it() {
    let (with, without) = (Server::start().await, Server::with_config(ServerConfig::default(), None).await);
    let only =
        |context: Value, bos| json!({"queries": [{"context": context, "target": [5]}], "bos": bos, "detail": "tokens"});
    // The scorer caches all but the last token before the target, so that the answer shows the context's length.
    for (server, context, bos, last, length) in [
        (&with, json!([]), "auto", BOS, 1),
        (&with, json!(""), "auto", BOS, 1),
        (&with, json!([7]), "auto", 7, 2),
        (&with, json!([BOS]), "auto", BOS, 1),
        (&with, json!([BOS, 7]), "auto", 7, 2),
        (&with, json!([7]), "none", 7, 1),
        (&with, json!([]), "always", BOS, 1),
        (&with, json!([7]), "always", 7, 2),
        (&with, json!([BOS]), "always", BOS, 2),
        (&without, json!([7]), "auto", 7, 1),
        (&without, json!([7]), "none", 7, 1),
    ] {
        let result = ask(server, only(context.clone(), bos)).await.results.remove(0);
        assert_eq!(result.logprobs, Some(vec![logprob(last, 5)]), "{context} {bos}");
        assert_eq!(result.cached_tokens + 1, length, "{context} {bos}");
        assert_eq!(result.tokens, 1);
    }
    let bos_as_target = ask(&with, json!({"queries": [{"target": [BOS, 5]}], "detail": "tokens"})).await;
    assert_eq!(bos_as_target.results[0].logprobs, Some(vec![logprob(BOS, BOS), logprob(BOS, 5)]));
}

#[tokio::test]
async fn the_longest_sequence_is_scored_whole() {
    let server = Server::start().await;
    let target = vec![3_u32; MAX_LENGTH - 1];
    let answer = ask(&server, json!({"queries": [{"target": target}], "detail": "tokens"})).await;
    assert_eq!(answer.results[0].token_ids.as_ref(), Some(&target));
    assert_eq!(answer.results[0].offsets, None, "token ids have no text");
}

#[tokio::test]
async fn content_types_may_have_parameters_and_models_may_be_named() {
    let server = Server::start().await;
    let body = json!({"model": "letters", "queries": [{"target": "a"}]}).to_string();
    for content_type in ["application/json; charset=utf-8", "Application/JSON", "application/json"] {
        assert_eq!(server.post_as(content_type, "/logprobs", body.as_str()).await.status, 200);
    }
}

#[tokio::test]
async fn the_model_and_its_tokenizer_are_described() {
    let server = Server::start().await;
    let models: ModelList = serde_json::from_str(&server.get("/v1/models").await.text).unwrap();
    assert_eq!((models.object.as_str(), models.data.len()), ("list", 1));
    let model = &models.data[0];
    assert_eq!((model.id.as_str(), model.object.as_str(), model.owned_by.as_str()), ("letters", "model", "surprisal"));
    assert_eq!((model.max_model_len, model.vocab_size), (MAX_LENGTH, VOCABULARY));
    assert_eq!(model.fingerprint, "letters-1");
    assert!(model.created > 1_700_000_000);

    let tokens = async |request| server.post("/tokenize", &request).await.json();
    let expected = json!({"tokens": [BOS, 104, 105], "count": 3, "max_model_len": MAX_LENGTH});
    assert_eq!(tokens(json!({"prompt": "hi"})).await, expected);
    assert_eq!(tokens(json!({"prompt": "hi", "add_special_tokens": false})).await["tokens"], json!([104, 105]));
    let text = server.post("/detokenize", &json!({"tokens": [104, 105]})).await;
    assert_eq!(text.json(), json!({"prompt": "hi"}));

    let info = server.get("/tokenizer_info").await.json();
    assert_eq!(
        (&info["bos_token"], &info["bos_token_id"], &info["eos_token"]),
        (&json!("<s>"), &json!(BOS), &Value::Null)
    );
    assert_eq!((&info["vocab_size"], &info["model_max_length"]), (&json!(VOCABULARY), &json!(MAX_LENGTH)));

    for path in ["/health", "/ready"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}
