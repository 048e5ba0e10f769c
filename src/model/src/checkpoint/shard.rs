//! A weight file of a checkpoint, in the safetensors format.

use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};

use super::source_file::SourceFile;
use crate::error::Error;

/// Number of bytes at the beginning of a file that state the length of the header.
const LENGTH_BYTES: u64 = 8;

/// Maximum length of a header, as in the safetensors library.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A weight file and its header.
#[derive(Debug)]
pub(super) struct Shard {
    file: SourceFile,
    metadata: Metadata,
    /// Offset of the tensors' bytes in the file.
    data_offset: u64,
}

impl Shard {
    /// Opens a file and checks that its length matches its header.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = SourceFile::open(path)?;
        let damaged = |reason: &dyn Display| {
            Error::malformed(path, format!("{reason}; the file is truncated or corrupted; download it again"))
        };
        if file.bytes() < LENGTH_BYTES {
            return Err(damaged(&format!("{} bytes are too few for a header", file.bytes())));
        }
        let mut length = [0; LENGTH_BYTES as usize];
        file.read(0, &mut length)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES.min(file.bytes() - LENGTH_BYTES) {
            return Err(damaged(&format!("a header of {length} bytes does not fit in {} bytes", file.bytes())));
        }
        let mut header = vec![0; length as usize];
        file.read(LENGTH_BYTES, &mut header)?;
        // This checks that the tensors follow one another, and that each has the size that its shape implies.
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| damaged(&format!("invalid header: {error}")))?;
        let shard = Self { file, metadata, data_offset: LENGTH_BYTES + length };
        let (expected, found) = (shard.metadata.data_len() as u64, shard.tensor_bytes());
        if expected != found {
            return Err(damaged(&format!("the header lists tensors of {expected} bytes, but {found} bytes follow it")));
        }
        Ok(shard)
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(super) fn file(&self) -> &SourceFile {
        &self.file
    }

    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns the total size of the file's tensors, in bytes.
    pub(super) fn tensor_bytes(&self) -> u64 {
        self.file.bytes() - self.data_offset
    }

    /// Reads a range of a tensor's bytes into a buffer, whose previous contents are replaced.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or has been truncated or modified since it was opened.
    pub(super) fn read(&self, info: &TensorInfo, range: Range<usize>, buffer: &mut Vec<u8>) -> Result<(), Error> {
        buffer.resize(range.len(), 0);
        self.file.read(self.data_offset + (info.data_offsets.0 + range.start) as u64, buffer)
    }
}
