//! Merging the answers to several shards of a plan into one folder.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::Error;
use crate::files::write_atomically;
use crate::store::answer_file::AnswerFile;

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
#[derive(Deserialize)]
struct ManifestKey {
    key: String,
    #[serde(rename = "steps")]
    queries: usize,
}

/// Checks all answer files in the folders `from`, and copies them to one folder of answers below `into`. A run of the
/// same experiment with `into` as its folder then finds these answers. Each path in `from` is a folder of answers, or a
/// folder that contains such folders. Files that already exist in the target folder are kept.
///
/// # Errors
/// [`Error::Merge`] for a folder without answers, answers to different queries or by different models, a damaged file,
/// or queries without an answer; [`Error::File`] for a file or folder that cannot be read or written.
pub fn merge(from: &[PathBuf], into: &Path) -> Result<Merged, Error> {
    let folders = from.iter().map(|parent| answers_below(parent)).collect::<Result<Vec<_>, _>>()?.concat();
    let Some(first) = folders.first() else {
        return Err(wrong(into, "no folders to merge"));
    };
    let queries = check_same_answers(first, &folders[1..])?;
    let target = into.join(first.file_name().unwrap_or_default());
    std::fs::create_dir_all(&target).map_err(|source| Error::File { path: target.clone(), source })?;
    // The range of each file's queries, as a map from start to end.
    let mut ends = BTreeMap::new();
    for folder in &folders {
        for path in list(folder)? {
            if let Some(range) = queries_of(&path) {
                copy_answers(&path, &target)?;
                ends.insert(range.start, range.end);
            }
        }
    }
    let manifest = target.join("manifest.json");
    if !manifest.exists() {
        write_atomically(&manifest, &read(&first.join("manifest.json"))?)?;
    }
    let answered = check_complete(&target, ends, queries)?;
    Ok(Merged { folder: target, answered, queries })
}

/// Checks that all folders have answers by the same model to the same queries; returns the number of queries in the
/// plan.
fn check_same_answers(first: &Path, others: &[PathBuf]) -> Result<usize, Error> {
    let ManifestKey { key, queries } = manifest(first)?;
    for folder in others {
        if manifest(folder)?.key != key {
            let reason = format!(
                "its answers belong to a different model, plan or set of documents than those in {}",
                first.display()
            );
            return Err(wrong(folder, &reason));
        }
    }
    Ok(queries)
}

/// Verifies the checksum of an answer file, and copies the file to a folder unless it already exists there.
fn copy_answers(path: &Path, folder: &Path) -> Result<(), Error> {
    let bytes = read(path)?;
    let stem = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    if !stem.ends_with(&format!("-{}", AnswerFile::checksum(&bytes))) {
        return Err(wrong(path, "checksum mismatch: the content does not match the checksum in the file name"));
    }
    let copy = folder.join(path.file_name().unwrap_or_default());
    if copy.exists() { Ok(()) } else { write_atomically(&copy, &bytes) }
}

/// Checks that the files answer all queries, and returns the number of answered queries. `ends` maps the first query of
/// each file to the end of the file's queries.
fn check_complete(folder: &Path, ends: BTreeMap<usize, usize>, queries: usize) -> Result<usize, Error> {
    let (mut answered, mut next, mut missing) = (0, 0, Vec::new());
    for (start, end) in ends.into_iter().chain([(queries, queries)]) {
        if start > next {
            missing.push(format!("{next}..{start}"));
        }
        answered += end.saturating_sub(start.max(next));
        next = next.max(end);
    }
    if missing.is_empty() {
        return Ok(answered);
    }
    let more = if missing.len() > 4 { ", ..." } else { "" };
    let named = missing[..missing.len().min(4)].join(", ");
    Err(wrong(folder, &format!("{answered} of {queries} queries are answered; missing: {named}{more}")))
}

/// Returns the folders of answers in `parent`, or `parent` itself if it is a folder of answers.
fn answers_below(parent: &Path) -> Result<Vec<PathBuf>, Error> {
    if parent.join("manifest.json").is_file() {
        return Ok(vec![parent.to_owned()]);
    }
    let mut folders = list(parent)?;
    folders.retain(|path| path.join("manifest.json").is_file());
    if folders.is_empty() {
        return Err(wrong(parent, "no answers in this folder; pass a folder that `surprisal estimate --out` wrote"));
    }
    Ok(folders)
}

fn manifest(folder: &Path) -> Result<ManifestKey, Error> {
    let path = folder.join("manifest.json");
    serde_json::from_slice(&read(&path)?).map_err(|error| wrong(&path, &error.to_string()))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::File { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths = entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect::<Result<Vec<_>, Error>>()?;
    paths.sort_unstable();
    Ok(paths)
}

/// Returns the queries that an answer file covers, from its name; `None` for other files.
fn queries_of(path: &Path) -> Option<Range<usize>> {
    path.extension().filter(|&extension| extension == "parquet")?;
    let mut ends = path.file_stem()?.to_str()?.split('-').take(2).map(str::parse);
    Some(ends.next()?.ok()?..ends.next()?.ok()?)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn wrong(path: &Path, reason: &str) -> Error {
    Error::Merge { path: path.to_owned(), reason: reason.to_owned() }
}
