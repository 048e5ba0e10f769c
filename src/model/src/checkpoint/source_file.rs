//! A file of a checkpoint, which is opened once and read at offsets.
//!
//! Files are read, not mapped into memory. If another process truncates a mapped file, the system kills the process
//! that accesses the map; a read returns an error instead.

use std::fs::{File, Metadata};
use std::io::{Error as IoError, ErrorKind, Result as IoResult};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;
use ring::digest::{Context, SHA256};

use super::checksums::Checksum;
use crate::error::Error;

/// Number of bytes that one thread reads at a time.
const READ_BYTES: usize = 1 << 20;

/// Number of bytes that are hashed at a time. The next ones are read in the meantime.
const HASH_BYTES: u64 = 1 << 23;

/// An open file, and the state in which every later read must find it.
#[derive(Debug)]
pub(super) struct SourceFile {
    path: PathBuf,
    file: File,
    state: FileState,
}

/// The properties of a file that change when it is truncated, extended or overwritten. Two writes within one tick of
/// the file system's clock, or a program that resets the time of modification, may go unnoticed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileState {
    bytes: u64,
    /// The time of the last modification; `None` if the file system does not record it.
    modified: Option<SystemTime>,
}

impl FileState {
    fn of(metadata: &Metadata) -> Self {
        Self { bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl SourceFile {
    /// Opens a file.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        if metadata.is_dir() {
            return Err(Error::io(path)(IoError::from(ErrorKind::IsADirectory)));
        }
        Ok(Self { path: path.to_owned(), file, state: FileState::of(&metadata) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the size in bytes when the file was opened.
    pub(super) fn bytes(&self) -> u64 {
        self.state.bytes
    }

    /// Fills a buffer with the file's bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or has been truncated or modified since it was opened.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let pieces = buffer.par_chunks_mut(READ_BYTES).enumerate();
        let read = pieces
            .try_for_each(|(index, piece)| read_exact_at(&self.file, piece, offset + (index * READ_BYTES) as u64));
        match read {
            // The file became shorter. The error states its size, unless it has grown again.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.check_unchanged()?;
                Err(Error::io(&self.path)(error))
            }
            Err(error) => Err(Error::io(&self.path)(error)),
            Ok(()) => self.check_unchanged(),
        }
    }

    /// Checks that nothing has changed the file since it was opened.
    fn check_unchanged(&self) -> Result<(), Error> {
        let now = FileState::of(&self.file.metadata().map_err(Error::io(&self.path))?);
        if now == self.state {
            return Ok(());
        }
        let change = match now.bytes == self.state.bytes {
            true => format!("all of its {} bytes may have new values", now.bytes),
            false => format!("it had {} bytes and now has {}", self.state.bytes, now.bytes),
        };
        let reason = format!("the file was modified while the model was loaded: {change}; load the model again");
        Err(Error::malformed(&self.path, reason))
    }

    /// Returns the BLAKE3 hash of the file, and verifies its checksum if one is known. `on_read` receives the number of
    /// bytes of each chunk after the chunk was hashed.
    pub(super) fn digest(&self, known: Option<&Checksum>, on_read: impl Fn(u64)) -> Result<blake3::Hash, Error> {
        let mut hasher = blake3::Hasher::new();
        let mut sha256 = known.map(|_| Context::new(&SHA256));
        let (mut chunk, mut next, mut offset) = (Vec::new(), Vec::new(), 0);
        loop {
            next.resize(HASH_BYTES.min(self.bytes() - offset) as usize, 0);
            let hash = || {
                let update = || sha256.as_mut().into_iter().for_each(|sha256| sha256.update(&chunk));
                rayon::join(|| hasher.update_rayon(&chunk).count(), update);
            };
            let (read, ()) = rayon::join(|| self.read(offset, &mut next), hash);
            read?;
            if !chunk.is_empty() {
                on_read(chunk.len() as u64);
            }
            if next.is_empty() {
                break;
            }
            offset += next.len() as u64;
            std::mem::swap(&mut chunk, &mut next);
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
}

/// Fills a buffer from an offset, independently of the file's own position.
#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> IoResult<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills a buffer from an offset. Every read on Windows states its offset.
#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> IoResult<()> {
    while !buffer.is_empty() {
        let bytes = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if bytes == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        (buffer, offset) = (&mut buffer[bytes..], offset + bytes as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::time::Duration;

    use super::*;

    /// Writes a file that is longer than two chunks.
    fn long_file(dir: &Path) -> (PathBuf, Vec<u8>) {
        let path = dir.join("weights");
        let contents: Vec<u8> = (0..2 * HASH_BYTES as usize + 12_345).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &contents).unwrap();
        (path, contents)
    }

    #[test]
    fn long_files_are_hashed_and_read_at_any_offset() {
        let dir = tempfile::tempdir().unwrap();
        let (path, contents) = long_file(dir.path());
        let file = SourceFile::open(&path).unwrap();
        let read = std::cell::Cell::new(0);
        let hash = file.digest(None, |bytes| read.set(read.get() + bytes)).unwrap();
        assert_eq!((hash, read.get()), (blake3::hash(&contents), contents.len() as u64));
        let mut buffer = vec![0; 3 * READ_BYTES + 7];
        file.read(5, &mut buffer).unwrap();
        assert!(buffer == contents[5..][..buffer.len()]);
        std::fs::write(&path, "").unwrap();
        let empty = SourceFile::open(&path).unwrap();
        assert_eq!(empty.digest(None, |_| panic!("nothing is read")).unwrap(), blake3::hash(b""));
    }

    #[test]
    fn changes_while_a_file_is_open_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let (path, contents) = long_file(dir.path());
        let file = SourceFile::open(&path).unwrap();
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        writer.set_len(READ_BYTES as u64).unwrap();
        let expected = format!("it had {} bytes and now has {READ_BYTES}; load the model again", contents.len());
        let mut buffer = vec![0; READ_BYTES + 1];
        for error in [file.read(0, &mut buffer).unwrap_err(), file.digest(None, |_| ()).unwrap_err()] {
            assert!(error.to_string().ends_with(&expected), "{error}");
        }
        let file = SourceFile::open(&path).unwrap();
        writer.set_modified(SystemTime::now() + Duration::from_secs(60)).unwrap();
        let error = file.read(0, &mut [0]).unwrap_err().to_string();
        assert!(error.contains("may have new values; load the model again"), "{error}");
    }
}
