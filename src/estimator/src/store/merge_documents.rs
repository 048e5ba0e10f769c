//! Merging the documents that several folders of answers have beside the answers.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::files::{remove_abandoned, write_atomically};
use crate::store::document_files::{FOLDER, NAMES};

/// The files with the documents, each with its bytes and the path it was read from. Folders of earlier versions have
/// none.
#[derive(Default)]
pub(crate) struct MergedDocuments {
    files: [Option<(PathBuf, Vec<u8>)>; NAMES.len()],
}

impl MergedDocuments {
    /// Adds the files of a folder of answers.
    ///
    /// # Errors
    /// [`Error::Merge`] if they differ from those of the folders before; [`Error::File`] if one cannot be read.
    pub(crate) fn add(&mut self, folder: &Path) -> Result<(), Error> {
        for (name, known) in NAMES.iter().zip(&mut self.files) {
            let path = folder.join(FOLDER).join(name);
            let bytes = match std::fs::read(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                read => read.map_err(|source| Error::File { path: path.clone(), source })?,
            };
            match known {
                None => *known = Some((path, bytes)),
                Some((_, expected)) if *expected == bytes => {}
                Some((other, _)) => {
                    let reason = format!(
                        "its content differs from {}; remove the file that is wrong: a run writes it again",
                        other.display()
                    );
                    return Err(Error::Merge { path, reason });
                }
            }
        }
        Ok(())
    }

    /// Writes the files to a folder of answers, unless they are there.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        let folder = folder.join(FOLDER);
        remove_abandoned(&folder, |name| NAMES.contains(&name));
        for (name, file) in NAMES.iter().zip(&self.files) {
            let Some((_, bytes)) = file else { continue };
            std::fs::create_dir_all(&folder).map_err(|source| Error::File { path: folder.clone(), source })?;
            let path = folder.join(name);
            if !path.exists() {
                write_atomically(&path, bytes)?;
            }
        }
        Ok(())
    }
}
