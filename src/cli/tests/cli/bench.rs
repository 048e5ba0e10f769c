//! `surprisal bench`: load tests of one server, and comparisons of two.

use serde_json::Value;

use crate::support::{Serving, run, stderr};

/// A load test writes load curves, and results that can be compared. Two servers are measured in turn.
#[test]
fn servers_are_load_tested_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path());
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (a, b) = (out("a"), out("b"));
    let shape =
        ["--context-length", "6", "--target-length", "2", "--targets", "2", "--prefixes", "3", "--warm-up", "0"];
    let common = [&["bench", "--requests", "12", "--clients", "1,2"][..], &shape].concat();
    let measured = run(dir.path(), &[&common[..], &["--url", &serving.url, "--out", &a, "--json"]].concat());
    assert!(measured.status.success(), "{}", stderr(&measured));
    let report: Value = serde_json::from_slice(&measured.stdout).unwrap();
    let outcomes = report["outcomes"].as_array().unwrap();
    assert_eq!(outcomes.iter().map(|one| one["scored_tokens"].as_u64().unwrap()).collect::<Vec<_>>(), [48, 48]);
    assert_eq!(outcomes[0]["repeats"]["asked"], outcomes[0]["repeats"]["same"]);

    let peer = format!("vllm+{}", serving.url);
    let compared = run(dir.path(), &[&common[..], &["--compare", &serving.url, &peer, "--out", &b]].concat());
    assert!(compared.status.success(), "{}", stderr(&compared));
    let table = String::from_utf8(compared.stdout).unwrap();
    assert!(table.contains("2 clients") && table.contains("first/second"), "{table}");
    let (first, second) = (format!("{b}/first.json"), format!("{b}/second.json"));
    let again = run(dir.path(), &["bench", "--compare", &first, &second]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), table, "the written results give the same comparison");
    for name in ["a/result.json", "a/curves.html", "b/curves.svg", "b/curves.pdf"] {
        assert!(dir.path().join(name).is_file(), "{name}");
    }
    let other = run(dir.path(), &["bench", "--compare", &format!("{a}/result.json"), "/no/such.json"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(stderr(&other).contains("/no/such.json"));

    let swept = ["bench", "--url", &serving.url, "--sweep", "--duration", "0.3", "--json"];
    let swept = run(dir.path(), &[&swept[..], &shape].concat());
    assert!(swept.status.success(), "{}", stderr(&swept));
    let report: Value = serde_json::from_slice(&swept.stdout).unwrap();
    let rates: Vec<f64> =
        report["outcomes"].as_array().unwrap().iter().map(|one| one["load"]["rate"].as_f64().unwrap()).collect();
    assert_eq!(rates.len(), 6);
    assert!((rates[5] / rates[0] - 8.0).abs() < 1e-9, "{rates:?}");
}

#[test]
fn a_missing_or_wrong_key_is_an_error_that_names_the_variable() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::with(dir.path(), &[("SURPRISAL_API_KEYS", "secret")]);
    let bench = ["bench", "--url", &serving.url, "--requests", "2", "--warm-up", "0", "--workload", "documents"];
    for (key, code) in [(&[][..], 1), (&["--api-key", "wrong"], 1), (&["--api-key", "secret"], 0)] {
        let output = run(dir.path(), &[&bench[..], &["--length", "8"], key].concat());
        assert_eq!(output.status.code(), Some(code), "{key:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).contains("SURPRISAL_API_KEY"), code == 1, "{}", stderr(&output));
        let output = run(dir.path(), &[&["score", "--url", &serving.url, "baba+"], key].concat());
        assert_eq!(output.status.code(), Some(code), "{key:?}: {}", stderr(&output));
        assert_eq!(stderr(&output).contains("SURPRISAL_API_KEY"), code == 1, "{}", stderr(&output));
    }
}
