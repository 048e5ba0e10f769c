//! Fuzzing of config.json and a safetensors file: a hostile input must cause an error, never a panic, and must not
//! allocate more memory than the size of the file justifies. An input consists of config.json, a NUL byte, and the
//! safetensors file.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use surprisal_engine::{CpuBackend, CpuConfig};
use surprisal_model::{Checkpoint, Footprint};

/// The folder of the checkpoint, in memory if the system has `/dev/shm`.
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
