//! The fingerprint of a checkpoint: a hash of its files and configuration, computed while checksums are verified.

use std::path::PathBuf;
use std::sync::PoisonError;

use rayon::prelude::*;

use super::checksums::read_checksums;
use super::shard::Shard;
use super::{Checkpoint, ReadPurpose};
use crate::error::Error;

impl Checkpoint {
    /// Returns 16 hex digits that change whenever a weight, a tensor's name or shape, or a relevant field of
    /// config.json changes.
    ///
    /// The first call reads all weight files, several at a time, and verifies their known checksums: those in
    /// `SHA256SUMS` in the same folder, or in the names of the hub's blobs to which the files link.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ChecksumMismatch`] if a file does not match its known checksum. Also fails if `SHA256SUMS`
    /// cannot be read or is malformed.
    pub fn fingerprint(&self) -> Result<String, Error> {
        let mut cached = self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fingerprint) = &*cached {
            return Ok(fingerprint.clone());
        }
        let fingerprint = self.compute_fingerprint()?;
        Ok(cached.insert(fingerprint).clone())
    }

    fn compute_fingerprint(&self) -> Result<String, Error> {
        let paths: Vec<PathBuf> = self.shards.iter().map(|shard| shard.path().to_owned()).collect();
        let checksums = read_checksums(&self.dir, &paths)?;
        let observe = |bytes: u64| self.observe(ReadPurpose::Checksums, bytes as usize);
        let digest = |shard: &Shard| shard.digest(checksums.get(shard.path()), observe);
        let digests = self.shards.par_iter().map(digest).collect::<Result<Vec<_>, _>>()?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{:?}", self.config).as_bytes());
        for digest in digests {
            hasher.update(digest.as_bytes());
        }
        Ok(hasher.finalize().to_hex()[..16].to_owned())
    }
}
