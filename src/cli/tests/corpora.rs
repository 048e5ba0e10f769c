//! Estimates end to end, on corpora in published formats.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{Serving, run, stderr};
use surprisal_tests::tiny::TinyLlama;

/// Returns sentences of five words. The model's tokenizer has no token for the last word of a sentence, because a
/// period is attached to it.
fn text(seed: usize, sentences: usize) -> String {
    let word = |i: usize| format!("t{}", 3 + (seed * 7919 + i * i * 31 / 7) % 60);
    (0..sentences).map(|s| (0..5).map(|w| word(5 * s + w)).collect::<Vec<_>>().join(" ") + ".\n").collect()
}

/// A file's name below a folder, and its content.
type FileContent<'a> = (&'a str, Vec<u8>);

/// Returns a text as UTF-8 with a byte-order mark.
fn marked(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").into_bytes()
}

/// Returns a text as UTF-16 with a byte-order mark.
fn utf16(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The same texts in one folder, in every format, give the same estimates, and the report lists what it omits.
#[test]
fn folders_of_any_format_give_the_same_estimates() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    TinyLlama { layers: 1, max_positions: 128, ..TinyLlama::default() }.write(&model, 1);
    let serving = Serving::with(dir.path(), &[("SURPRISAL_MODEL", model.to_str().unwrap())]);
    let texts = [text(1, 20), text(2, 20), text(3, 20)];
    let estimate = |name: &str, files: &[FileContent<'_>]| -> (Value, String) {
        let folder = dir.path().join(name);
        for (file, bytes) in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let (folder, out) = (folder.to_str().unwrap(), dir.path().join(format!("{name}-out")));
        let args = ["estimate", folder, "--windows", "2", "--splits", "2,4,8", "--url", &serving.url, "--json"];
        let output = run(dir.path(), &[&args[..], &["--out", out.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        (serde_json::from_slice(&output.stdout).unwrap(), stderr(&output))
    };
    let csv: String = texts.iter().map(|text| format!("1,\"{text}\"\r\n")).collect();
    let lines: String = texts.iter().map(|text| json!({ "text": text }).to_string() + "\n").collect();
    let (plain, log) = estimate(
        "plain",
        &[("a.txt", texts[0].clone().into()), ("b.txt", texts[1].clone().into()), ("c.txt", texts[2].clone().into())],
    );
    assert!(plain.get("left_out").is_none() && !log.contains("left out"), "{log}");
    let others: [(&str, &[FileContent<'_>]); 4] = [
        (
            "marked",
            &[
                ("a.txt", marked(&texts[0])),
                ("sub/b.txt", utf16(&texts[1])),
                ("sub/c.txt", marked(&texts[2])),
                (".hidden.txt", b"hidden".to_vec()),
                ("d.pdf", b"%PDF".to_vec()),
            ],
        ),
        ("lines", &[("a.ndjson", lines.into())]),
        ("array", &[("a.json", json!(texts).to_string().into())]),
        ("table", &[("a.csv", format!("id,text\r\n{csv}2,\r\n").into())]),
    ];
    for (name, files) in others {
        let (report, log) = estimate(name, files);
        assert_eq!((&report["rows"], &report["corpus"]), (&plain["rows"], &plain["corpus"]), "{name}");
        let left_out: Vec<String> = report["left_out"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| format!("{} {}", one["reason"].as_str().unwrap(), one["texts"]))
            .collect();
        let expected: &[&str] = match name {
            "marked" => &["hidden null", "format not supported: PDF null"],
            "table" => &["empty 1"],
            _ => &[],
        };
        assert_eq!(left_out, expected, "{name}");
        assert_eq!(log.matches("left out of the corpus").count(), expected.len(), "{name}: {log}");
    }
}

#[test]
fn lines_are_sampled_cut_and_tokenized_locally_or_by_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    TinyLlama { layers: 1, max_positions: 128, ..TinyLlama::default() }.write(&model, 1);
    let serving = Serving::with(dir.path(), &[("SURPRISAL_MODEL", model.to_str().unwrap())]);
    let lines: String = (0..40).map(|i| json!({"id": i, "body": text(i, 4 + i)}).to_string() + "\n").collect();
    std::fs::write(dir.path().join("corpus.jsonl"), lines).unwrap();
    let estimate = |name: &str, tokenizer: &str| -> Value {
        let file = dir.path().join(format!("{name}.toml"));
        let text = format!(
            "seed = 3\n[model]\nurl = \"{}\"\n[corpus]\nkind = \"text\"\nfiles = [\"corpus.jsonl\"]\nfield = \"body\"\n\
             min_words = 60\nwords = 24\nsample = 20\nwindows = 1\n{tokenizer}\n[measure]\nsplits = [2, 4, 8]\nresamples = 10\n",
            serving.url
        );
        std::fs::write(&file, text).unwrap();
        let out = dir.path().join(name);
        let output = run(dir.path(), &["estimate", file.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let page = std::fs::read_to_string(out.join("report.html")).unwrap();
        assert!(page.contains("<dt>Corpus</dt><dd>windows from 20 texts (0 more were too short)"), "{page}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (there, here) = (estimate("there", ""), estimate("here", "tokenizer = \"model/tokenizer.json\""));
    assert_eq!((&there["documents"], &there["rows"]), (&json!(20), &here["rows"]));
    assert_eq!(there["corpus"], here["corpus"]);
    // All texts of at least 60 words are counted, whole; the sample chooses the same windows if only it is counted.
    let corpus = &there["corpus"];
    assert!(corpus["shortest"].as_u64().unwrap() >= 60 && corpus["longest"].as_u64().unwrap() > 100, "{corpus}");
    assert_eq!((&corpus["counted"], &corpus["windowed"]), (&json!("texts"), &json!(20)));
    let sample = estimate("sample", "count = \"sample\"");
    let direct = |report: &Value| -> Vec<Value> {
        report["rows"].as_array().unwrap().iter().map(|row| row["direct"].clone()).collect()
    };
    assert_eq!(direct(&sample), direct(&there));
    let corpus = &sample["corpus"];
    assert_eq!((&corpus["texts"], &corpus["windowed"]), (&json!(20), &json!(20)));
    assert!(corpus["shortest"].as_u64().unwrap() >= 24 && corpus["longest"].as_u64().unwrap() < 30, "{corpus}");
    assert!(corpus["unigrams"]["distinct"].as_u64().unwrap() <= 61, "{corpus}");
}

/// Errors are over whole files, whose pieces are not independent, and unequal files count as fewer.
#[test]
fn pieces_of_files_are_clustered_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    TinyLlama { layers: 1, max_positions: 128, ..TinyLlama::default() }.write(&model, 1);
    let serving = Serving::with(dir.path(), &[("SURPRISAL_MODEL", model.to_str().unwrap())]);
    let books = dir.path().join("books");
    std::fs::create_dir(&books).unwrap();
    // A piece has four sentences.
    for (book, pieces) in [6, 3, 3, 2, 2].into_iter().enumerate() {
        std::fs::write(books.join(format!("{book}.txt")), text(book, 4 * pieces + 1)).unwrap();
    }
    let file = dir.path().join("pieces.toml");
    let experiment = format!(
        "[model]\nurl = \"{}\"\n[corpus]\nkind = \"text\"\nfiles = [\"books\"]\nwords = 20\nwindows = 1\n\
         [measure]\nsplits = [2, 4]\nadditivity = [4]\nresamples = 10\n",
        serving.url
    );
    std::fs::write(&file, experiment).unwrap();
    let (file, out) = (file.to_str().unwrap(), dir.path().join("out"));
    let plan = run(dir.path(), &["estimate", file, "--explain"]);
    let plan = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.contains("16 documents of 8 tokens"), "{plan}");
    let output = run(dir.path(), &["estimate", file, "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["documents"], &report["texts"]), (&json!(16), &json!(5)));
    let effective = report["effective_texts"].as_f64().unwrap();
    assert!((effective - 256.0 / 62.0).abs() < 1e-12, "{effective}");
    let rows = std::fs::read_to_string(out.join("documents.csv")).unwrap();
    let texts: Vec<&str> = rows.lines().skip(1).filter_map(|row| row.split(',').nth(1)).collect();
    let mut books = texts.clone();
    books.dedup();
    assert_eq!((texts.len(), books.len()), (2 * 16, 2 * 5), "{rows}");

    std::fs::remove_file(dir.path().join("books/0.txt")).unwrap();
    std::fs::remove_file(dir.path().join("books/1.txt")).unwrap();
    let output = run(dir.path(), &["estimate", file, "--explain"]);
    let error = stderr(&output);
    assert!(!output.status.success() && error.contains("additivity") && error.contains("for 3 texts"), "{error}");
}
