//! The requests that the tests of vLLM's OpenAI server send to routes that this server has too.
//!
//! `vllm_requests.json` lists them by test, with the status of vLLM's response. This server answers each request that vLLM
//! answers, except for the features that `docs/src/api.md` lists as unsupported, and rejects the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use surprisal_server::{ApiKeys, ServerConfig};

use crate::support::{BOS, LetterScorer, Reply, Server};

/// The maximum length of a sequence in most of vLLM's tests.
const VLLM_MAX_LENGTH: usize = 8192;

/// The problems of unsupported features: a field's value, an unknown field, and the name of a LoRA adapter.
const UNSUPPORTED_PROBLEMS: [&str; 3] = ["not-offered", "invalid-field", "model-not-found"];

/// The requests of some of vLLM's tests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    /// Files in vLLM's `tests` folder, for readers.
    #[serde(rename = "test")]
    _test: String,
    /// Path of the POST requests.
    #[serde(default)]
    post: String,
    #[serde(default)]
    requests: Vec<Request>,
    /// Paths of GET requests with status 200.
    #[serde(default)]
    get: Vec<String>,
}

/// A POST request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// The status of vLLM's response.
    vllm: u16,
    body: Value,
    /// Number of times that the prompt is repeated, for prompts too long for a file.
    repeat_prompt: Option<usize>,
    content_type: Option<String>,
    /// Features of this request that this server does not support.
    #[serde(default)]
    unsupported: Vec<String>,
    /// The reason why this server accepts a request that vLLM rejects.
    accepted: Option<String>,
}

fn groups() -> Vec<Group> {
    serde_json::from_str(include_str!("vllm_requests.json")).unwrap()
}

/// Returns the fields of each unsupported feature, from the table in the API reference.
fn unsupported_features() -> BTreeMap<String, BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/api.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, section) = page.split_once("\n## Unsupported features of vLLM\n").unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let mut features = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [feature, fields, reason] = cells[..] else { panic!("{row} has {} cells", cells.len()) };
        assert!(!reason.is_empty(), "{row} has no reason");
        let fields = fields.split(", ").map(|field| field.trim_matches('`').to_owned()).collect();
        features.insert(feature.to_owned(), fields);
    }
    features
}

/// Checks a response. Returns the expectation that it does not meet, if any.
fn unmet(request: &Request, reply: &Reply, features: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let is_rejected = (400..500).contains(&reply.status);
    if !request.unsupported.is_empty() {
        let is_listed = |field| request.unsupported.iter().any(|feature| features[feature].contains(field));
        let is_named = is_rejected && {
            let (_, name, problem) = reply.problem();
            let field = problem["field"].as_str().unwrap_or_default();
            UNSUPPORTED_PROBLEMS.contains(&name.as_str()) && is_listed(field.split(['.', '[']).next().unwrap())
        };
        return (!is_named).then(|| format!("a problem that names a field of {:?}", request.unsupported));
    }
    if request.vllm != 200 && request.accepted.is_none() {
        return (!is_rejected).then(|| "a status from 400 to 499".to_owned());
    }
    let is_streamed = request.body["stream"] == true;
    let is_whole = !is_streamed || (reply.text.ends_with("data: [DONE]\n\n") && !reply.text.contains("\"error\""));
    (reply.status != 200 || !is_whole).then(|| "status 200 and a whole response".to_owned())
}

/// Returns the start of a text, for messages.
fn start(text: &str) -> String {
    text.chars().take(300).collect()
}

#[tokio::test]
async fn the_requests_of_vllms_tests_have_vllms_status_except_for_unsupported_features() {
    let scorer = Arc::new(LetterScorer::with_max_length(VLLM_MAX_LENGTH));
    let server = Server::with_scorer(scorer, ServerConfig::default(), Some(BOS), ApiKeys::default()).await;
    let features = unsupported_features();
    let (mut count, mut faults) = (0, Vec::new());
    for group in groups() {
        for path in &group.get {
            let reply = server.get(path).await;
            if reply.status != 200 {
                faults.push(format!("GET {path}: got {}", reply.status));
            }
        }
        for mut request in group.requests {
            if let Some(times) = request.repeat_prompt {
                request.body["prompt"] = request.body["prompt"].as_str().unwrap().repeat(times).into();
            }
            let content_type = request.content_type.as_deref().unwrap_or("application/json");
            let reply = server.post_as(content_type, &group.post, request.body.to_string()).await;
            count += 1;
            if let Some(expected) = unmet(&request, &reply, &features) {
                let (body, text) = (start(&request.body.to_string()), start(&reply.text));
                faults.push(format!("{}: {body}\n  expected {expected}, got {} {text}", group.post, reply.status));
            }
        }
    }
    assert!(faults.is_empty(), "{} of {count} requests:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_unsupported_feature_is_in_a_request() {
    let listed: BTreeSet<String> = unsupported_features().into_keys().collect();
    let requests = groups().into_iter().flat_map(|group| group.requests);
    let sent: BTreeSet<String> = requests.flat_map(|request| request.unsupported).collect();
    assert_eq!(listed, sent);
}
