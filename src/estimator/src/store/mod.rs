//! Saved answers: a folder of files. The folder's name contains a hash of the model, the documents and the queries.
//!
//! Start with [`AnswerStore::open`]. `answer_file` encodes and decodes the Parquet files; `merge` combines the folders
//! of several processes.

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
}

impl AnswerStore {
    /// Opens or creates the store in a folder below `parent`. `experiment` is saved with the answers only so that
    /// people can read it.
    ///
    /// # Errors
    /// [`Error::File`] if the folder or its manifest cannot be written.
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

    /// Loads the saved answers: for each query of the plan, its log-probabilities, or `None` if no answer is saved. A
    /// damaged file is logged and skipped.
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
                Err(damage) => {
                    tracing::warn!(path = %path.display(), %damage, "damaged answer file; sending its queries again");
                }
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
        };
        fields.into_iter().for_each(&mut number);
    }
    hasher.update(model.fingerprint.as_bytes());
    hasher.finalize().to_hex().to_string()
}
