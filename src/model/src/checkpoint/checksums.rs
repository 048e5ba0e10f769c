//! Known checksums of a model's files: from the file `SHA256SUMS` in the same folder, in the format of `sha256sum`, or
//! from the names of blobs in the hub's cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The file that lists checksums.
const CHECKSUM_FILE: &str = "SHA256SUMS";

/// A file's expected SHA-256, and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checksum {
    /// The checksum in lower-case hexadecimal digits.
    pub(super) sha256: String,
    /// The file that contains the checksum, `SHA256SUMS`, or the hub's blob that is named after it.
    pub(super) source: PathBuf,
}

/// Reads the known checksums of `files`, all files of a model that are read. Warns about lines of `SHA256SUMS` for
/// other files, because nothing verifies those.
///
/// # Errors
///
/// Fails if `SHA256SUMS` cannot be read, has a malformed line, or has two checksums of one file.
pub(super) fn read_checksums(dir: &Path, files: &[&Path]) -> Result<BTreeMap<PathBuf, Checksum>, Error> {
    let path = dir.join(CHECKSUM_FILE);
    let mut checksums = match std::fs::read_to_string(&path) {
        Ok(text) => parse(&path, &text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(Error::io(&path)(error)),
    };
    let (missing, unread) = unverified(dir, &checksums, files);
    if !missing.is_empty() {
        tracing::warn!(path = %path.display(), files = missing.join(", "), "SHA256SUMS lists files that do not exist");
    }
    if !unread.is_empty() {
        tracing::warn!(
            path = %path.display(),
            files = unread.join(", "),
            "SHA256SUMS lists files that are not part of the model; not verifying them"
        );
    }
    for file in files {
        if let Some(checksum) = checksum_in_blob_name(file) {
            checksums.entry(file.to_path_buf()).or_insert(checksum);
        }
    }
    Ok(checksums)
}

/// Returns the names of the listed files that do not exist, and of those that are not among `files`.
fn unverified(dir: &Path, checksums: &BTreeMap<PathBuf, Checksum>, files: &[&Path]) -> (Vec<String>, Vec<String>) {
    let others = checksums.keys().filter(|path| !files.contains(&path.as_path()));
    let name = |path: &PathBuf| path.strip_prefix(dir).unwrap_or(path).display().to_string();
    let (unread, missing): (Vec<_>, Vec<_>) = others.partition(|path| path.exists());
    (missing.into_iter().map(name).collect(), unread.into_iter().map(name).collect())
}

/// Parses lines that consist of a checksum, a space, a second space or an asterisk, and a file name.
fn parse(path: &Path, text: &str) -> Result<BTreeMap<PathBuf, Checksum>, Error> {
    let mut checksums = BTreeMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parts = line.split_once(' ').filter(|(sha256, _)| is_sha256(sha256));
        let name = parts.and_then(|(_, name)| name.strip_prefix([' ', '*']));
        let (Some((sha256, _)), Some(name)) = (parts, name) else {
            let reason =
                format!("line {} must be a SHA-256 in hexadecimal digits, two spaces and a file name", index + 1);
            return Err(Error::malformed(path, reason));
        };
        let file = path.with_file_name(name.strip_prefix("./").unwrap_or(name));
        let checksum = Checksum { sha256: sha256.to_ascii_lowercase(), source: path.to_owned() };
        let reason = format!(
            "line {} and an earlier line have different checksums for {name}; remove the wrong line",
            index + 1
        );
        if checksums.insert(file, checksum.clone()).is_some_and(|earlier| earlier != checksum) {
            return Err(Error::malformed(path, reason));
        }
    }
    Ok(checksums)
}

/// Returns the checksum in the name of a file's blob; `None` if there is none. In the hub's cache, a large file is a
/// link to a blob that is named after its SHA-256. A small file's blob is named after another hash.
fn checksum_in_blob_name(file: &Path) -> Option<Checksum> {
    let blob = std::fs::read_link(file).ok()?;
    let sha256 = blob.file_name()?.to_str().filter(|name| is_sha256(name))?.to_ascii_lowercase();
    Some(Checksum { sha256, source: blob })
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_format_of_sha256sum() {
        let path = Path::new("model/SHA256SUMS");
        let [a, b] = ["a", "B"].map(|digit| digit.repeat(64));
        let checksums = parse(path, &format!("{a}  one.safetensors\n\n{b} *./two words\n")).unwrap();
        let checksum = |sha256: &str| Checksum { sha256: sha256.to_owned(), source: path.to_owned() };
        assert_eq!(checksums[Path::new("model/one.safetensors")], checksum(&a));
        assert_eq!(checksums[Path::new("model/two words")], checksum(&b.to_lowercase()));
        for wrong in [&a[1..], &format!("{a} one"), &format!("{a}x  one"), "sha256"] {
            let error = parse(path, &format!("{a}  one\n{wrong}\n")).unwrap_err().to_string();
            assert!(error.starts_with("model/SHA256SUMS: line 2 must be"), "{error}");
        }
        let twice = parse(path, &format!("{a}  one\n{a} *./one\n{}  one\n", "c".repeat(64))).unwrap_err().to_string();
        assert_eq!(
            twice,
            "model/SHA256SUMS: line 3 and an earlier line have different checksums for one; remove the wrong line"
        );
    }

    #[test]
    fn listed_files_that_are_missing_or_unread_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let [read, unread] = ["config.json", "README.md"].map(|name| dir.path().join(name));
        std::fs::write(&read, "").unwrap();
        std::fs::write(&unread, "").unwrap();
        let line = |name: &str| format!("{}  {name}\n", "a".repeat(64));
        let text = ["config.json", "README.md", "gone.safetensors", "sub/gone"].map(line).concat();
        let checksums = parse(&dir.path().join(CHECKSUM_FILE), &text).unwrap();
        let (missing, unread) = unverified(dir.path(), &checksums, &[read.as_path()]);
        assert_eq!(missing, ["gone.safetensors", "sub/gone"]);
        assert_eq!(unread, ["README.md"]);
    }
}
