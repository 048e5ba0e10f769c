//! The oracle: a Llama with hand-written weights that predicts the Santa Fe process exactly.
//!
//! Start with [`ensure`] and [`write`](write()), which write the oracle's checkpoint. `spec.rs` has the parameters,
//! `weights.rs` the weights, and `files.rs` the configuration and the tokenizer.
//!
//! # The process
//!
//! A document of the Santa Fe process (Debowski, "On Hilberg's law and its links with Guiraud's law", 2006) is a
//! sequence of facts (k, z_k): symbols k are drawn independently with probabilities p_k, and each symbol's coin z_k is
//! flipped once per document. Token `2k + z` states that symbol k's coin shows side z. After any history, the oracle
//! predicts:
//!
//! - for a symbol that is not in the history: `p_k / 2` for each side of its coin;
//! - for a symbol seen with one side: `p_k (1 - doubt)` for that side, and `p_k doubt` for the other;
//! - for a symbol seen with both sides, which never happens in a document of the process: `p_k / 2` for each side.
//!
//! After every history, these probabilities sum to 1. As the doubt tends to 0, they converge to those of the process.
//!
//! # The transformer
//!
//! The residual stream has two dimensions per token, `seen` and the result `believed`, and one dimension that is always
//! the constant `C`. `C` is much larger than all other values, so each RMSNorm divides by the same number, and the
//! weights after the norm undo the division.
//!
//! 1. The embedding writes `SMALL` to the token's `seen` dimension. Query and key weights are zero, so attention
//!    averages the past: `seen` is now at least `SMALL / context_length` for tokens in the history, and exactly 0 for
//!    all others.
//! 2. The first MLP adds to each `seen` a step function of `seen` that rises from 0 to 1. The step function consists of
//!    two SiLU units: `(silu(g x) - silu(g x - 20)) / 20`.
//! 3. The second MLP writes `believed(k,z)`, a step function of `seen(k,z) - seen(k,1-z)` that rises between 1/4 and
//!    3/4. `believed(k,z)` is 1 if side z was seen and the other side was not.
//! 4. The logit of token (k, z) is `ln(p_k / 2) + ln(2 (1 - doubt)) believed(k,z) + ln(2 doubt) believed(k,1-z)`.

mod files;
mod spec;
mod symbol_names;
mod weights;

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use self::weights::Shape;
use crate::checkpoint::Checkpoint;
use crate::error::Error;

pub use self::spec::OracleSpec;

/// Returns the oracle's folder in the user's cache directory (`XDG_CACHE_HOME`, or the system's default).
///
/// # Errors
///
/// Fails if there is no home directory.
pub fn cache_dir(spec: &OracleSpec) -> Result<PathBuf, Error> {
    let base = etcetera::choose_base_strategy().map_err(|error| Error::Oracle(error.to_string()))?;
    Ok(base.cache_dir().join("surprisal").join(spec.folder_name()))
}

/// Returns the oracle's folder in the cache directory, and writes the checkpoint first if it is missing or differs from
/// the one that this version writes. So on every machine, the files and their fingerprint are the same.
///
/// # Errors
///
/// Fails if a parameter is invalid, there is no home directory, or the folder cannot be written.
pub fn ensure(spec: &OracleSpec) -> Result<PathBuf, Error> {
    let dir = cache_dir(spec)?;
    if Checkpoint::open(&dir).is_err() || !has_current_files(&dir, spec) {
        write(&dir, spec)?;
    }
    Ok(dir)
}

/// Returns whether a folder has the JSON files that this version writes.
fn has_current_files(dir: &Path, spec: &OracleSpec) -> bool {
    let is_current =
        |(name, contents): (&str, String)| std::fs::read_to_string(dir.join(name)).is_ok_and(|text| text == contents);
    files::json_files(spec, &Shape::new(spec)).into_iter().all(is_current)
}

/// Writes the oracle as an ordinary checkpoint: config.json, model.safetensors, tokenizer.json, tokenizer_config.json,
/// generation_config.json. The folder appears complete or not at all.
///
/// # Errors
///
/// Fails if a parameter is invalid, or the folder cannot be written.
pub fn write(dir: &Path, spec: &OracleSpec) -> Result<(), Error> {
    spec.check()?;
    let parent = dir.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let staging = tempfile::Builder::new().prefix(".oracle-").tempdir_in(parent).map_err(Error::io(parent))?;
    let put = |name: &str, contents: &[u8]| {
        let path = staging.path().join(name);
        std::fs::write(&path, contents).map_err(Error::io(&path))
    };
    let shape = Shape::new(spec);
    for (name, contents) in files::json_files(spec, &shape) {
        put(name, contents.as_bytes())?;
    }
    put("model.safetensors", &weights::safetensors(spec, &shape)?)?;
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(Error::io(dir))?;
    }
    match std::fs::rename(staging.path(), dir) {
        // Another process may have just written the same folder.
        Err(error) if Checkpoint::open(dir).is_err() => Err(Error::io(dir)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::TextTokenizer;

    fn spec(symbols: usize) -> OracleSpec {
        let weights: Vec<f64> = (1..=symbols).map(|k| (k as f64).powf(-1.3)).collect();
        let total: f64 = weights.iter().sum();
        let probabilities = weights.iter().map(|w| w / total).collect();
        OracleSpec { probabilities, doubt: 1e-6, context_length: 64 }
    }

    #[test]
    fn the_written_checkpoint_and_tokenizer_load() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("oracle");
        write(&dir, &spec(8)).unwrap();
        write(&dir, &spec(8)).unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        assert_eq!((checkpoint.config().vocab_size, checkpoint.config().hidden_size), (17, 64));
        checkpoint.tensor_f32("lm_head.weight", &[17, 64]).unwrap();
        let tokenizer = TextTokenizer::open(&dir, checkpoint.config()).unwrap();
        assert_eq!(tokenizer.prefix(), [16]);
        let text = tokenizer.decode(&[0, 1, 15]).unwrap();
        assert_eq!(tokenizer.encode(&text).unwrap(), [0, 1, 15]);
        assert_eq!(tokenizer.encode("baba- baba+").unwrap(), [0, 1]);
        assert_eq!(tokenizer.encode("  baba-\n\tbaba+ \n").unwrap(), [0, 1]);
        assert_eq!(tokenizer.encode(" \n").unwrap(), [0u32; 0]);
        assert!(tokenizer.encode("baba- ducks").unwrap_err().to_string().contains("ducks"));
        assert_eq!(std::fs::read_dir(dir.parent().unwrap()).unwrap().count(), 1, "nothing else is left behind");
    }

    /// A folder that another version wrote would have another fingerprint.
    #[test]
    fn changed_files_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("oracle");
        assert!(!has_current_files(&dir, &spec(8)));
        write(&dir, &spec(8)).unwrap();
        assert!(has_current_files(&dir, &spec(8)));
        assert!(!has_current_files(&dir, &spec(7)));
        let path = dir.join("tokenizer_config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text + "\n").unwrap();
        assert!(!has_current_files(&dir, &spec(8)));
    }

    #[test]
    fn invalid_parameters_are_rejected() {
        for bad in [
            OracleSpec { probabilities: vec![], ..spec(2) },
            OracleSpec { probabilities: vec![0.5, 0.6], ..spec(2) },
            OracleSpec { probabilities: vec![1.5, -0.5], ..spec(2) },
            OracleSpec { probabilities: vec![f64::NAN, 1.0], ..spec(2) },
            OracleSpec { doubt: 0.0, ..spec(2) },
            OracleSpec { doubt: 0.5, ..spec(2) },
            OracleSpec { context_length: 0, ..spec(2) },
        ] {
            let dir = tempfile::tempdir().unwrap();
            assert!(write(&dir.path().join("oracle"), &bad).is_err(), "{bad:?}");
        }
    }
}
