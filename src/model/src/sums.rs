//! The checksums that weights are known by: `SHA256SUMS` beside them, as `sha256sum` writes it, or the names of the hub's blobs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::Error;

/// The file that says them.
const SUMS: &str = "SHA256SUMS";

/// A file's SHA-256, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    /// In lower-case hexadecimal digits.
    pub(crate) sha256: String,
    pub(crate) source: PathBuf,
}

/// What is known of these files of a folder.
///
/// # Errors
///
/// A line of `SHA256SUMS` that is no checksum.
pub(crate) fn known(dir: &Path, files: &[PathBuf]) -> Result<HashMap<PathBuf, Sum>, Error> {
    let path = dir.join(SUMS);
    let mut sums = match std::fs::read_to_string(&path) {
        Ok(text) => parse(&path, &text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => HashMap::new(),
        Err(error) => return Err(Error::io(&path)(error)),
    };
    for file in files {
        if let Some(sum) = of_blob(file) {
            sums.entry(file.clone()).or_insert(sum);
        }
    }
    Ok(sums)
}

/// Lines of a checksum, a space, another one or a star, and a name.
fn parse(path: &Path, text: &str) -> Result<HashMap<PathBuf, Sum>, Error> {
    let mut sums = HashMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parts = line.split_once(' ').filter(|(sha256, _)| is_sha256(sha256));
        let name = parts.and_then(|(_, name)| name.strip_prefix([' ', '*']));
        let (Some((sha256, _)), Some(name)) = (parts, name) else {
            let reason = format!("line {} is not a SHA-256 in hexadecimal digits, two spaces and a name", index + 1);
            return Err(Error::malformed(path, reason));
        };
        let file = path.with_file_name(name.strip_prefix("./").unwrap_or(name));
        sums.insert(file, Sum { sha256: sha256.to_ascii_lowercase(), source: path.to_owned() });
    }
    Ok(sums)
}

/// In the hub's cache a large file is a link to a blob that is named by its SHA-256; a small one's name is another hash.
fn of_blob(file: &Path) -> Option<Sum> {
    let blob = std::fs::read_link(file).ok()?;
    let sha256 = blob.file_name()?.to_str().filter(|name| is_sha256(name))?.to_ascii_lowercase();
    Some(Sum { sha256, source: blob })
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
        let sums = parse(path, &format!("{a}  one.safetensors\n\n{b} *./two words\n")).unwrap();
        let sum = |sha256: &str| Sum { sha256: sha256.to_owned(), source: path.to_owned() };
        assert_eq!(sums[Path::new("model/one.safetensors")], sum(&a));
        assert_eq!(sums[Path::new("model/two words")], sum(&b.to_lowercase()));
        for wrong in [&a[1..], &format!("{a} one"), &format!("{a}x  one"), "sha256"] {
            let error = parse(path, &format!("{a}  one\n{wrong}\n")).unwrap_err().to_string();
            assert!(error.starts_with("model/SHA256SUMS: line 2 is not"), "{error}");
        }
    }
}
