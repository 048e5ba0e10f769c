//! Known checksums of weight files: from the file `SHA256SUMS` in the same folder, in the format of `sha256sum`, or
//! from the names of blobs in the hub's cache.

use std::collections::HashMap;
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

/// Reads the known checksums of a folder's files.
///
/// # Errors
///
/// Fails if `SHA256SUMS` cannot be read or has a malformed line.
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

/// Parses lines that consist of a checksum, a space, a second space or an asterisk, and a file name.
fn parse(path: &Path, text: &str) -> Result<HashMap<PathBuf, Checksum>, Error> {
    let mut checksums = HashMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parts = line.split_once(' ').filter(|(sha256, _)| is_sha256(sha256));
        let name = parts.and_then(|(_, name)| name.strip_prefix([' ', '*']));
        let (Some((sha256, _)), Some(name)) = (parts, name) else {
            let reason =
                format!("line {} must be a SHA-256 in hexadecimal digits, two spaces and a file name", index + 1);
            return Err(Error::malformed(path, reason));
        };
        let file = path.with_file_name(name.strip_prefix("./").unwrap_or(name));
        checksums.insert(file, Checksum { sha256: sha256.to_ascii_lowercase(), source: path.to_owned() });
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
    }
}
