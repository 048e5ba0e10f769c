//! Settings: their precedence, and data types that need a GPU.

use crate::support::{stderr, surprisal};

/// Flags override the environment, which overrides the file, which overrides defaults.
#[test]
fn settings_have_a_fixed_precedence_and_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("surprisal.toml");
    std::fs::write(&file, "port = 1\nthreads = 1\ncache_mib = 1\n[server]\nmax_queries = 1\n").unwrap();
    let printed = surprisal(dir.path())
        .args(["serve", "--print-config", "--config", file.to_str().unwrap(), "--port", "3"])
        .envs([("SURPRISAL_PORT", "2"), ("SURPRISAL_THREADS", "2"), ("SURPRISAL_API_KEYS", "secret")])
        .envs([("SURPRISAL_CACHE_MB", "7"), ("SURPRISAL_MAX_RUNNING", "3"), ("SURPRISAL_API_KEY", "theirs")])
        .output()
        .unwrap();
    assert!(printed.status.success(), "{}", stderr(&printed));
    let text = String::from_utf8_lossy(&printed.stdout);
    for line in ["port = 3", "threads = 2", "cache_mib = 1", "max_queries = 1", "token_budget = 512"] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(!text.contains("secret"));
    let stderr_text = stderr(&printed);
    for part in ["ignoring unknown environment variables", "SURPRISAL_CACHE_MB, SURPRISAL_MAX_RUNNING"] {
        assert!(stderr_text.contains(part), "{part} in {stderr_text}");
    }
    assert!(!stderr_text.contains("SURPRISAL_PORT") && !stderr_text.contains("SURPRISAL_API_KEY"), "{stderr_text}");
}

#[test]
fn gpu_data_types_need_a_gpu() {
    let dir = tempfile::tempdir().unwrap();
    for numbers in [["--dtype", "fp8"], ["--kv-cache-dtype", "fp8"]] {
        let mut command = surprisal(dir.path());
        command.args(["serve", "--port", "0"]).args(numbers).env("CUDA_VISIBLE_DEVICES", "");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{numbers:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("dtype = fp8 and kv_cache_dtype need a GPU"), "{}", stderr(&output));
    }
}
