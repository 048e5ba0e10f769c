//! The estimator's sources of log-probabilities: servers with other APIs, and several servers of the same model.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use support::{Serving, metric, run, stderr, surprisal};
use surprisal_tests::tiny::{TinyLlama, add_no_bos};

/// The BOS of the served model, as a line of an experiment file.
const BOS: &str = "bos = 256";

fn experiment(folder: &Path, name: &str, model: &str, documents: usize) -> String {
    let measure = "splits = [2, 4, 8, 16, 32]\nratios = [2, 3]\nwindow = 128\nresamples = 10\npairing = \"crossed\"\n";
    measuring(folder, name, model, documents, measure)
}

fn measuring(folder: &Path, name: &str, model: &str, documents: usize, measure: &str) -> String {
    let file = folder.join(format!("{name}.toml"));
    let text = format!(
        "seed = 3\n[model]\n{model}\n\
         [corpus]\nkind = \"santa-fe\"\ndocuments = {documents}\nsymbols = 128\nexponent = 1.3\ndoubt = 1e-6\n\
         [measure]\n{measure}"
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Runs an experiment and returns its report, without the model's fingerprint, which only surprisal's own API reports.
fn estimate(folder: &Path, file: &str, out: &str) -> Value {
    let out = folder.join(out);
    let output = run(folder, &["estimate", file, "--out", out.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report.as_object_mut().unwrap().remove("fingerprint");
    report
}

/// All APIs return the same log-probabilities of a prompt.
#[test]
fn every_api_gives_the_same_estimate() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path());
    let url = format!("url = \"{}\"", serving.url);
    let own = estimate(dir.path(), &experiment(dir.path(), "own", &url, 12), "own");
    assert!(own["rows"].as_array().unwrap().len() == 10);
    for api in ["openai", "vllm", "sglang"] {
        let model = format!("{url}\napi = \"{api}\"\nname = \"oracle\"\n{BOS}");
        assert_eq!(estimate(dir.path(), &experiment(dir.path(), api, &model, 12), api)["rows"], own["rows"], "{api}");
    }
}

#[test]
fn missing_and_invalid_model_settings_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path());
    let url = format!("url = \"{}\"", serving.url);
    for (model, code, hint) in [
        (format!("{url}\napi = \"vllm\""), 1, "set bos to the id"),
        (format!("{url}\napi = \"openai\"\nname = \"another\"\n{BOS}"), 1, "unknown model `another`"),
        (format!("{url}\nbos = 255"), 1, "model.bos is 255; it must be 256"),
        (format!("{url}\napi = \"cohere\""), 2, "cohere"),
        (format!("{url}\napi_key_env = \"NO_SUCH_VARIABLE\""), 1, "NO_SUCH_VARIABLE"),
        ("routing = \"affinity\"".to_owned(), 2, "model.url"),
        ("url = \"http://127.0.0.1:1\"".to_owned(), 1, "http://127.0.0.1:1"),
    ] {
        let file = experiment(dir.path(), "wrong", &model, 4);
        let output = run(dir.path(), &["estimate", &file, "--out", dir.path().join("wrong").to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(code), "{model}: {}", stderr(&output));
        assert!(stderr(&output).contains(hint), "{model}: {}", stderr(&output));
    }
}

/// If a model's tokenizer adds no BOS, the experiment's BOS is used. The result is the same as with a tokenizer that
/// adds BOS.
#[test]
fn a_model_without_bos_gets_the_experiments_bos() {
    let dir = tempfile::tempdir().unwrap();
    let serve = |name: &str, adds: bool| {
        let model = dir.path().join(name);
        std::fs::create_dir(&model).unwrap();
        TinyLlama { layers: 1, ..TinyLlama::default() }.write(&model, 1);
        if !adds {
            add_no_bos(&model);
        }
        Serving::with(dir.path(), &[("SURPRISAL_MODEL", model.to_str().unwrap())])
    };
    let (adding, silent) = (serve("adding", true), serve("silent", false));
    let file = |name: &str, server: &Serving, bos: &str| {
        experiment(dir.path(), name, &format!("url = \"{}\"\n{bos}", server.url), 6)
    };
    let out = dir.path().join("missing");
    let missing = run(dir.path(), &["estimate", &file("missing", &silent, ""), "--out", out.to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(1));
    let stderr_text = stderr(&missing);
    assert!(stderr_text.contains("model.bos is missing") && stderr_text.contains("<|endoftext|>"), "{stderr_text}");
    assert!(!out.exists(), "nothing was written");

    let own = estimate(dir.path(), &file("own", &adding, ""), "own");
    for (name, server) in [("given", &silent), ("same", &adding)] {
        assert_eq!(estimate(dir.path(), &file(name, server, "bos = 0"), name)["rows"], own["rows"], "{name}");
    }
}

fn urls(servers: &[Serving], routing: &str) -> String {
    let urls: Vec<String> = servers.iter().map(|server| format!("{:?}", server.url)).collect();
    format!("urls = [{}]\nrouting = \"{routing}\"", urls.join(", "))
}

fn three(folder: &Path) -> Vec<Serving> {
    (0..3).map(|_| Serving::start(folder)).collect()
}

/// One of three servers is killed during the run. The estimate is bit-identical to one from a single server, and
/// nothing is lost.
#[test]
fn a_killed_server_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let alone = Serving::start(dir.path());
    let want = estimate(dir.path(), &experiment(dir.path(), "one", &format!("url = \"{}\"", alone.url), 60), "one");
    for routing in ["affinity", "round-robin"] {
        let mut servers = three(dir.path());
        let file = experiment(dir.path(), routing, &urls(&servers, routing), 60);
        let mut command = surprisal(dir.path());
        let out = dir.path().join(routing);
        command.args(["estimate", &file, "--out", out.to_str().unwrap(), "--json"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while metric(&servers[1].url, "surprisal_scored_tokens_total") == 0.0 {
            sleep(Duration::from_millis(1));
        }
        servers[1].child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let mut got: Value = serde_json::from_slice(&output.stdout).unwrap();
        got.as_object_mut().unwrap().remove("fingerprint");
        assert_eq!(got, want, "{routing}");
        let done: f64 = [0, 2].iter().map(|&at| metric(&servers[at].url, "surprisal_scored_tokens_total")).sum();
        let whole = metric(&alone.url, "surprisal_scored_tokens_total");
        assert!(done <= whole && done > whole / 2.0, "{routing}: {done} of {whole}");
        assert!(stderr(&output).contains("another server") || done < whole, "{}", stderr(&output));
    }
}

/// With affinity, one server computes each prefix; with round-robin, several do.
#[test]
fn affinity_computes_less_than_round_robin() {
    let dir = tempfile::tempdir().unwrap();
    let computed = |routing: &str| {
        let servers = three(dir.path());
        let measure = "splits = [16, 32, 64]\nratios = [2, 3, 4]\nwindow = 256\nresamples = 10\n";
        let ask = |documents| {
            let name = format!("{routing}-{documents}");
            let file = measuring(dir.path(), &name, &urls(&servers, routing), documents, measure);
            estimate(dir.path(), &file, &name)
        };
        // A larger experiment repeats many queries of the smaller one, in different batches.
        let report = [ask(24), ask(30)];
        let sum = |name: &str| servers.iter().map(|server| metric(&server.url, name)).sum::<f64>();
        let shares: Vec<f64> =
            servers.iter().map(|server| metric(&server.url, "surprisal_scored_tokens_total")).collect();
        assert!(shares.iter().all(|&share| share > 0.1 * shares.iter().sum::<f64>()), "{routing}: {shares:?}");
        (sum("surprisal_computed_tokens_total"), report)
    };
    let ((affinity, one), (turns, other)) = (computed("affinity"), computed("round-robin"));
    assert_eq!(one, other);
    println!("computed tokens: {affinity} with affinity, {turns} with round-robin");
    assert!(affinity < turns, "{affinity} {turns}");
}

/// A pair in the L2M paper's protocol needs a quarter of the tokens that the paper's scripts process, as counted by the
/// server.
#[test]
fn a_pair_in_the_l2m_papers_protocol_needs_at_most_10_300_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let shape = TinyLlama {
        hidden: 32,
        intermediate: 32,
        layers: 1,
        heads: 1,
        kv_heads: 1,
        max_positions: 2049,
        ..TinyLlama::default()
    };
    shape.write(&model, 1);
    let serving = Serving::with(dir.path(), &[("SURPRISAL_MODEL", model.to_str().unwrap())]);
    let measure = "splits = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]\nratios = [2, 3, 4]\nwindow = 2048\nresamples = 0\n\
                   pairing = \"crossed\"\n";
    let pairs = 8;
    let file = measuring(dir.path(), "paper", &format!("url = \"{}\"", serving.url), pairs, measure);
    estimate(dir.path(), &file, "paper");
    let computed = metric(&serving.url, "surprisal_computed_tokens_total") / pairs as f64;
    println!("{computed} tokens computed per pair");
    assert!(computed <= 10_300.0, "{computed}");
}

#[test]
fn servers_of_different_models_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let servers = [Serving::start(dir.path()), Serving::with(dir.path(), &[("SURPRISAL_DTYPE", "int8")])];
    let output = run(dir.path(), &["estimate", &experiment(dir.path(), "two", &urls(&servers, "affinity"), 4)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("must serve the same model"), "{}", stderr(&output));
}
