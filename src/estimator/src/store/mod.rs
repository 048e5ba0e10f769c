//! Saved answers: a folder of files. The folder's name contains a hash of the model, the documents and the queries.
//!
//! Start with [`AnswerStore::open`]. `answer_file` encodes and decodes the Parquet files, and `answer_name` their
//! names. `document_files` encodes the documents, which are saved beside the answers; `merge` combines the folders of
//! several processes.

mod answer_file;
mod answer_name;
mod columns;
mod document_files;
mod merge;
mod merge_documents;
mod provenance;

pub use merge::{Merged, merge};

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::corpus::Documents;
use crate::error::Error;
use crate::files::{remove_abandoned, write_atomically};
use crate::plan::{Plan, PlannedQuery};
use crate::source::Model;
use crate::spec::Experiment;
use crate::store::answer_file::AnswerFile;
use crate::store::answer_name::{AnswerName, EXTENSION};
use crate::store::provenance::Provenance;

/// The file that describes a folder of answers.
const MANIFEST: &str = "manifest.json";

/// The content of `manifest.json`, which describes a folder of answers.
#[derive(Serialize)]
struct Manifest<'a> {
    #[serde(flatten)]
    provenance: &'a Provenance,
    documents: usize,
    /// Number of queries; the JSON key is `steps`, as in earlier versions.
    #[serde(rename = "steps")]
    queries: usize,
    experiment: &'a Experiment,
}

/// A folder with one model's answers to the queries of one plan over one set of documents. An interrupted run continues
/// from these answers.
///
/// The folder's name contains a hash of the model's fingerprint, the documents and the queries, so equal names mean
/// equal answers. If only other settings of an experiment change (intervals, corrections, units), no query is sent
/// again.
#[derive(Debug)]
pub struct AnswerStore {
    folder: PathBuf,
    provenance: Provenance,
    /// The file that keeps answers from being saved, and the error; `None` if they can be saved.
    obstacle: Option<(PathBuf, io::Error)>,
}

impl AnswerStore {
    /// Opens or creates the store in a folder below `parent`, and removes temporary files that killed runs left there.
    /// `experiment` is saved with the answers only so that people can read it.
    ///
    /// If the folder or its manifest cannot be written, the saved answers can still be read.
    /// `check_writable` returns the error.
    ///
    /// # Errors
    /// [`Error::File`] if the manifest cannot be encoded.
    pub fn open(
        parent: &Path,
        model: &Model,
        documents: &[Vec<u32>],
        plan: &Plan,
        experiment: &Experiment,
    ) -> Result<Self, Error> {
        let provenance = Provenance {
            key: answers_key(model, documents, plan.queries()),
            version: env!("CARGO_PKG_VERSION"),
            model: model.name.clone(),
            fingerprint: model.fingerprint.clone(),
            config: experiment.digest(),
            seed: experiment.seed,
        };
        let folder = parent.join(format!("answers-{}", &provenance.key[..16]));
        let (documents, queries) = (documents.len(), plan.queries().len());
        let manifest = Manifest { provenance: &provenance, documents, queries, experiment };
        let path = folder.join(MANIFEST);
        let json = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| Error::File { path: path.clone(), source: error.into() })?;
        // First, because this may free space on a full disk.
        remove_temporary_files(&folder);
        let obstacle = match prepare(&folder, &path, &json) {
            Err(Error::File { path, source }) => Some((path, source)),
            prepared => prepared.map(|()| None)?,
        };
        Ok(Self { folder, provenance, obstacle })
    }

    /// Saves the documents beside the answers, unless the files that exist have the same bytes.
    ///
    /// If they cannot be written, the saved answers can still be read. `check_writable` returns the error.
    ///
    /// # Errors
    /// [`Error::File`] if they cannot be encoded.
    pub(crate) fn save_documents(&mut self, documents: &Documents) -> Result<(), Error> {
        if self.obstacle.is_some() {
            return Ok(());
        }
        let folder = self.folder.join(document_files::FOLDER);
        let files = document_files::encode(documents, &self.provenance.key)
            .map_err(|error| Error::File { path: folder.clone(), source: io::Error::other(error) })?;
        remove_abandoned(&folder, |name| document_files::NAMES.contains(&name));
        for (name, bytes) in document_files::NAMES.iter().zip(&files) {
            if let Err(Error::File { path, source }) = prepare(&folder, &folder.join(name), bytes) {
                self.obstacle = Some((path, source));
                break;
            }
        }
        Ok(())
    }

    /// Returns the folder of the answers.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Checks that answers can be saved.
    ///
    /// # Errors
    /// The error that occurred when the folder was opened.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        let Some((path, error)) = &self.obstacle else { return Ok(()) };
        // `io::Error` is not `Clone`; this one has the same kind and text.
        Err(Error::File { path: path.clone(), source: io::Error::new(error.kind(), error.to_string()) })
    }

    /// Logs the error that keeps answers from being saved, if there is one: no answers remain to be saved.
    pub(crate) fn ignore_obstacle(&self) {
        if let Some((path, error)) = &self.obstacle {
            let path = path.display();
            tracing::warn!(%path, %error, "cannot write to the folder of answers; all answers are saved already");
        }
    }

    /// Loads the saved answers: for each query of the plan, its log-probabilities, or `None` if no answer is saved. A
    /// damaged file is logged and skipped. If several files answer a query, the last one in the order of names counts.
    pub(crate) fn load(&self, queries: &[PlannedQuery]) -> Result<Vec<Option<Vec<f32>>>, Error> {
        let mut answers = vec![None; queries.len()];
        for path in self.answer_files()? {
            let Some(name) = path.file_name().and_then(OsStr::to_str).and_then(AnswerName::parse) else {
                tracing::warn!(path = %path.display(), "not the name of an answer file; ignoring the file");
                continue;
            };
            let bytes = std::fs::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
            match AnswerFile::decode(bytes, &name, &self.provenance.key, queries) {
                Ok(file) => {
                    for (slot, answer) in answers[file.first..].iter_mut().zip(file.answers) {
                        *slot = Some(answer);
                    }
                }
                Err(damage) => {
                    tracing::warn!(path = %path.display(), %damage, "damaged answer file; sending its queries again");
                }
            }
        }
        Ok(answers)
    }

    /// Lists the Parquet files in the folder, in the order of their names. There are none if the folder does not exist.
    fn answer_files(&self) -> Result<Vec<PathBuf>, Error> {
        let failed = |source| Error::File { path: self.folder.clone(), source };
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut paths = entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect::<Result<Vec<_>, Error>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
        paths.sort_unstable();
        Ok(paths)
    }

    /// Saves the answers to `queries[range]` as a file, and returns them.
    pub(crate) fn save(
        &self,
        queries: &[PlannedQuery],
        range: Range<usize>,
        answers: Vec<Vec<f32>>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let Range { start, end } = range;
        let file = AnswerFile { first: start, answers };
        let bytes = file
            .encode(&self.provenance, &queries[start..end])
            .map_err(|error| Error::File { path: self.folder.clone(), source: std::io::Error::other(error) })?;
        write_atomically(&self.folder.join(file.name(&bytes).to_string()), &bytes)?;
        Ok(file.answers)
    }
}

/// Creates a folder and a file in it, unless the file exists with these bytes.
fn prepare(folder: &Path, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
    match std::fs::read(path).is_ok_and(|existing| existing == bytes) {
        true => Ok(()),
        false => write_atomically(path, bytes),
    }
}

/// Removes the temporary files that killed runs left in a folder of answers.
fn remove_temporary_files(folder: &Path) {
    remove_abandoned(folder, |name| name == MANIFEST || AnswerName::parse(name).is_some());
}

/// Returns a hash of everything that the answers depend on: the model, the documents and the queries.
fn answers_key(model: &Model, documents: &[Vec<u32>], queries: &[PlannedQuery]) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut number = |number: usize| {
        hasher.update(&(number as u64).to_le_bytes());
    };
    number(documents.len());
    for document in documents {
        number(document.len());
        for &token in document {
            number(token as usize);
        }
    }
    for query in queries {
        let fields = match *query {
            PlannedQuery::Whole { document, end } => [0, document, end, 0, 0],
            PlannedQuery::Crossed { x, y, split, end } => [1, x, y, split, end],
            PlannedQuery::Marginal { document, split, end } => [2, document, split, end, 0],
            PlannedQuery::Joint { documents: [a, b], split, end } => [3, a, b, split, end],
            PlannedQuery::JointMarginal { documents: [a, b], split, end } => [4, a, b, split, end],
        };
        fields.into_iter().for_each(&mut number);
    }
    hasher.update(model.fingerprint.as_bytes());
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_obstacle_stays() {
        let [key, model, fingerprint, config] = ["key", "m", "f", "c"].map(str::to_owned);
        let provenance = Provenance { key, version: "1", model, fingerprint, config, seed: 0 };
        let (folder, error) = (PathBuf::from("answers"), io::Error::from(ErrorKind::StorageFull));
        let store = AnswerStore { folder: folder.clone(), provenance, obstacle: Some((folder, error)) };
        for _ in 0..2 {
            let error = store.check_writable().unwrap_err().to_string();
            assert_eq!(error, format!("answers: {}", io::Error::from(ErrorKind::StorageFull)));
        }
    }
}
