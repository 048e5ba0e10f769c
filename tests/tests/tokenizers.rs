//! Tokenization, tested with a trained tokenizer of each kind: against the tokenizers library, and through a server.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use surprisal_engine::SchedulerConfig;
use surprisal_model::{TextTokenizer, Vocabulary};
use surprisal_server::ServerConfig;
use surprisal_tests::server::TestServer;
use surprisal_tests::tiny::TinyLlama;
use surprisal_tests::trained::{self, Trained};
use tokenizers::Tokenizer;

/// Number of random texts for each tokenizer, in comparisons with the library.
const TEXTS: usize = 5000;

/// Number of random texts for each tokenizer, in requests to a server.
const REQUEST_TEXTS: usize = 500;

/// Pieces of random texts: words, spaces, emoji, Chinese, Japanese, combining marks, control characters, line ends.
const PARTS: [&str; 36] = [
    "It",
    "was",
    " was",
    "un",
    "believable",
    " believable",
    "believ",
    "able",
    "the",
    " the",
    "a",
    "Z",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\u{1}",
    "\u{7f}",
    "\u{a0}",
    "\u{3000}",
    ".",
    ", ",
    "1",
    "23",
    "456",
    "e\u{301}",
    "\u{301}",
    "é",
    "東京",
    "今日は",
    "我们",
    "😀",
    "👍🏽",
    "\u{fffd}",
    "\u{2581}",
];

fn random_text(rng: &mut ChaCha8Rng, parts: usize) -> String {
    let count = rng.random_range(0..=parts);
    (0..count).map(|_| PARTS[rng.random_range(0..PARTS.len())]).collect()
}

fn open(dir: &Path, trained: &Trained) -> TextTokenizer {
    std::fs::write(dir.join("tokenizer.json"), trained.json.to_string()).unwrap();
    TextTokenizer::open(dir, Vocabulary { size: 2 * trained::VOCABULARY, bos: None, eos: None }).unwrap()
}

/// Serves a random model with a trained tokenizer.
async fn serve(dir: &Path, trained: &Trained) -> TestServer {
    let model = TinyLlama { vocab: 1200, layers: 1, max_positions: 1024, ..TinyLlama::default() };
    model.write(dir, 1);
    std::fs::write(dir.join("tokenizer_config.json"), "{}").unwrap();
    std::fs::write(dir.join("tokenizer.json"), trained.json.to_string()).unwrap();
    TestServer::start(dir, SchedulerConfig::default(), ServerConfig::default()).await
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn tokens_and_special_tokens_are_those_of_the_library() {
    for trained in trained::all() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = open(dir.path(), &trained);
        let library = Tokenizer::from_bytes(trained.json.to_string()).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..TEXTS {
            let text = random_text(&mut rng, 12);
            let tokens = tokenizer.encode(&text).unwrap();
            let all = [tokenizer.prefix(), &tokens, tokenizer.suffix()].concat();
            assert_eq!(all, library.encode(text.as_str(), true).unwrap().get_ids(), "{}: {text:?}", trained.name);
        }
    }
}

/// The bytes of the tokens are the text, up to the space that the tokenizer adds.
#[test]
fn pieces_join_to_the_text() {
    for trained in trained::all().iter().filter(|trained| trained.is_lossless) {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = open(dir.path(), trained);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..TEXTS {
            let text = random_text(&mut rng, 12).replace('\u{2581}', "");
            let tokens = tokenizer.encode(&text).unwrap();
            let bytes: Vec<u8> = tokens.iter().flat_map(|&token| tokenizer.piece(token).bytes).collect();
            let bytes = if bytes == text.as_bytes() { &bytes } else { bytes.strip_prefix(b" ").unwrap_or(&bytes) };
            assert_eq!(String::from_utf8_lossy(bytes), text, "{}", trained.name);
        }
    }
}

/// If the tokens of a whole text have a boundary where its second part begins, they end with the tokens of that part.
#[test]
fn continuations_have_the_tokens_of_the_joint_text() {
    for trained in trained::all().iter().filter(|trained| trained.is_lossless) {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = open(dir.path(), trained);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut compared = 0;
        for _ in 0..TEXTS {
            let text = |rng: &mut ChaCha8Rng| format!("{}{}", PARTS[rng.random_range(0..12)], random_text(rng, 4));
            let [context, target] = [text(&mut rng), text(&mut rng)].map(|text| text.replace('\u{2581}', ""));
            let (continuation, offsets) = tokenizer.encode_continuation(None, &target).unwrap();
            assert_eq!(continuation.len(), offsets.len());
            let joint = tokenizer.encode(&format!("{context}{target}")).unwrap();
            let bytes = |tokens: &[u32]| tokens.iter().map(|&token| tokenizer.piece(token).bytes.len()).sum::<usize>();
            assert_eq!(bytes(&continuation), target.len(), "{}: {target:?}", trained.name);
            let split = (0..joint.len()).find(|&at| bytes(&joint[at..]) == target.len());
            if let Some(split) = split {
                assert_eq!(joint[split..], continuation, "{}: {context:?} {target:?}", trained.name);
                compared += 1;
            }
        }
        assert!(compared > TEXTS / 4, "{}: only {compared} texts have a boundary", trained.name);
    }
}

/// lm-evaluation-harness asks for no special tokens, and tokenizes the name of a special token to learn its id.
#[tokio::test(flavor = "multi_thread")]
async fn the_harness_gets_the_tokens_of_the_library() {
    for trained in trained::all() {
        let dir = tempfile::tempdir().unwrap();
        let server = serve(dir.path(), &trained).await;
        let library = Tokenizer::from_bytes(trained.json.to_string()).unwrap();
        let tokens = async |path: &str, text: &str| {
            let body = json!({"prompt": text, "add_special_tokens": false});
            let (status, answer) = server.post(path, &body).await;
            assert_eq!(status, 200, "{answer}");
            serde_json::from_value::<Vec<u32>>(answer["tokens"].clone()).unwrap()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        for _ in 0..REQUEST_TEXTS / 10 {
            let text = random_text(&mut rng, 8);
            let [plain, all] = [false, true].map(|special| library.encode(text.as_str(), special).unwrap());
            assert_eq!(tokens("/tokenize", &text).await, plain.get_ids(), "{}: {text:?}", trained.name);
            assert_eq!(tokens("/lm-eval/tokenize", &text).await, all.get_ids(), "{}: {text:?}", trained.name);
        }
        for name in ["<s>", "</s>"] {
            let id = library.token_to_id(name).unwrap();
            assert_eq!(tokens("/lm-eval/tokenize", name).await, [id], "{}: {name}", trained.name);
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn echoed_tokens_join_to_the_prompt() {
    for trained in trained::all() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = open(dir.path(), &trained);
        let server = serve(dir.path(), &trained).await;
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let prompts: Vec<String> = (0..REQUEST_TEXTS).map(|_| format!("{}a", random_text(&mut rng, 8))).collect();
        let body = json!({"prompt": prompts, "echo": true, "logprobs": 2, "max_tokens": 0});
        let (status, answer) = server.post("/v1/completions", &body).await;
        assert_eq!(status, 200, "{answer}");
        for (prompt, choice) in prompts.iter().zip(answer["choices"].as_array().unwrap()) {
            let (logprobs, name) = (&choice["logprobs"], trained.name);
            let texts = strings(&logprobs["tokens"]);
            let special = tokenizer.prefix().len()..texts.len() - tokenizer.suffix().len();
            assert_eq!(texts[special].concat(), *prompt, "{name}: {texts:?}");
            let offsets = logprobs["text_offset"].as_array().unwrap();
            let mut chars = 0;
            for (text, offset) in texts.iter().zip(offsets) {
                assert_eq!(*offset, chars, "{name}: {prompt:?}");
                chars += text.chars().count();
            }
            for (text, top) in texts.iter().zip(logprobs["top_logprobs"].as_array().unwrap()).skip(1) {
                let top = top.as_object().unwrap();
                assert!(top.contains_key(*text) && (2..=3).contains(&top.len()), "{name}: {text:?} {top:?}");
            }
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_logprobs_join_to_the_target() {
    for trained in trained::all() {
        let dir = tempfile::tempdir().unwrap();
        let server = serve(dir.path(), &trained).await;
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut queries = Vec::new();
        for _ in 0..REQUEST_TEXTS {
            let (context, target) = (random_text(&mut rng, 4), random_text(&mut rng, 6));
            queries.push(json!({"context": format!("It{context}"), "target": format!("{target}a")}));
        }
        for boundary in ["separate", "joint"] {
            let body = json!({
                "queries": queries, "boundary": boundary, "detail": "tokens", "top": 2, "offset_unit": "chars",
            });
            let answer = server.logprobs(&body).await;
            for (query, result) in queries.iter().zip(answer["results"].as_array().unwrap()) {
                let (context, target) = (query["context"].as_str().unwrap(), query["target"].as_str().unwrap());
                let overlap = result["overlap"].as_u64().unwrap_or(0) as usize;
                let length = context.chars().count();
                let tail: String = context.chars().skip(length - overlap).collect();
                let texts = strings(&result["texts"]);
                assert_eq!(texts.concat(), format!("{tail}{target}"), "{}: {query} {result}", trained.name);
                let end = result["offsets"].as_array().unwrap().last().unwrap()[1].as_u64().unwrap() as usize;
                assert_eq!(end, target.chars().count(), "{}: {query} {result}", trained.name);
                assert_eq!(result["top_texts"].as_array().unwrap().len(), texts.len());
            }
        }
        server.stop().await;
    }
}

/// After a special token within a context, a target has the tokens of the joint text.
#[test]
fn a_text_after_a_special_token_has_the_tokens_of_the_joint_text() {
    for trained in trained::all() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = open(dir.path(), &trained);
        let eos = tokenizer.encode("</s>").unwrap();
        for target in ["believable", " believable", "\nIt was", "東京"] {
            let joint = tokenizer.encode(&format!("un</s>{target}")).unwrap();
            let split = joint.iter().position(|token| [*token] == *eos).unwrap() + 1;
            let (tokens, _) = tokenizer.encode_continuation(Some(eos[0]), target).unwrap();
            assert_eq!(tokens, joint[split..], "{}: {target:?}", trained.name);
        }
    }
}

/// The split of the joint encoding gives the tokens of the whole text.
#[tokio::test(flavor = "multi_thread")]
async fn a_joint_boundary_keeps_the_tokens_of_the_whole_text() {
    for trained in trained::all() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = open(dir.path(), &trained);
        let server = serve(dir.path(), &trained).await;
        for (context, target) in
            [("7 7 un", "believable"), ("7 7 un", " believable"), ("7 7 un ", "believable"), ("7 7 was", " un")]
        {
            let query = json!({"context": context, "target": target});
            let body = json!({"queries": [query], "boundary": "joint", "detail": "tokens"});
            let answer = server.logprobs(&body).await;
            let result = &answer["results"][0];
            let tokens: Vec<u32> = serde_json::from_value(result["token_ids"].clone()).unwrap();
            let joint = tokenizer.encode(&format!("{context}{target}")).unwrap();
            assert!(joint.ends_with(&tokens), "{}: {joint:?} {tokens:?}", trained.name);
            let overlap = result["overlap"].as_u64().unwrap() as usize;
            let texts = strings(&result["texts"]).concat();
            assert_eq!(texts, format!("{}{target}", &context[context.len() - overlap..]), "{}", trained.name);
        }
        let (status, problem) =
            server.post("/logprobs", &json!({"contexts": ["a"], "targets": ["b"], "boundary": "joint"})).await;
        assert_eq!((status.as_u16(), &problem["field"]), (400, &json!("boundary")));
        let (status, problem) =
            server.post("/logprobs", &json!({"queries": [{"context": [1], "target": "b"}], "boundary": "joint"})).await;
        assert_eq!((status.as_u16(), &problem["field"]), (400, &json!("queries[0].context")));
        server.stop().await;
    }
}

/// A word that follows a context without a space has no space, although the tokenizer marks the beginning of texts.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_has_the_tokens_that_follow_its_context() {
    for trained in trained::all() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = open(dir.path(), &trained);
        let server = serve(dir.path(), &trained).await;
        let bos = tokenizer.prefix();
        let body = json!({
            "contexts": ["un", "", bos], "targets": ["believable"], "detail": "tokens", "texts": "bytes",
            "pairs": if bos.is_empty() { json!([[0, 0]]) } else { json!([[0, 0], [1, 0], [2, 0]]) },
        });
        let answer = server.logprobs(&body).await;
        let results = answer["results"].as_array().unwrap();
        let bytes: Vec<Vec<u8>> = serde_json::from_value(results[0]["bytes"].clone()).unwrap();
        assert_eq!(bytes.concat(), b"believable", "{}", trained.name);
        for result in &results[1..] {
            assert_eq!(result["token_ids"], json!(tokenizer.encode("believable").unwrap()), "{}", trained.name);
        }
        server.stop().await;
    }
}
