//! An experiment that runs in shards, as under a cluster scheduler.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Serving, metric, run, stderr};

fn experiment(folder: &Path, url: &str, documents: usize) -> String {
    let file = folder.join(format!("experiment-{documents}.toml"));
    let text = format!(
        "seed = 3\n[model]\nurl = \"{url}\"\n\
         [corpus]\nkind = \"santa-fe\"\ndocuments = {documents}\nsymbols = 128\nexponent = 1.3\ndoubt = 1e-6\n\
         [measure]\nsplits = [2, 4, 8, 16, 32, 64]\nratios = [2, 3]\nwindow = 256\nadditivity = [8, 64]\nresamples = 10\n"
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn merged_shards_are_bit_identical_to_a_whole_run() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path());
    let file = experiment(dir.path(), &serving.url, 30);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let estimate = |out: &str| {
        let output = run(dir.path(), &["estimate", &file, "--out", &path(out), "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let want = estimate("whole");
    let checks = want["consistency"].as_array().unwrap();
    assert_eq!(checks.iter().filter(|check| check["test"] == "additivity").count(), 2, "{checks:?}");
    let whole = metric(&serving.url, "surprisal_scored_tokens_total");
    for part in 1..=4 {
        let out = path(&format!("part-{part}"));
        let output = run(dir.path(), &["estimate", &file, "--out", &out, "--shard", &format!("{part}/4")]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(!Path::new(&out).join("report.html").exists());
    }
    let asked = metric(&serving.url, "surprisal_scored_tokens_total");
    assert_eq!(asked, 2.0 * whole, "each shard scores its own queries");

    let parts: Vec<String> = (1..=4).map(|part| path(&format!("part-{part}"))).collect();
    let merge = |from: &[&str], out: &str| {
        let out = path(out);
        run(dir.path(), &[&["merge", "--out", &out][..], from].concat())
    };
    let three = merge(&[&parts[0], &parts[1], &parts[3]], "three");
    assert_eq!(three.status.code(), Some(1));
    assert!(stderr(&three).contains("queries are answered; missing:"), "{}", stderr(&three));
    let all: Vec<&str> = parts.iter().map(String::as_str).collect();
    let merged = merge(&all, "all");
    assert!(merged.status.success(), "{}", stderr(&merged));
    assert_eq!(estimate("all"), want);
    assert_eq!(metric(&serving.url, "surprisal_scored_tokens_total"), asked, "nothing is scored again");

    // A shard of another experiment, a damaged answer file, and a folder without answers.
    let other = experiment(dir.path(), &serving.url, 10);
    assert!(run(dir.path(), &["estimate", &other, "--out", &path("other"), "--shard", "1/1"]).status.success());
    let mixed = merge(&[&parts[0], &path("other")], "mixed");
    assert!(stderr(&mixed).contains("a different model, plan or set of documents"), "{}", stderr(&mixed));
    let shard = shards(Path::new(&parts[2])).remove(0);
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    let damaged = merge(&all, "damaged");
    assert!(stderr(&damaged).contains(shard.to_str().unwrap()), "{}", stderr(&damaged));
    std::fs::create_dir(path("nothing")).unwrap();
    assert!(stderr(&merge(&[&path("nothing")], "none")).contains("no answers in this folder"));
}

fn shards(out: &Path) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    files.sort();
    files
}
