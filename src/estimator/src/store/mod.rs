//! Answers that outlive the process: a folder of shards, named by a hash of the model, the documents and the queries.
//!
//! Start with [`AnswerStore::open`]. A `shard` is one Parquet file; `merge` puts the folders of several processes together.

mod merge;
mod provenance;
mod shard;

pub use merge::{Merged, merge};

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Error;
use crate::files::write_atomically;
use crate::plan::{Plan, Step};
use crate::source::Model;
use crate::spec::Experiment;
use crate::store::provenance::Provenance;
use crate::store::shard::Shard;

/// The content of `manifest.json`, which describes a folder of answers.
#[derive(Serialize)]
struct Manifest<'a> {
    #[serde(flatten)]
    provenance: &'a Provenance,
    documents: usize,
    steps: usize,
    experiment: &'a Experiment,
}

/// A folder with the answers to one plan over the same documents by the same model, from which an interrupted run continues.
///
/// The folder's name holds a hash of the model's fingerprint, the documents and the steps: equal names, equal answers. What else an
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
            key: answers_key(model, documents, plan.steps()),
            version: env!("CARGO_PKG_VERSION"),
            model: model.name.clone(),
            fingerprint: model.fingerprint.clone(),
            config: experiment.digest(),
            seed: experiment.seed,
        };
        let folder = parent.join(format!("answers-{}", &provenance.key[..16]));
        std::fs::create_dir_all(&folder).map_err(|source| Error::File { path: folder.clone(), source })?;
        let (documents, steps) = (documents.len(), plan.steps().len());
        let manifest = Manifest { provenance: &provenance, documents, steps, experiment };
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

    /// Loads the saved answers: for each step of the plan its log-probabilities, or none. A damaged shard is logged and skipped.
    pub(crate) fn load(&self, steps: &[Step]) -> Result<Vec<Option<Vec<f32>>>, Error> {
        let mut answers = vec![None; steps.len()];
        let failed = |source| Error::File { path: self.folder.clone(), source };
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != "parquet") {
                continue;
            }
            let bytes = std::fs::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let checksum = name.rsplit('-').next().unwrap_or_default();
            match Shard::decode(bytes, checksum, &self.provenance.key, steps) {
                Ok(shard) => {
                    for (slot, answer) in answers[shard.first..].iter_mut().zip(shard.answers) {
                        *slot = Some(answer);
                    }
                }
                Err(damage) => tracing::warn!("{}: {damage}; its steps are asked again", path.display()),
            }
        }
        Ok(answers)
    }

    /// Saves the answers to `steps[range]` as a shard, and returns them.
    pub(crate) fn save(
        &self,
        steps: &[Step],
        range: Range<usize>,
        answers: Vec<Vec<f32>>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let Range { start, end } = range;
        let shard = Shard { first: start, answers };
        let bytes = shard
            .encode(&self.provenance, &steps[start..end])
            .map_err(|error| Error::File { path: self.folder.clone(), source: std::io::Error::other(error) })?;
        let name = format!("{start:09}-{end:09}-{}.parquet", Shard::checksum(&bytes));
        write_atomically(&self.folder.join(name), &bytes)?;
        Ok(shard.answers)
    }
}

/// Hashes what the answers depend on: model, documents and steps.
fn answers_key(model: &Model, documents: &[Vec<u32>], steps: &[Step]) -> String {
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
    for step in steps {
        let fields = match *step {
            Step::Whole { document, end } => [0, document, end, 0, 0],
            Step::Crossed { x, y, split, end } => [1, x, y, split, end],
            Step::Marginal { document, split, end } => [2, document, split, end, 0],
        };
        fields.into_iter().for_each(&mut number);
    }
    hasher.update(model.fingerprint.as_bytes());
    hasher.finalize().to_hex().to_string()
}
