//! A killed run resumes where it stopped, and its result is bit-identical to that of an uninterrupted run.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use support::{Serving, metric, run, stderr, surprisal};
use surprisal_estimator::{Experiment, HttpOptions, Plan, PlannedQuery};

/// Returns the file and the plan of an experiment on documents sampled from a process.
fn experiment(folder: &Path, url: &str) -> (String, Plan) {
    let file = folder.join("experiment.toml");
    let text = format!(
        "seed = 3\n[model]\nurl = \"{url}\"\n\
         [corpus]\nkind = \"santa-fe\"\ndocuments = 60\nsymbols = 128\nexponent = 1.3\ndoubt = 1e-6\n\
         [measure]\nsplits = [2, 4, 8, 16, 32, 64, 128, 256]\nratios = [2, 3, 4]\nwindow = 512\nadditivity = [32, 128]\nresamples = 10\n"
    );
    std::fs::write(&file, text).unwrap();
    let experiment = Experiment::read(&file).unwrap();
    let plan = experiment.plan(experiment.documents().unwrap()).unwrap();
    (file.to_str().unwrap().to_owned(), plan)
}

/// Waits until the server is idle, because it may not have read all requests of a killed client yet. Returns the number
/// of tokens that the server has scored.
fn scored(url: &str) -> u64 {
    let mut last = None;
    loop {
        let names = ["num_requests_running", "num_requests_waiting", "admitted_tokens"];
        let idle = names.iter().all(|name| metric(url, &format!("surprisal_{name}")) == 0.0);
        let scored = metric(url, "surprisal_scored_tokens_total") as u64;
        if idle && last.replace(scored) == Some(scored) {
            return scored;
        }
        sleep(Duration::from_millis(50));
    }
}

/// Returns the answer files below a folder, each with its bytes. A file's name contains its range of queries.
fn shards(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let folders = std::fs::read_dir(out).into_iter().flatten().map(|entry| entry.unwrap().path());
    let files = folders.filter(|path| path.is_dir()).flat_map(|path| std::fs::read_dir(path).unwrap());
    files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

/// Returns the number of scored tokens in each of these answer files.
fn tokens(plan: &Plan, shards: &BTreeMap<String, Vec<u8>>) -> Vec<u64> {
    let of_shard = |name: &String| {
        let mut ends = name.split('-').take(2).map(|end| end.parse::<usize>().unwrap());
        let queries = &plan.queries()[ends.next().unwrap()..ends.next().unwrap()];
        queries.iter().map(|query: &PlannedQuery| query.target_length() as u64).sum()
    };
    shards.keys().map(of_shard).collect()
}

fn kept(plan: &Plan, out: &Path) -> u64 {
    tokens(plan, &shards(out)).iter().sum()
}

fn start(folder: &Path, file: &str, out: &Path) -> Child {
    let mut command = surprisal(folder);
    command.args(["estimate", file, "--out", out.to_str().unwrap(), "--json"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Returns the lines of a log with the estimates during a run.
fn estimates(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("estimates so far")).collect()
}

#[test]
fn a_run_killed_twenty_times_is_bit_identical_to_an_uninterrupted_one() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path());
    let (file, plan) = experiment(dir.path(), &serving.url);
    let estimate = |out: &Path| {
        let output = run(dir.path(), &["estimate", &file, "--out", out.to_str().unwrap(), "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let (calm, killed) = (dir.path().join("calm"), dir.path().join("killed"));
    let total: u64 = plan.queries().iter().map(|query: &PlannedQuery| query.target_length() as u64).sum();
    let want = estimate(&calm);
    let all = shards(&calm);
    assert_eq!(scored(&serving.url), total);
    // A batch is all requests in flight at the same time: up to this number, each of which becomes one answer file.
    let mut largest = tokens(&plan, &all);
    largest.sort_unstable_by(|a, b| b.cmp(a));
    let in_flight = HttpOptions::default().concurrency;
    let batch: u64 = largest[..in_flight].iter().sum();
    assert!(all.len() >= 3 * in_flight, "{} shards", all.len());

    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut moments: Vec<usize> = (0..20).map(|_| rng.random_range(0..all.len())).collect();
    moments.sort_unstable();
    let mut repeated = 0;
    for moment in moments {
        let (had, before) = (kept(&plan, &killed), scored(&serving.url));
        let mut child = start(dir.path(), &file, &killed);
        while shards(&killed).len() < moment && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_micros(200));
        }
        sleep(Duration::from_micros(rng.random_range(0..20_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let lost = scored(&serving.url) - before - (kept(&plan, &killed) - had);
        assert!(lost <= batch, "{lost} tokens are scored again, but a batch has at most {batch}");
        repeated += lost;
    }
    println!("{repeated} of {total} tokens were scored again after 20 kills; a batch has at most {batch}");
    let (had, before) = (kept(&plan, &killed), scored(&serving.url));
    assert_eq!(estimate(&killed), want);
    assert_eq!(scored(&serving.url) - before, total - had, "only unsaved answers are requested");
    assert!(shards(&killed) == all, "the same answer files, bit for bit");
}

#[test]
fn a_damaged_answer_file_is_scored_again() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path());
    let (file, _) = experiment(dir.path(), &serving.url);
    let out = dir.path().join("out");
    let args = ["estimate", &file, "--out", out.to_str().unwrap(), "--json"];
    let want = run(dir.path(), &args);
    assert!(!stderr(&want).contains("saved answers"), "{}", stderr(&want));
    assert!(estimates(&stderr(&want)).last().unwrap().contains("documents=60 of=60 texts=60"), "{}", stderr(&want));
    let all = shards(&out);
    let folders = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
    let folder = folders.into_iter().find(|path| path.is_dir()).unwrap();
    let (name, bytes) = all.iter().nth(7).unwrap();
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 4;
    std::fs::write(folder.join(name), damaged).unwrap();
    let before = scored(&serving.url);
    let again = run(dir.path(), &args);
    assert_eq!(again.stdout, want.stdout);
    let stderr_text = stderr(&again);
    assert!(stderr_text.contains(name) && stderr_text.contains("requesting the rest"), "{stderr_text}");
    // Some documents lack an answer at first.
    let first = estimates(&stderr_text)[0];
    assert!(first.contains("length=512") && first.contains("direct=") && first.contains(" of=60"), "{first}");
    assert!(!first.contains("documents=60"), "{first}");
    assert!(scored(&serving.url) > before && shards(&out) == all);
    let stderr_text = stderr(&run(dir.path(), &args));
    assert!(stderr_text.contains("saved answers: all of") && !stderr_text.contains("scoring"), "{stderr_text}");
    assert!(estimates(&stderr_text).is_empty(), "{stderr_text}");
}
