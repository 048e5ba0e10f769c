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
        assert!(page.contains("<dt>Corpus</dt><dd>20 texts (0 more were too short)"), "{page}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (there, here) = (estimate("there", ""), estimate("here", "tokenizer = \"model/tokenizer.json\""));
    assert_eq!((&there["documents"], &there["rows"]), (&json!(20), &here["rows"]));
    assert_eq!(there["corpus"], here["corpus"]);
    let corpus = &there["corpus"];
    assert!(corpus["shortest"].as_u64().unwrap() >= 24 && corpus["longest"].as_u64().unwrap() < 30, "{corpus}");
    assert!(corpus["unigrams"]["distinct"].as_u64().unwrap() <= 61, "{corpus}");
}
