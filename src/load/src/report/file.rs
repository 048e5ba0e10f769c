//! Atomic writing of files.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use crate::error::Error;

/// Writes a temporary file in the folder of `path`, flushes it to disk, and renames it to `path`.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        // The caller gets the first error, not an error of the cleanup.
        let _ = std::fs::remove_file(&temporary);
        Error::File { path: path.to_owned(), reason: error.to_string() }
    })
}
