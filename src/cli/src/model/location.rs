//! Finds a model's files from its name in the settings.

use std::path::{Path, PathBuf};

use surprisal_model::hub;
use surprisal_model::oracle::{self, OracleSpec};

use crate::error::Error;

/// The name of the built-in model.
pub(crate) const ORACLE: &str = "oracle";

/// Returns `true` if a path has the extension of a GGUF file.
pub(crate) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// Returns the path of a GGUF file or a model's folder; writes or downloads the folder if it is not cached.
pub(super) fn locate(model: &str) -> Result<PathBuf, Error> {
    if model == ORACLE {
        return oracle_dir();
    }
    let path = Path::new(model);
    if !is_gguf(path) {
        return Ok(hub::resolve(model)?);
    }
    if !path.is_file() {
        let reason = "no such GGUF file; check the path".to_owned();
        return Err(surprisal_model::Error::NotFound { name: model.to_owned(), reason }.into());
    }
    Ok(path.to_owned())
}

/// Returns the folder of the built-in oracle; writes the oracle if it is not cached.
pub(crate) fn oracle_dir() -> Result<PathBuf, Error> {
    Ok(oracle::ensure(&OracleSpec::built_in())?)
}
