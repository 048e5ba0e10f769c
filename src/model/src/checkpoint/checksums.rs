//! Known checksums of weight files: from `SHA256SUMS` beside them, as `sha256sum` writes it, or from the names of the hub's blobs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The file that lists checksums.
const CHECKSUM_FILE: &str = "SHA256SUMS";

/// A file's expected SHA-256, and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checksum {
    /// In lower-case hexadecimal digits.
    pub(super) sha256: String,
    /// `SHA256SUMS`, or the hub's blob.
    pub(super) source: PathBuf,
}

/// Reads the known checksums of a folder's files.
///
/// # Errors
///
/// A malformed line of `SHA256SUMS`.
pub(super) fn read_checksums(dir: &Path, files: &[PathBuf]) -> Result<HashMap<PathBuf, Checksum>, Error> {
    let path = dir.join(CHECKSUM_FILE);
    let mut checksums = match std::fs::read_to_string(&path) {
        Ok(text) => parse(&path, &text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => HashMap::new(),
        Err(error) => return Err(Error::io(&path)(error)),
    };
    for file in files {
        if let Some(checksum) = checksum_in_blob_name(file) {
            checksums.entry(file.clone()).or_insert(checksum);
        }
    }
    Ok(checksums)
}

/// Parses lines of a checksum, a space, another space or a star, and a name.
fn parse(path: &Path, text: &str) -> Result<HashMap<PathBuf, Checksum>, Error> {
    let mut checksums = HashMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parts = line.split_once(' ').filter(|(sha256, _)| is_sha256(sha256));
        let name = parts.and_then(|(_, name)| name.strip_prefix([' ', '*']));
        let (Some((sha256, _)), Some(name)) = (parts, name) else {
            let reason = format!("line {} is not a SHA-256 in hexadecimal digits, two spaces and a name", index + 1);
            return Err(Error::malformed(path, reason));
        };
        let file = path.with_file_name(name.strip_prefix("./").unwrap_or(name));
        checksums.insert(file, Checksum { sha256: sha256.to_ascii_lowercase(), source: path.to_owned() });
    }
    Ok(checksums)
}

/// Returns the SHA-256 that names a file's blob. In the hub's cache a large file is a link to a blob that is named by its SHA-256;
/// a small one's name is another hash.
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
    fn lines_are_those_of_sha256sum() {
        let path = Path::new("model/SHA256SUMS");
        let [a, b] = ["a", "B"].map(|digit| digit.repeat(64));
        let checksums = parse(path, &format!("{a}  one.safetensors\n\n{b} *./two words\n")).unwrap();
        let checksum = |sha256: &str| Checksum { sha256: sha256.to_owned(), source: path.to_owned() };
        assert_eq!(checksums[Path::new("model/one.safetensors")], checksum(&a));
        assert_eq!(checksums[Path::new("model/two words")], checksum(&b.to_lowercase()));
        for wrong in [&a[1..], &format!("{a} one"), &format!("{a}x  one"), "sha256"] {
            let error = parse(path, &format!("{a}  one\n{wrong}\n")).unwrap_err().to_string();
            assert!(error.starts_with("model/SHA256SUMS: line 2 is not"), "{error}");
        }
    }
}
