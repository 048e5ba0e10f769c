//! `surprisal estimate`: errors before the first request, and shards without queries.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Serving, run, stderr};

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
    let file = dir.path().join("small.toml");
    let text = format!(
        "[model]\nurl = \"{}\"\n\
         [corpus]\nkind = \"santa-fe\"\ndocuments = 4\nsymbols = 128\nexponent = 1.3\ndoubt = 1e-6\n\
         [measure]\nsplits = [2, 4]\n",
        serving.url
    );
    std::fs::write(&file, text).unwrap();
    // One batch holds all queries, so one of the two shards has none.
    for (part, idle) in [("1/2", true), ("2/2", false)] {
        let out = dir.path().join("out");
        let args = ["estimate", file.to_str().unwrap(), "--shard", part, "--out", out.to_str().unwrap()];
        let output = run(dir.path(), &args);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stderr(&output).contains("this shard has no queries"), idle, "{part}: {}", stderr(&output));
    }
}
