//! Atomic file writes, and the removal of temporary files that killed processes left.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{Error as IoError, ErrorKind, Result as IoResult, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Maximum number of attempts to create a temporary file whose name is free and that nothing removes.
const ATTEMPTS: usize = 16;

/// Writes and syncs a temporary file in the folder of `path`, then renames it to `path`.
///
/// The temporary file is locked until it is renamed, so that [`remove_abandoned`] recognizes files of live processes,
/// on this machine or on others that share the folder.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let (temporary, mut file) = create_temporary(path).map_err(failed)?;
    let mut write = || {
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        // Report the first error, not an error from the cleanup.
        let _ = std::fs::remove_file(&temporary);
        failed(source)
    })
}

/// Creates and locks a temporary file with a name of its own: that of `path`, 16 random hexadecimal digits, and `tmp`.
fn create_temporary(path: &Path) -> IoResult<(PathBuf, File)> {
    for _ in 0..ATTEMPTS {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:016x}.tmp", RandomState::new().hash_one(std::process::id())));
        let temporary = path.with_file_name(name);
        let file = match File::create_new(&temporary) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            created => created?,
        };
        // On a file system without locks, no process can lock the file, so none removes it.
        let _ = file.lock();
        // Another process may have removed the file before it was locked.
        match temporary.try_exists() {
            Ok(true) => return Ok((temporary, file)),
            Ok(false) => {}
            Err(error) => {
                let _ = std::fs::remove_file(&temporary);
                return Err(error);
            }
        }
    }
    Err(IoError::other("cannot create a temporary file next to it"))
}

/// Removes the temporary files that killed processes left in a folder: those of the files whose names `is_ours`
/// accepts, unless a process has locked them. A file that cannot be removed does no harm, so it is only logged.
pub(crate) fn remove_abandoned(folder: &Path, is_ours: impl Fn(&str) -> bool) {
    // Nobody left a file in a folder that cannot be read.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.file_name().and_then(OsStr::to_str).and_then(final_name);
        if !name.is_some_and(&is_ours) {
            continue;
        }
        match lock(&path) {
            Ok(Some(_lock)) => match std::fs::remove_file(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed a temporary file of a killed run"),
                Err(error) => tracing::debug!(path = %path.display(), %error, "cannot remove a temporary file"),
            },
            Ok(None) => {}
            Err(error) => tracing::debug!(path = %path.display(), %error, "cannot lock a temporary file"),
        }
    }
}

/// Returns the name of the file that a temporary file was to become; `None` for other files. Earlier versions used the
/// process id instead of random digits.
fn final_name(temporary: &str) -> Option<&str> {
    let (name, digits) = temporary.strip_suffix(".tmp")?.rsplit_once('.')?;
    let are_digits = (1..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    are_digits.then_some(name)
}

/// Locks a file; returns `None` if a process has locked it.
fn lock(path: &Path) -> IoResult<Option<File>> {
    let file = OpenOptions::new().write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_abandoned_files_of_this_program_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), names(dir.path())), (b"new".to_vec(), vec!["a.json".to_owned()]));

        // A process writes this file now.
        let (live, file) = create_temporary(&path).unwrap();
        let kept = ["b.json.0123456789abcdef.tmp", "a.json.tmp", "a.json.x.tmp", "a.json.12345"];
        let removed = ["a.json.0123456789abcdef.tmp", "a.json.4711.tmp"];
        kept.iter().chain(&removed).for_each(|name| std::fs::write(dir.path().join(name), "half").unwrap());
        let clean = || remove_abandoned(dir.path(), |name| name == "a.json");
        clean();
        let left = names(dir.path());
        assert!(live.exists() && kept.iter().all(|&name| left.iter().any(|left| left == name)), "{left:?}");
        assert_eq!(left.len(), 2 + kept.len(), "{left:?}");
        drop(file);
        clean();
        assert!(!live.exists(), "the process is gone");
        remove_abandoned(&dir.path().join("missing"), |_| true);
    }

    #[test]
    fn a_failed_write_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        let error = write_atomically(&taken, b"text").unwrap_err().to_string();
        assert!(error.starts_with(taken.to_str().unwrap()), "{error}");
        assert_eq!(names(dir.path()), ["taken"]);
    }
}
