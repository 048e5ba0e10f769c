//! A weight file of a checkpoint: memory-mapped safetensors.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use ring::digest::{Context, SHA256};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};

use super::checksums::Checksum;
use crate::error::Error;

/// Number of bytes that are hashed at a time.
const HASH_CHUNK_BYTES: usize = 1 << 26;

/// A weight file and its header.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    map: Mmap,
    metadata: Metadata,
    /// Offset of the tensors' bytes in the file.
    data_offset: usize,
}

impl Shard {
    /// Maps a file and checks its header.
    #[allow(unsafe_code)]
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: the map is only read. If another process changes the file in the meantime, the values change. If
        // another process truncates the file, the system kills this process. This is the usual contract of mapped
        // weights.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        let damaged = |error: SafeTensorError| {
            Error::malformed(path, format!("{error}; the file is truncated or corrupted; download it again"))
        };
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(damaged)?;
        let data_offset = header + size_of::<u64>();
        let shard = Self { path: path.to_owned(), map, metadata, data_offset };
        shard.check_header()?;
        Ok(shard)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns the total size of the file's tensors, in bytes.
    pub(super) fn tensor_bytes(&self) -> u64 {
        (self.map.len() - self.data_offset) as u64
    }

    /// Returns a tensor's bytes.
    pub(super) fn bytes(&self, info: &TensorInfo) -> &[u8] {
        let (begin, end) = info.data_offsets;
        &self.map[self.data_offset + begin..self.data_offset + end]
    }

    /// Releases the memory of a part of the map until it is read again. This is only a hint to the operating system, so
    /// a failure does not matter.
    #[allow(unsafe_code)]
    pub(super) fn release(&self, part: &[u8]) {
        #[cfg(unix)]
        {
            let offset = part.as_ptr().addr() - self.map.as_ptr().addr();
            // SAFETY: the map is read-only and backed by the file, so a dropped page is read from the file again on its
            // next access.
            let _ = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, part.len()) };
        }
    }

    /// Returns the BLAKE3 hash of the file, and verifies its checksum if one is known. `on_read` is called after each
    /// chunk is read, with the chunk's size in bytes.
    pub(super) fn digest(&self, known: Option<&Checksum>, on_read: impl Fn(u64)) -> Result<blake3::Hash, Error> {
        let mut hasher = blake3::Hasher::new();
        let mut sha256 = known.map(|_| Context::new(&SHA256));
        for bytes in self.map.chunks(HASH_CHUNK_BYTES) {
            let update = || sha256.as_mut().into_iter().for_each(|sha256| sha256.update(bytes));
            rayon::join(|| hasher.update_rayon(bytes).count(), update);
            self.release(bytes);
            on_read(bytes.len() as u64);
        }
        if let (Some(known), Some(sha256)) = (known, sha256) {
            let found: String = sha256.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            if found != known.sha256 {
                let Checksum { sha256: expected, source: known_by } = known.clone();
                return Err(Error::ChecksumMismatch { path: self.path.clone(), found, expected, known_by });
            }
        }
        Ok(hasher.finalize())
    }

    /// Checks that every tensor lies within the file and has the size that its shape implies.
    fn check_header(&self) -> Result<(), Error> {
        let available = self.map.len() - self.data_offset;
        for (name, info) in self.metadata.tensors() {
            let (begin, end) = info.data_offsets;
            let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, &size| bits.checked_mul(size));
            if begin > end || end > available || bits != (end - begin).checked_mul(8) {
                let reason = format!(
                    "tensor {name}: the data range {begin}..{end} of {available} bytes does not match shape {:?}",
                    info.shape
                );
                return Err(Error::malformed(&self.path, reason));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use ring::digest::digest;
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;
    use crate::checkpoint::{Checkpoint, ReadPurpose};

    const CONFIG: &str = r#"{"architectures":["LlamaForCausalLM"],"vocab_size":10,"hidden_size":8,
        "intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2}"#;

    /// Writes a checkpoint of two files with one tensor each, and returns the files' SHA-256.
    fn write(dir: &Path) -> [String; 2] {
        std::fs::write(dir.join("config.json"), CONFIG).unwrap();
        let index = r#"{"weight_map":{"x":"1.safetensors","y":"2.safetensors"}}"#;
        std::fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
        [("x", "1.safetensors"), ("y", "2.safetensors")].map(|(tensor, file)| {
            let view = TensorView::new(Dtype::F32, vec![2, 1], &[1; 8]).unwrap();
            let bytes = safetensors::serialize([(tensor, view)], None).unwrap();
            std::fs::write(dir.join(file), &bytes).unwrap();
            digest(&SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }

    fn damage(path: &Path) {
        let mut bytes = std::fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    fn fingerprint(dir: &Path) -> Result<String, Error> {
        Checkpoint::open(dir).unwrap().fingerprint()
    }

    #[test]
    fn a_file_that_does_not_match_sha256sums_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = write(dir.path());
        let unchecked = fingerprint(dir.path()).unwrap();
        let sums = |text: &str| std::fs::write(dir.path().join("SHA256SUMS"), text).unwrap();
        sums(&format!("{first}  1.safetensors\n{second} *2.safetensors\n{first}  config.json\n"));
        assert_eq!(fingerprint(dir.path()).unwrap(), unchecked);
        damage(&dir.path().join("2.safetensors"));
        let error = fingerprint(dir.path()).unwrap_err().to_string();
        assert!(error.contains("2.safetensors: checksum mismatch") && error.contains(&second), "{error}");
        assert!(error.contains("SHA256SUMS"), "{error}");
        sums(&format!("{first}  1.safetensors\n"));
        assert_ne!(fingerprint(dir.path()).unwrap(), unchecked);
        sums("nonsense");
        assert!(fingerprint(dir.path()).unwrap_err().to_string().contains("SHA256SUMS: line 1"));
    }

    #[cfg(unix)]
    #[test]
    fn a_corrupted_hub_blob_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let [first, _] = write(dir.path());
        let (file, blob) = (dir.path().join("1.safetensors"), dir.path().join(&first));
        std::fs::rename(&file, &blob).unwrap();
        std::os::unix::fs::symlink(&blob, &file).unwrap();
        fingerprint(dir.path()).unwrap();
        damage(&blob);
        let error = fingerprint(dir.path()).unwrap_err().to_string();
        assert!(error.contains("1.safetensors: checksum mismatch") && error.contains(&first), "{error}");
    }

    #[test]
    fn reads_are_observed() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path());
        let length = |file: &str| std::fs::metadata(dir.path().join(file)).unwrap().len();
        let files = length("1.safetensors") + length("2.safetensors");
        let reads = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&reads);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let checkpoint = checkpoint.with_observer(move |purpose, bytes| noted.lock().unwrap().push((purpose, bytes)));
        checkpoint.fingerprint().unwrap();
        let sum =
            |purpose| reads.lock().unwrap().iter().filter(|read| read.0 == purpose).map(|read| read.1).sum::<u64>();
        assert_eq!((sum(ReadPurpose::Checksums), sum(ReadPurpose::Weights), checkpoint.tensor_bytes()), (files, 0, 16));
        checkpoint.fingerprint().unwrap();
        assert_eq!(sum(ReadPurpose::Checksums), files, "the second call reads no file");
        checkpoint.tensor_f32("x", &[2, 1]).unwrap();
        checkpoint.read_slice("y", [2, 1], [1..2, 0..1], |_, _| {}).unwrap();
        assert_eq!(sum(ReadPurpose::Weights), 8 + 4);
    }
}
