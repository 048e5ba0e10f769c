//! The version, completions and manual; errors, with their exit codes and hints.

use std::process::Stdio;

use surprisal_tests::tiny::TinyLlama;

use crate::support::{Serving, run, stderr, surprisal};

/// Completions and manual pages name every command.
#[test]
fn version_completions_and_manual_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let text = |args: &[&str]| String::from_utf8(run(dir.path(), args).stdout).unwrap();
    let version = text(&["--version"]);
    assert!(version.starts_with("surprisal 0.") && version.contains("commit"), "{version}");
    let features = version.split_once("features: ").unwrap().1;
    assert_eq!(features.contains("cuda"), cfg!(feature = "cuda"), "{version}");
    assert_eq!(text(&["-V"]).trim(), format!("surprisal {}", env!("CARGO_PKG_VERSION")));
    let (bash, man) = (text(&["completions", "bash"]), text(&["man"]));
    for command in ["serve", "score", "estimate", "merge", "report", "compare", "demo", "bench", "doctor"] {
        assert!(bash.contains(command) && man.contains(command), "{command}");
    }
    let pages = dir.path().join("man");
    assert!(run(dir.path(), &["man", "--out", pages.to_str().unwrap()]).status.success());
    assert!(std::fs::read_to_string(pages.join("surprisal-bench.1")).unwrap().contains("Poisson"));
}

/// Commands that print their result at once.
const PRINTING: [&[&str]; 4] =
    [&["man"], &["completions", "bash"], &["doctor", "--json"], &["serve", "--print-config"]];

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_on_stdout_and_ignored_on_stderr() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let dir = tempfile::tempdir().unwrap();
    for args in PRINTING {
        let output = surprisal(dir.path()).args(args).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains("error: cannot write to stdout: No space left"), "{}", stderr(&output));
    }
    let output = surprisal(dir.path()).args(["doctor", "--model", "none/of/these"]).stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", output.status);
}

/// The reader of a pipe may close it early.
#[test]
fn a_closed_pipe_is_not_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for args in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = surprisal(dir.path()).args(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let stderr = stderr(&output);
        assert!(output.status.success() && !stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}

#[test]
fn an_invalid_model_error_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    TinyLlama::default().write(dir.path(), 1);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let weights = path("model.safetensors");
    std::fs::write(path("other.json"), [0xff; 9]).unwrap();
    std::fs::remove_file(path("tokenizer.json")).unwrap();
    for (args, hint) in [
        (&["serve", "--port", "0", "--model", &weights][..], "give the folder that contains it"),
        (&["serve", "--port", "0", "--model", &path("")], "tokenizer.json: no such file"),
        (&["doctor", "--model", &weights], "give the folder that contains it"),
        (&["doctor", "--model", &path("other.json")], "other.json: "),
        (&["doctor", "--model", &path("other.gguf")], "a GGUF file does not contain"),
    ] {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(hint), "{args:?}: {}", stderr(&output));
    }
    let oracle = run(dir.path(), &["doctor", "--model", "oracle"]);
    assert!(oracle.status.success(), "{}", stderr(&oracle));
    assert!(String::from_utf8_lossy(&oracle.stdout).contains("sequences up to 2,048 tokens"));
}

#[test]
fn an_address_that_ends_in_v1_gets_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path());
    let scored = run(dir.path(), &["score", "baba+", "--url", &format!("{}/v1", serving.url)]);
    assert_eq!(scored.status.code(), Some(1));
    assert!(stderr(&scored).contains("omit /v1 from the server's address"), "{}", stderr(&scored));
}

#[test]
fn errors_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "prot = 1").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let closed = "http://127.0.0.1:1";
    for (args, code, hint) in [
        (&["serve", "--no-such-flag"][..], 2, "--help"),
        (&["serve", "--cache-mib", "0", "--port", "0"], 2, "cache_mib"),
        (&["serve", "--cache-mib", "1099511627776", "--device", "cpu", "--port", "0"], 1, "(1073741824.0 GiB), but"),
        (&["serve", "--max-length", "999999", "--port", "0"], 2, "max_length is 999999, but"),
        (&["serve", "--device", "gpu", "--port", "0"], 2, "must be auto, cpu, cuda or cuda:N"),
        (&["serve", "--device", "cuda:99", "--port", "0"], 1, "CUDA device 99 is not available"),
        (&["serve", "--device", "cpu", "--dtype", "fp8", "--port", "0"], 2, "dtype = fp8"),
        (&["serve", "--device", "cpu", "--kv-cache-dtype", "fp8", "--port", "0"], 2, "kv_cache_dtype"),
        (&["serve", "--tls-cert", "cert.pem", "--port", "0"], 2, "tls_key"),
        (&["serve", "--tensor-parallel-size", "0", "--port", "0"], 2, "tensor_parallel_size is 0"),
        (&["serve", "--tensor-parallel-size", "99", "--device", "cuda", "--port", "0"], 1, "CUDA device"),
        (&["serve", "--tls-cert", "no.pem", "--tls-key", "no.key", "--port", "0"], 2, "no.pem"),
        (&["serve", "--config", bad.to_str().unwrap()], 2, "prot"),
        (&["serve", "--model", "./no/such/model", "--port", "0"], 1, "no such folder"),
        (&["serve", "--port", &port], 1, "--port"),
        (&["serve", "--host", "192.0.2.1", "--port", "0"], 1, "--host"),
        (&["score", "text", "--url", closed], 1, "`surprisal serve` starts one"),
        (&["score", "text", "--url", "localhost:8000"], 2, "http:// or https://"),
        (&["estimate", "no-such-file", "--url", closed], 1, "no-such-file"),
        (&["estimate", bad.to_str().unwrap(), "Cargo.toml"], 2, "cannot be combined"),
        (&["estimate", "src/main.rs", "--url", closed], 1, "`surprisal serve` starts one"),
        (&["estimate", "file", "--windows", "1"], 1, "at least 2"),
        (&["estimate", bad.to_str().unwrap()], 2, "prot"),
        (&["estimate", "../../configs/experiments/oracle.toml", "--windows", "3"], 2, "cannot be combined"),
        (&["estimate", "file", "--shard", "5/4"], 2, "shard is 5/4"),
        (&["estimate", "file", "--shard", "half"], 2, "such as 2/8"),
        (&["estimate", "../../configs/experiments/oracle.toml", "--shard", "1/2"], 1, "model is missing"),
        (&["report", "no-such-folder"], 1, "no-such-folder"),
        (&["report", bad.to_str().unwrap()], 1, "bad.toml: not a report"),
        (&["man", "--out", bad.to_str().unwrap()], 1, "bad.toml: File exists"),
        (&["compare", "one"], 2, "Usage"),
        (&["compare", "no-such-folder", "other"], 1, "no-such-folder"),
        (&["merge", "no-such-folder", "--out", "x"], 1, "no-such-folder"),
        (&["bench", "--url", closed], 1, "is a server running there?"),
        (&["bench", "--url", "https://host"], 2, "http://HOST"),
        (&["bench", "--url", closed, "--workload", "pears"], 2, "documents, pairs"),
        (&["bench", "--rate", "1", "--clients", "1"], 2, "--rate"),
        (&[], 2, "Usage"),
    ] {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(hint), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{args:?}: nothing on stdout");
    }
}
