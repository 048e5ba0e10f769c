//! The files of a corpus: those that are named, and those in folders and subfolders.

use std::fs::FileType;
use std::path::{Path, PathBuf};

use crate::corpus::format::{Format, NamedFormat, SUPPORTED};
use crate::corpus::omission::Omission;
use crate::error::Error;

/// A file to read, and its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CorpusFile {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
}

/// The files to read, and those that the corpus omits from folders.
#[derive(Debug, Default)]
pub(crate) struct CorpusFiles {
    pub(crate) files: Vec<CorpusFile>,
    pub(crate) omissions: Vec<Omission>,
}

/// Names, without extensions, of files that describe a data set or its license. Folders of published data sets have
/// them beside the data.
const DESCRIPTIONS: [&str; 7] =
    ["readme", "license", "licence", "copying", "dataset_info", "dataset_infos", "dataset_dict"];

/// Extensions of backups, temporary files and unfinished downloads.
const TEMPORARY: [&str; 8] = ["bak", "orig", "swp", "tmp", "part", "partial", "crdownload", "incomplete"];

impl CorpusFiles {
    /// Lists the files. `declared` is the format of every named file, and of the files in folders whose names stand for
    /// no other format.
    ///
    /// A named file whose format is unknown is text. A folder stands for the files in it and in its subfolders, sorted
    /// by path; `omissions` lists the other files.
    ///
    /// # Errors
    /// [`Error::File`] for a named file of a format that is not supported, a folder that cannot be read, and a folder
    /// without files to read.
    pub(crate) fn list(paths: &[PathBuf], declared: Option<Format>) -> Result<Self, Error> {
        let mut found = Self::default();
        for path in paths {
            if path.is_dir() {
                found.add_folder(path, declared)?;
            } else {
                let format = declared.map_or_else(|| format_of_named(path), Ok)?;
                found.files.push(CorpusFile { path: path.clone(), format });
            }
        }
        Ok(found)
    }

    fn add_folder(&mut self, folder: &Path, declared: Option<Format>) -> Result<(), Error> {
        let mut walk = Walk { declared, ..Walk::default() };
        walk.folder(folder)?;
        let Walk { mut files, mut omissions, .. } = walk;
        if files.is_empty() {
            return Err(no_files(folder, declared, &omissions));
        }
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        omissions.sort_unstable_by(|a, b| Path::new(&a.path).cmp(Path::new(&b.path)));
        self.files.extend(files);
        self.omissions.extend(omissions);
        Ok(())
    }
}

/// Returns the format of a named file without a declared format.
fn format_of_named(path: &Path) -> Result<Format, Error> {
    match NamedFormat::of(path) {
        NamedFormat::Supported(format) => Ok(format),
        NamedFormat::Unknown => Ok(Format::Text),
        NamedFormat::Unsupported(name) => {
            let reason = format!(
                "the format of this file, {name}, is not supported; convert the file to one of {SUPPORTED}, or set \
                 `format` if its name is wrong"
            );
            Err(failed(path, std::io::Error::new(std::io::ErrorKind::Unsupported, reason)))
        }
    }
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: path.to_owned(), source }
}

fn no_files(folder: &Path, declared: Option<Format>, omissions: &[Omission]) -> Error {
    let expected = declared.map_or_else(|| SUPPORTED.to_owned(), |format| format!("files of format {format}"));
    let mut reason = format!("this folder has no file to read; expected {expected}");
    if !omissions.is_empty() {
        reason += &format!("; left out: {}", Omission::summaries(omissions).join("; "));
    }
    failed(folder, std::io::Error::other(reason))
}

/// A walk through a folder and its subfolders.
#[derive(Default)]
struct Walk {
    declared: Option<Format>,
    /// The folders above the current one, with links resolved, and the current one.
    parents: Vec<PathBuf>,
    files: Vec<CorpusFile>,
    omissions: Vec<Omission>,
}

impl Walk {
    fn folder(&mut self, folder: &Path) -> Result<(), Error> {
        let resolved = std::fs::canonicalize(folder).map_err(|error| failed(folder, error))?;
        if self.parents.contains(&resolved) {
            self.omit(folder, "a link to a folder that contains it");
            return Ok(());
        }
        self.parents.push(resolved);
        for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, error))? {
            let path = entry.map_err(|error| failed(folder, error))?.path();
            match omission_reason(&path) {
                Some(reason) => self.omit(&path, reason),
                // Follows links, and fails if a link leads nowhere.
                None => match std::fs::metadata(&path).map_err(|error| failed(&path, error))?.file_type() {
                    kind if kind.is_dir() => self.folder(&path)?,
                    kind => self.file(path, kind),
                },
            }
        }
        self.parents.pop();
        Ok(())
    }

    fn file(&mut self, path: PathBuf, kind: FileType) {
        let format = match (NamedFormat::of(&path), self.declared) {
            _ if !kind.is_file() => Err("not a regular file".to_owned()),
            (NamedFormat::Unsupported(name), _) => Err(format!("format not supported: {name}")),
            (NamedFormat::Supported(named), Some(declared)) if named != declared => {
                Err(format!("named {named}, but `format` is {declared}"))
            }
            (NamedFormat::Supported(format), _) | (NamedFormat::Unknown, Some(format)) => Ok(format),
            (NamedFormat::Unknown, None) => Err("unknown format; name the file, or set `format`".to_owned()),
        };
        match format {
            Ok(format) => self.files.push(CorpusFile { path, format }),
            Err(reason) => self.omit(&path, reason),
        }
    }

    fn omit(&mut self, path: &Path, reason: impl Into<String>) {
        self.omissions.push(Omission { path: path.display().to_string(), reason: reason.into(), texts: None });
    }
}

/// Returns the reason to omit a file or subfolder, from its name alone; `None` to read it.
fn omission_reason(path: &Path) -> Option<&'static str> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (stem, extension) = name.split_once('.').unwrap_or((&name, ""));
    let last_extension = extension.rsplit('.').next().unwrap_or_default();
    match name.as_str() {
        _ if name.starts_with('.') => Some("hidden"),
        "__macosx" | "thumbs.db" | "desktop.ini" => Some("hidden"),
        _ if name.ends_with('~') || name.starts_with('#') && name.ends_with('#') => Some("backup or temporary file"),
        _ if TEMPORARY.contains(&last_extension) => Some("backup or temporary file"),
        _ if DESCRIPTIONS.contains(&stem) => Some("description of a data set; name the file to read it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
