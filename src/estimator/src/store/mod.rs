//! Answers that outlive the process: a folder of files, named by a hash of the model, the documents and the queries.
//!
//! Start with [`AnswerStore::open`]. An `answer_file` is in Parquet; `merge` puts the folders of several processes together.

mod answer_file;
mod merge;
mod provenance;

pub use merge::{Merged, merge};

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Error;
use crate::files::write_atomically;
use crate::plan::{Plan, PlannedQuery};
use crate::source::Model;
use crate::spec::Experiment;
use crate::store::answer_file::AnswerFile;
use crate::store::provenance::Provenance;

/// The content of `manifest.json`, which describes a folder of answers.
#[derive(Serialize)]
struct Manifest<'a> {
    #[serde(flatten)]
    provenance: &'a Provenance,
    documents: usize,
    /// The file's key is `steps`, as in earlier versions.
    #[serde(rename = "steps")]
    queries: usize,
    experiment: &'a Experiment,
}

/// A folder with the answers to one plan over the same documents by the same model, from which an interrupted run continues.
///
/// The folder's name holds a hash of the model's fingerprint, the documents and the queries: equal names, equal answers. What else an
/// experiment says (intervals, corrections, units) may change without a query being sent again.
#[derive(Debug)]
pub struct AnswerStore {
    folder: PathBuf,
    provenance: Provenance,
}

impl AnswerStore {
    /// Opens the store below `parent`, or creates it. `experiment` is written beside the answers for people to read.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be made.
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
        std::fs::create_dir_all(&folder).map_err(|source| Error::File { path: folder.clone(), source })?;
        let (documents, queries) = (documents.len(), plan.queries().len());
        let manifest = Manifest { provenance: &provenance, documents, queries, experiment };
        let path = folder.join("manifest.json");
        let json = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| Error::File { path: path.clone(), source: error.into() })?;
        write_atomically(&path, &json)?;
        Ok(Self { folder, provenance })
    }

    /// Returns the folder of the answers.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Loads the saved answers: for each query of the plan its log-probabilities, or none. A damaged file is logged and skipped.
    pub(crate) fn load(&self, queries: &[PlannedQuery]) -> Result<Vec<Option<Vec<f32>>>, Error> {
        let mut answers = vec![None; queries.len()];
        let failed = |source| Error::File { path: self.folder.clone(), source };
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != "parquet") {
                continue;
            }
            let bytes = std::fs::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let checksum = name.rsplit('-').next().unwrap_or_default();
            match AnswerFile::decode(bytes, checksum, &self.provenance.key, queries) {
                Ok(file) => {
                    for (slot, answer) in answers[file.first..].iter_mut().zip(file.answers) {
                        *slot = Some(answer);
                    }
                }
                Err(damage) => tracing::warn!("{}: {damage}; its steps are asked again", path.display()),
            }
        }
        Ok(answers)
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
        let name = format!("{start:09}-{end:09}-{}.parquet", AnswerFile::checksum(&bytes));
        write_atomically(&self.folder.join(name), &bytes)?;
        Ok(file.answers)
    }
}

/// Hashes what the answers depend on: model, documents and queries.
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
        };
        fields.into_iter().for_each(&mut number);
    }
    hasher.update(model.fingerprint.as_bytes());
    hasher.finalize().to_hex().to_string()
}
