//! config.json and a safetensors file, as an attacker would write them: errors, never a panic, never memory that the file does
//! not bear out. An input is the configuration, a NUL byte, and the weights.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use surprisal_engine::{CpuBackend, CpuConfig};
use surprisal_model::{Checkpoint, Footprint};

/// In memory where the system has such a folder.
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut builder = tempfile::Builder::new();
    let dir = builder.prefix("surprisal-fuzz").tempdir_in("/dev/shm").or_else(|_| builder.tempdir());
    dir.expect("a temporary folder can be made").keep()
});

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some(end) = input.iter().position(|&byte| byte == 0) else { return Corpus::Reject };
    let (config, weights) = (&input[..end], &input[end + 1..]);
    std::fs::write(DIR.join("config.json"), config).expect("the folder is writable");
    std::fs::write(DIR.join("model.safetensors"), weights).expect("the folder is writable");
    if let Ok(footprint) =
        std::str::from_utf8(config).map_err(drop).and_then(|text| Footprint::parse(text).map_err(drop))
    {
        let _ = footprint.devices_needed(80 << 30, 2, 2048);
    }
    if let Ok(checkpoint) = Checkpoint::open(&DIR) {
        let _ = (checkpoint.parameters(), checkpoint.fingerprint());
        let config = CpuConfig { cache_bytes: 1 << 20, threads: 1, ..CpuConfig::default() };
        if let Err(error) = CpuBackend::load(&checkpoint, config) {
            assert!(!error.to_string().is_empty());
        }
    }
    Corpus::Keep
});
