//! `surprisal estimate`: errors before the first request, and shards without queries.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use support::{Serving, metric, run, stderr};

#[test]
fn invalid_texts_are_rejected_before_a_plan_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("text.txt"), "one two three").unwrap();
    std::fs::write(path("empty.txt"), "").unwrap();
    std::fs::write(path("empty.jsonl"), "").unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    std::fs::write(path("folder/table.xlsx"), "1,2").unwrap();
    std::fs::write(path("table.csv"), "id,body\n1,one\n").unwrap();
    for (file, flags, hint) in [
        ("text.txt", &["--windows", "1"][..], "windows is 1; it must be at least 2 for a single text"),
        ("text.txt", &["--windows", "0"], "corpus.windows is 0; it must be at least 1"),
        ("missing.txt", &[], "missing.txt"),
        ("empty.txt", &[], "empty.txt: the file is empty"),
        ("empty.jsonl", &[], "number of texts is 0"),
        ("folder", &[], "this folder has no file to read; expected .txt"),
        ("folder", &[], "left out: 1 file (format not supported: Excel)"),
        ("folder/table.xlsx", &[], "table.xlsx: the format of this file, Excel, is not supported"),
        ("table.csv", &[], "table.csv: line 1: no column `text`; the columns are id, body"),
        ("text.txt", &["--format", "jsonl"], "text.txt: line 1: expected value at column 1"),
        ("text.txt", &["--encoding", "ascii-ish"], "corpus.encoding is ascii-ish"),
    ] {
        let output = run(dir.path(), &[&["estimate", &path(file), "--explain"][..], flags].concat());
        assert_eq!(output.status.code(), Some(1), "{file} {flags:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(hint) && output.stdout.is_empty(), "{file} {flags:?}: {}", stderr(&output));
    }
    assert!(run(dir.path(), &["estimate", &path("text.txt"), "--explain"]).status.success());
    assert!(run(dir.path(), &["estimate", &path("table.csv"), "--field", "body", "--explain"]).status.success());
}

#[test]
fn a_shard_without_queries_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path());
    let file = small_experiment(dir.path(), &serving.url);
    // One batch holds all queries, so one of the two shards has none.
    for (part, idle) in [("1/2", true), ("2/2", false)] {
        let out = dir.path().join("out");
        let args = ["estimate", &file, "--shard", part, "--out", out.to_str().unwrap()];
        let output = run(dir.path(), &args);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stderr(&output).contains("this shard has no queries"), idle, "{part}: {}", stderr(&output));
    }
}

/// Writes a small experiment, and returns its path.
fn small_experiment(dir: &Path, url: &str) -> String {
    let file = dir.join("small.toml");
    let text = format!(
        "[model]\nurl = \"{url}\"\n\
         [corpus]\nkind = \"santa-fe\"\ndocuments = 4\nsymbols = 128\nexponent = 1.3\ndoubt = 1e-6\n\
         [measure]\nsplits = [2, 4]\n"
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn answers_folder(out: &Path) -> PathBuf {
    let paths = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
    paths.into_iter().find(|path| path.is_dir()).unwrap()
}

/// A folder takes the place of a file that must be written, like a full disk or a read-only folder, also for root.
fn block(path: &Path) {
    let _ = std::fs::remove_file(path);
    std::fs::create_dir(path).unwrap();
}

#[test]
fn a_report_is_written_although_the_answers_folder_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path());
    let file = small_experiment(dir.path(), &serving.url);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (kept, fresh, blocked) = (path("kept"), path("fresh"), path("blocked"));
    let first = run(dir.path(), &["estimate", &file, "--out", &kept, "--json"]);
    assert!(first.status.success(), "{}", stderr(&first));

    let answers = answers_folder(Path::new(&kept));
    block(&answers.join("manifest.json"));
    let scored = metric(&serving.url, "surprisal_scored_tokens_total");
    let again = run(dir.path(), &["estimate", &file, "--answers", &kept, "--out", &fresh, "--json"]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(again.stdout, first.stdout);
    assert!(stderr(&again).contains("manifest.json") && stderr(&again).contains("all answers are saved already"));
    assert!(
        Path::new(&fresh).join("report.html").exists()
            && metric(&serving.url, "surprisal_scored_tokens_total") == scored
    );
    let names: Vec<_> = std::fs::read_dir(&fresh).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_str().unwrap().starts_with("answers-")), "{names:?}");

    // An answer is missing, and cannot be saved.
    let parquet = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "parquet");
    let files = std::fs::read_dir(&answers).unwrap().map(|entry| entry.unwrap().path());
    let answer = files.into_iter().find(parquet).unwrap();
    std::fs::remove_file(&answer).unwrap();
    let missing = run(dir.path(), &["estimate", &file, "--answers", &kept, "--out", &fresh, "--json"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("manifest.json"), "{}", stderr(&missing));
    assert_eq!(metric(&serving.url, "surprisal_scored_tokens_total"), scored, "nothing is scored in vain");

    std::fs::create_dir(&blocked).unwrap();
    block(&Path::new(&blocked).join("report.html"));
    let partly = run(dir.path(), &["estimate", &file, "--out", &blocked, "--json"]);
    assert_eq!((partly.status.code(), &partly.stdout), (Some(1), &first.stdout));
    assert!(stderr(&partly).contains("blocked: cannot write report.html ("), "{}", stderr(&partly));
    assert!(stderr(&partly).contains("--answers") && Path::new(&blocked).join("report.json").exists());
}

#[test]
fn temporary_files_of_killed_runs_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path());
    let file = small_experiment(dir.path(), &serving.url);
    let out = dir.path().join("out");
    let estimate = || {
        let output = run(dir.path(), &["estimate", &file, "--out", out.to_str().unwrap()]);
        assert!(output.status.success(), "{}", stderr(&output));
    };
    estimate();
    let answers = answers_folder(&out);
    let removed = [
        answers.join("manifest.json.4711.tmp"),
        answers.join("000000000-000000010-0123456789abcdef.parquet.0011223344556677.tmp"),
        out.join("report.html.0011223344556677.tmp"),
    ];
    let kept = [answers.join("notes.4711.tmp"), out.join("mine.tmp"), out.join("mine.html.4711.tmp")];
    removed.iter().chain(&kept).for_each(|path| std::fs::write(path, "half").unwrap());
    // Another run writes this file now.
    let live = out.join("report.json.0011223344556677.tmp");
    let locked = std::fs::File::create(&live).unwrap();
    locked.lock().unwrap();
    estimate();
    for path in &removed {
        assert!(!path.exists(), "{}", path.display());
    }
    for path in kept.iter().chain([&live]) {
        assert!(path.exists(), "{}", path.display());
    }
}
