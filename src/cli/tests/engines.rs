//! The choice of an engine on the command line.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn serve(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_surprisal")).args(["serve", "--port", "0"]).args(args).output().unwrap()
}

fn assert_rejected(args: &[&str], code: i32, hint: &str) {
    let output = serve(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(said.contains(hint), "{args:?}: {said}");
}

#[test]
fn settings_that_the_engine_would_ignore_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let (none, gguf) = (dir.path().join("none.gguf"), dir.path().join("a.gguf"));
    std::fs::write(&gguf, b"GGUF").unwrap();
    assert_rejected(&["--engine", "native", "--isq", "q8_0"], 2, "isq is set");
    assert_rejected(&["--model", none.to_str().unwrap()], 1, "no such GGUF file");
    assert_rejected(
        &["--model", gguf.to_str().unwrap(), "--dtype", "int8"],
        2,
        "dtype, activations, kv_cache_dtype and tensor_parallel_size",
    );
    let config = r#"{"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"}"#;
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    assert_rejected(&["--model", dir.path().to_str().unwrap(), "--engine", "native"], 1, "Phi3ForCausalLM");
}

#[cfg(not(feature = "mistralrs"))]
#[test]
fn a_build_without_mistralrs_says_how_to_add_it() {
    assert_rejected(&["--engine", "mistralrs"], 2, "--features mistralrs");
    assert_rejected(&["--isq", "q8_0"], 2, "--features mistralrs");
}

#[cfg(feature = "mistralrs")]
mod with_mistralrs {
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::{Command, Stdio};

    use serde_json::Value;
    use surprisal_tests::tiny::{TinyLlama, decode_bytes};

    /// Returns the sum of a text's log-probabilities, in nats, and the fingerprint, from a server with these flags.
    fn score(dir: &Path, flags: &[&str]) -> (f64, String) {
        let binary = env!("CARGO_BIN_EXE_surprisal");
        let model = dir.to_str().unwrap();
        let mut server = Command::new(binary)
            .args(["serve", "--port", "0", "--model", model])
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
        let line = lines.find(|line| line.starts_with("serving")).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().trim_end_matches(',');
        let drain = std::thread::spawn(move || lines.for_each(drop));
        let scored = Command::new(binary)
            .args(["score", "--url", url, "--context", "t5 t9", "t7 t3 t3 t8", "--json"])
            .output()
            .unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        drain.join().unwrap();
        assert!(scored.status.success(), "{}", String::from_utf8_lossy(&scored.stderr));
        let answer: Value = serde_json::from_slice(&scored.stdout).unwrap();
        (answer["results"][0]["sum"].as_f64().unwrap(), answer["fingerprint"].as_str().unwrap().to_owned())
    }

    #[test]
    fn both_engines_serve_the_same_model() {
        let dir = tempfile::tempdir().unwrap();
        TinyLlama { vocab: 512, hidden: 128, intermediate: 256, ..TinyLlama::default() }.write(dir.path(), 1);
        decode_bytes(dir.path());
        let (native, by_native) = score(dir.path(), &[]);
        let (mistral, by_mistral) = score(dir.path(), &["--engine", "mistralrs"]);
        let (quantized, by_quantized) = score(dir.path(), &["--isq", "q8_0"]);
        assert!(by_native.contains("-cpu-") && by_mistral.contains("-f32-mistralrs-"), "{by_native} {by_mistral}");
        assert!(by_quantized.contains("-q8_0-mistralrs-"), "{by_quantized}");
        assert!((native - mistral).abs() < 1e-3, "{native} {mistral}");
        assert!((native - quantized).abs() < 1.0 && quantized != mistral, "{native} {quantized}");
    }
}
