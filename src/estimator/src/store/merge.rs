//! Merging the answers to several shards of a plan into one folder.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::Error;
use crate::files::write_atomically;
use crate::store::answer_file::AnswerFile;
use crate::store::answer_name::{AnswerName, EXTENSION};
use crate::store::merge_documents::MergedDocuments;
use crate::store::{MANIFEST, remove_temporary_files};

/// Maximum number of missing ranges of queries that an error lists.
const SHOWN_RANGES: usize = 4;

/// The result of [`merge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Folder that contains all answers.
    pub folder: PathBuf,
    /// Number of queries in the plan that have an answer.
    pub answered: usize,
    /// Number of queries in the plan.
    pub queries: usize,
}

/// The fields of `manifest.json` that identify the answers.
#[derive(Deserialize, PartialEq, Eq)]
struct ManifestKey {
    key: String,
    #[serde(rename = "steps")]
    queries: usize,
}

/// Checks all answer files in the folders `from`, and copies them to one folder of answers below `into`. A run of the
/// same experiment with `into` as its folder then finds these answers. Each path in `from` is a folder of answers, or a
/// folder that contains such folders. Files that already exist in the target folder are kept, and count.
///
/// Nothing is copied unless all files are right. Several files may answer the same query if their answers are
/// bit-identical.
///
/// # Errors
/// [`Error::Merge`] for a folder without answers, answers to different queries or by different models, a damaged file,
/// files with different answers to a query, different documents, or queries without an answer; [`Error::File`] for a file or folder that
/// cannot be read or written.
pub fn merge(from: &[PathBuf], into: &Path) -> Result<Merged, Error> {
    let folders = from.iter().map(|parent| answers_below(parent)).collect::<Result<Vec<_>, _>>()?.concat();
    let Some(first) = folders.first() else {
        return Err(wrong(into, "no folders to merge"));
    };
    let manifest = read_manifest(first)?;
    let target = into.join(first.file_name().unwrap_or_default());
    let has_manifest = has_answers(&target)?;
    // An earlier merge may have left answers in the target folder, without a manifest if it was killed.
    let exists = target.try_exists().map_err(|source| Error::File { path: target.clone(), source })?;
    let earlier = exists.then(|| target.clone());
    let (mut union, mut documents) = (AnswerUnion::default(), MergedDocuments::default());
    for folder in earlier.iter().chain(&folders) {
        if *folder != target || has_manifest {
            check_same_answers(folder, &manifest, first)?;
        }
        for path in list(folder)? {
            union.add(&path, &manifest)?;
        }
        documents.add(folder)?;
    }
    std::fs::create_dir_all(&target).map_err(|source| Error::File { path: target.clone(), source })?;
    remove_temporary_files(&target);
    for path in &union.files {
        copy(path, &target)?;
    }
    documents.write(&target)?;
    if !has_manifest {
        write_atomically(&target.join(MANIFEST), &read(&first.join(MANIFEST))?)?;
    }
    let answered = union.check_complete(&target, manifest.queries)?;
    Ok(Merged { folder: target, answered, queries: manifest.queries })
}

/// The answers of several files to the queries of one plan.
#[derive(Default)]
struct AnswerUnion {
    files: Vec<PathBuf>,
    /// For each answered query, a hash of its log-probabilities, and the index of the first file that answers it.
    answers: BTreeMap<usize, (blake3::Hash, usize)>,
}

impl AnswerUnion {
    /// Checks an answer file, and adds its answers. Ignores files that are not Parquet files, such as the manifest.
    fn add(&mut self, path: &Path, manifest: &ManifestKey) -> Result<(), Error> {
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            return Ok(());
        }
        let name = path.file_name().and_then(|name| name.to_str()).and_then(AnswerName::parse);
        let Some(name) = name else {
            return Err(wrong(path, "not the name of an answer file; remove the file from the folder"));
        };
        let file = AnswerFile::decode_any_plan(read(path)?, &name, &manifest.key)
            .map_err(|damage| wrong(path, &damage.to_string()))?;
        if file.range().end > manifest.queries {
            let reason = format!("the file answers queries {:?}, but the plan has {}", file.range(), manifest.queries);
            return Err(wrong(path, &reason));
        }
        for (query, answer) in file.range().zip(&file.answers) {
            let hash = hash(answer);
            match self.answers.entry(query) {
                Entry::Vacant(vacant) => {
                    vacant.insert((hash, self.files.len()));
                }
                Entry::Occupied(known) if known.get().0 == hash => {}
                Entry::Occupied(known) => {
                    let other = self.files[known.get().1].display();
                    let reason = format!(
                        "query {query} (column `step`) has other log-probabilities than in {other}; remove the file \
                         that is wrong"
                    );
                    return Err(wrong(path, &reason));
                }
            }
        }
        self.files.push(path.to_owned());
        Ok(())
    }

    /// Checks that all queries are answered, and returns their number.
    fn check_complete(&self, folder: &Path, queries: usize) -> Result<usize, Error> {
        let (mut next, mut missing) = (0, Vec::new());
        for query in self.answers.keys().copied().chain([queries]) {
            if query > next {
                missing.push(format!("{next}..{query}"));
            }
            next = query + 1;
        }
        let answered = self.answers.len();
        if missing.is_empty() {
            return Ok(answered);
        }
        let more = if missing.len() > SHOWN_RANGES { ", ..." } else { "" };
        let named = missing[..missing.len().min(SHOWN_RANGES)].join(", ");
        Err(wrong(folder, &format!("{answered} of {queries} queries are answered; missing: {named}{more}")))
    }
}

/// Returns a hash of the bits of an answer.
fn hash(answer: &[f32]) -> blake3::Hash {
    let bytes: Vec<u8> = answer.iter().flat_map(|logprob| logprob.to_le_bytes()).collect();
    blake3::hash(&bytes)
}

/// Checks that a folder has answers by the same model to the same queries as the first one.
fn check_same_answers(folder: &Path, manifest: &ManifestKey, first: &Path) -> Result<(), Error> {
    if read_manifest(folder)? == *manifest {
        return Ok(());
    }
    let reason =
        format!("its answers belong to a different model, plan or set of documents than those in {}", first.display());
    Err(wrong(folder, &reason))
}

/// Copies an answer file to a folder unless it is already there. Its name has a checksum of its bytes.
fn copy(path: &Path, folder: &Path) -> Result<(), Error> {
    let copy = folder.join(path.file_name().unwrap_or_default());
    if copy.exists() { Ok(()) } else { write_atomically(&copy, &read(path)?) }
}

/// Returns the folders of answers in `parent`, or `parent` itself if it is a folder of answers.
fn answers_below(parent: &Path) -> Result<Vec<PathBuf>, Error> {
    if has_answers(parent)? {
        return Ok(vec![parent.to_owned()]);
    }
    let mut folders = Vec::new();
    for path in list(parent)? {
        if has_answers(&path)? {
            folders.push(path);
        }
    }
    if folders.is_empty() {
        return Err(wrong(parent, "no answers in this folder; pass a folder that `surprisal estimate --out` wrote"));
    }
    Ok(folders)
}

/// Returns whether a path is a folder of answers. Fails if the lookup fails, because the merge would miss overlooked
/// answers.
fn has_answers(path: &Path) -> Result<bool, Error> {
    let manifest = path.join(MANIFEST);
    match manifest.metadata() {
        Ok(metadata) => Ok(metadata.is_file()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(source) => Err(Error::File { path: manifest, source }),
    }
}

fn read_manifest(folder: &Path) -> Result<ManifestKey, Error> {
    let path = folder.join(MANIFEST);
    serde_json::from_slice(&read(&path)?).map_err(|error| wrong(&path, &error.to_string()))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::File { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths = entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect::<Result<Vec<_>, Error>>()?;
    paths.sort_unstable();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn wrong(path: &Path, reason: &str) -> Error {
    Error::Merge { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
