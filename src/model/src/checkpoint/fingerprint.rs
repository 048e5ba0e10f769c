//! The fingerprint of a model's files: a hash of everything that decides a response, computed while checksums are
//! verified.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use rayon::prelude::*;

use super::checksums::read_checksums;
use super::companions::existing_companions;
use super::index::INDEX_FILE;
use super::shard::Shard;
use super::source_file::SourceFile;
use super::{Checkpoint, ReadPurpose};
use crate::error::{Error, exists};

/// Version of the rules by which this crate reads a model's files, for fingerprints. Increase it whenever a change of
/// the code, or of the tokenizers library, alters the tokens of a text or the tokens that end one. The backends have
/// versions of their own for arithmetic.
const READING_VERSION: &str = "surprisal-model-2";

impl Checkpoint {
    /// Returns 16 hex digits that change whenever the model's files change: the weights, config.json, tokenizer.json,
    /// or a file that describes special tokens, the tokens that end a text, or the chat template. The names of the
    /// weight files and the folder do not matter.
    ///
    /// The first call reads all files, several at a time, and verifies their known checksums: those in `SHA256SUMS` in
    /// the same folder, or in the names of the hub's blobs to which the files link.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ChecksumMismatch`] if a file does not match its known checksum. Also fails if a file or
    /// `SHA256SUMS` cannot be read, if `SHA256SUMS` is malformed, or if a weight file was modified since it was opened.
    pub fn fingerprint(&self) -> Result<String, Error> {
        let mut cached = self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fingerprint) = &*cached {
            return Ok(fingerprint.clone());
        }
        let weights: Vec<&SourceFile> = self.shards.iter().map(Shard::file).collect();
        let observe = |bytes: u64| self.observe(ReadPurpose::Checksums, bytes as usize);
        let mut hasher = hash_model(&self.dir, &weights, observe)?;
        // Beside the bytes of config.json, the defaults of absent fields and the head that is used.
        hasher.update(format!("{:?}", self.config).as_bytes());
        Ok(cached.insert(digits(&hasher)).clone())
    }
}

/// Returns the fingerprint of a model that another library loads: 16 hex digits that change whenever the contents of
/// the given weight files change, or those of the files in `dir` that [`Checkpoint::fingerprint`] covers. Verifies
/// checksums in the same way.
///
/// # Errors
///
/// Same as [`Checkpoint::fingerprint`].
pub fn fingerprint_files(dir: &Path, weights: &[PathBuf]) -> Result<String, Error> {
    let weights = weights.iter().map(|path| SourceFile::open(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(digits(&hash_model(dir, &weights.iter().collect::<Vec<_>>(), |_| ())?))
}

/// Hashes a model's files, and verifies their known checksums. `on_read` receives the number of bytes of each chunk of
/// the weights.
fn hash_model(dir: &Path, weights: &[&SourceFile], on_read: impl Fn(u64) + Sync) -> Result<blake3::Hasher, Error> {
    let companions = existing_companions(dir)?;
    // The index decides which files hold the weights, but the same tensors in the same files are the same model.
    let index = dir.join(INDEX_FILE);
    let index = exists(&index)?.then_some(index);
    let mut paths: Vec<&Path> = weights.iter().map(|file| file.path()).collect();
    paths.extend(companions.iter().map(|(_, path)| path.as_path()).chain(index.as_deref()));
    let checksums = read_checksums(dir, &paths)?;
    let digest = |path: &Path| SourceFile::open(path)?.digest(checksums.get(path), |_| ());

    let mut hasher = blake3::Hasher::new();
    hasher.update(READING_VERSION.as_bytes());
    for (name, path) in &companions {
        hasher.update(name.as_bytes()).update(digest(path)?.as_bytes());
    }
    if let Some(index) = &index {
        digest(index)?;
    }
    let digest_weights = |file: &&SourceFile| file.digest(checksums.get(file.path()), &on_read);
    let mut digests = weights.par_iter().map(digest_weights).collect::<Result<Vec<_>, _>>()?;
    // Without the names of the files, their order would mean nothing.
    digests.sort_unstable_by_key(|digest| *digest.as_bytes());
    for digest in digests {
        hasher.update(digest.as_bytes());
    }
    Ok(hasher)
}

/// Returns the first 16 hex digits of a hash.
fn digits(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests;
