//! `surprisal serve` and `surprisal score`: a server starts, responds and stops.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use surprisal_tests::tiny::{TinyLlama, add_no_bos};

use crate::support::{Serving, run, stderr, surprisal};

#[test]
fn a_served_oracle_is_scored_and_estimated_and_stops_on_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(dir.path());

    let scored = run(dir.path(), &["score", "--url", &serving.url, "--context", "baba+", "baba+ baba-", "--json"]);
    assert!(scored.status.success(), "{}", stderr(&scored));
    let answer: Value = serde_json::from_slice(&scored.stdout).unwrap();
    let logprobs = answer["results"][0]["logprobs"].as_array().unwrap();
    // The context reveals the symbol's sign: that sign has the symbol's whole probability, and the other sign a
    // millionth of it.
    let gap = logprobs[0].as_f64().unwrap() - logprobs[1].as_f64().unwrap();
    assert!((gap - 1e6f64.ln()).abs() < 1e-4, "{answer}");
    let plain = run(dir.path(), &["score", "--url", &serving.url, "baba+ baba-"]);
    assert!(String::from_utf8_lossy(&plain.stdout).contains("nats in total, 2 tokens"));

    let text = dir.path().join("text.txt");
    std::fs::write(&text, "baba+ tuve- baba+ baba+ ".repeat(40)).unwrap();
    let out = dir.path().join("report");
    let common = ["estimate", text.to_str().unwrap(), "--url", &serving.url, "--windows", "6", "--splits", "2,4,8"];
    let estimated = run(dir.path(), &[&common[..], &["--out", out.to_str().unwrap(), "--json"]].concat());
    assert!(estimated.status.success(), "{}", stderr(&estimated));
    let report: Value = serde_json::from_slice(&estimated.stdout).unwrap();
    assert_eq!(report["rows"].as_array().unwrap().len(), 3);
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().contains("<svg"));
    let explained = run(dir.path(), &[&common[..], &["--explain"]].concat());
    assert!(String::from_utf8_lossy(&explained.stdout).contains("queries"));

    let ratios = run(
        dir.path(),
        &[&common[..], &["--ratios", "2,3", "--bits", "--json", "--out"], &[out.to_str().unwrap()]].concat(),
    );
    let report: Value = serde_json::from_slice(&ratios.stdout).unwrap();
    assert_eq!((report["rows"].as_array().unwrap().len(), &report["unit"]), (6, &"bits".into()));
    assert!(out.join("bipartite-3.svg").is_file() && out.join("bipartite.csv").is_file());

    assert!(Command::new("kill").arg(serving.child.id().to_string()).status().unwrap().success());
    assert!(serving.child.wait().unwrap().success(), "SIGTERM causes a clean exit");
}

#[test]
fn a_second_signal_stops_a_server_that_waits_for_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(dir.path());
    let address = serving.url.strip_prefix("http://").unwrap().to_owned();
    let mut asking = TcpStream::connect(&address).unwrap();
    asking
        .write_all(
            b"POST /tokenize HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
        )
        .unwrap();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let until = |path: &str, said: &str| {
        while !get(path).contains(said) {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    until("/metrics", "surprisal_admitted_requests 1");
    let kill = || assert!(Command::new("kill").arg(serving.child.id().to_string()).status().unwrap().success());
    kill();
    until("/ready", "503");
    kill();
    assert!(serving.child.wait().unwrap().success());
    assert_eq!(asking.read(&mut [0; 1]).unwrap_or(0), 0, "the request is dropped, not answered");
}

/// A model without BOS needs a non-empty context; the example request that the server prints has one.
#[test]
fn the_example_request_works_without_bos() {
    let dir = tempfile::tempdir().unwrap();
    TinyLlama::default().write(dir.path(), 1);
    add_no_bos(dir.path());
    let mut command = surprisal(dir.path());
    command.args(["serve", "--port", "0", "--cache-mib", "64", "--model", dir.path().to_str().unwrap()]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let tried = lines.find_map(|line| line.strip_prefix("try: ").map(str::to_owned)).unwrap();
    let answer = Command::new("sh").args(["-c", &tried]).output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["results"][0]["tokens"], 3, "{tried}: {answer}");
}

/// On 2, 4 or 8 ranks, the scores are bit-identical to those on one rank. On other numbers of ranks, the fingerprint
/// differs.
#[test]
fn a_model_is_served_by_several_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let score = |size: &str| {
        let serving = Serving::with(dir.path(), &[("SURPRISAL_TENSOR_PARALLEL_SIZE", size)]);
        let output = run(dir.path(), &["score", "baba+ tuve- baba+ tuve+", "--url", &serving.url, "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let logprobs = answer["results"][0]["logprobs"].as_array().unwrap().clone();
        let fingerprint = answer["fingerprint"].as_str().unwrap().to_owned();
        (logprobs.iter().map(|logprob| logprob.as_f64().unwrap()).collect::<Vec<_>>(), fingerprint)
    };
    let (one, whole) = score("1");
    assert_eq!((one.len(), score("2")), (4, (one.clone(), whole.clone())));
    let (three, divided) = score("3");
    assert!(one.iter().zip(&three).all(|(one, three)| (one - three).abs() < 1e-4), "{one:?} {three:?}");
    assert_eq!(divided, format!("{whole}-tp3"));
}

/// The fingerprint covers the tokenizer, and `SHA256SUMS` may list any file of the model.
#[test]
fn the_tokenizer_is_part_of_the_model() {
    let dir = tempfile::tempdir().unwrap();
    TinyLlama::default().write(dir.path(), 1);
    let mut command = surprisal(dir.path());
    command.args(["serve", "--port", "0", "--cache-mib", "64", "--model", dir.path().to_str().unwrap()]);
    // Returns the fingerprint and the log of a server that starts, or the error of one that does not.
    let mut serve = || {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut log_text = String::new();
        while !log_text.lines().any(|line| line.starts_with("serving")) {
            if said.read_line(&mut log_text).unwrap() == 0 {
                assert_eq!(child.wait().unwrap().code(), Some(1), "{log_text}");
                return Err(log_text);
            }
        }
        let url = log_text.split_whitespace().find(|word| word.starts_with("http://")).unwrap().trim_end_matches(',');
        let output = run(dir.path(), &["score", "t5 t9", "--url", url, "--json"]);
        child.kill().unwrap();
        child.wait().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        Ok((answer["fingerprint"].as_str().unwrap().to_owned(), log_text))
    };
    let (before, _) = serve().unwrap();
    let path = dir.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    tokenizer["normalizer"] = serde_json::json!({"type": "Lowercase"});
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let (after, _) = serve().unwrap();
    assert_ne!(after, before);

    let sums =
        |file: &str| std::fs::write(dir.path().join("SHA256SUMS"), format!("{}  {file}\n", "0".repeat(64))).unwrap();
    sums("tokenizer.json");
    let error = serve().unwrap_err();
    assert!(error.contains("tokenizer.json: checksum mismatch") && error.contains("SHA256SUMS"), "{error}");
    sums("gone.safetensors");
    let (same, log_text) = serve().unwrap();
    assert_eq!(same, after);
    assert!(
        log_text.contains("SHA256SUMS lists files that do not exist") && log_text.contains("gone.safetensors"),
        "{log_text}"
    );
}

/// Without a terminal, each tenth of the progress is one log line.
#[test]
fn the_progress_of_loading_a_large_model_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let shape = TinyLlama { hidden: 1024, intermediate: 6000, layers: 2, ..TinyLlama::default() };
    shape.write(dir.path(), 1);
    let mut command = surprisal(dir.path());
    command.args(["serve", "--port", "0", "--cache-mib", "64", "--model", dir.path().to_str().unwrap()]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut log_text = String::new();
    while !log_text.lines().any(|line| line.starts_with("serving")) {
        assert!(said.read_line(&mut log_text).unwrap() > 0, "{log_text}");
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    said.read_to_string(&mut log_text).unwrap();
    assert!(child.wait().unwrap().success(), "{log_text}");
    let lines = |message: &str| log_text.lines().filter(|line| line.contains(message)).count();
    assert!(
        (1..=10).contains(&lines("checking weights")) && (5..=10).contains(&lines("loading weights")),
        "{log_text}"
    );
}

/// A log reader that stops reading does not delay requests.
#[test]
fn an_unread_log_does_not_block_requests() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = surprisal(dir.path());
    command.args(["serve", "--port", "0"]).env("SURPRISAL_LOG", "debug").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.starts_with("serving")).unwrap();
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap();
    // Far more log output than a pipe holds.
    for _ in 0..2000 {
        let mut stream = TcpStream::connect(address.trim_end_matches(',')).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
