//! Merging: the answers to several shards of a plan, put together in one folder.

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
    /// The folder of all answers.
    pub folder: PathBuf,
    /// Queries of the plan that are answered.
    pub answered: usize,
    /// Queries of the plan.
    pub queries: usize,
}

/// The part of `manifest.json` that must agree.
#[derive(Deserialize)]
struct ManifestKey {
    key: String,
    #[serde(rename = "steps")]
    queries: usize,
}

/// Copies all files of answers below `from` into `into`, after a check of each; leaves those alone that are there already. A run of
/// the same experiment with `into` as its folder finds them.
///
/// # Errors
/// [`Error::Merge`] for a folder without answers, answers to different questions, a file that is damaged, and queries without an
/// answer; [`Error::File`] for what cannot be read or written.
pub fn merge(from: &[PathBuf], into: &Path) -> Result<Merged, Error> {
    let folders = from.iter().map(|parent| answers_below(parent)).collect::<Result<Vec<_>, _>>()?.concat();
    let Some(first) = folders.first() else {
        return Err(wrong(into, "no folders are given"));
    };
    let queries = check_same_answers(first, &folders[1..])?;
    let target = into.join(first.file_name().unwrap_or_default());
    std::fs::create_dir_all(&target).map_err(|source| Error::File { path: target.clone(), source })?;
    // The end of each file's queries, by their start.
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

/// Checks that all folders hold answers to the same questions; returns the number of the plan's queries.
fn check_same_answers(first: &Path, others: &[PathBuf]) -> Result<usize, Error> {
    let ManifestKey { key, queries } = manifest(first)?;
    for folder in others {
        if manifest(folder)?.key != key {
            let reason = format!("answers to other questions than {}, or by another model", first.display());
            return Err(wrong(folder, &reason));
        }
    }
    Ok(queries)
}

/// Copies a file of answers into a folder, unless it is there, after a check of its bytes.
fn copy_answers(path: &Path, folder: &Path) -> Result<(), Error> {
    let bytes = read(path)?;
    let stem = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    if !stem.ends_with(&format!("-{}", AnswerFile::checksum(&bytes))) {
        return Err(wrong(path, "its bytes have another checksum than its name says"));
    }
    let copy = folder.join(path.file_name().unwrap_or_default());
    if copy.exists() { Ok(()) } else { write_atomically(&copy, &bytes) }
}

/// Checks that files, given by the end of their queries for each start, answer all queries; returns how many they answer.
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
    Err(wrong(folder, &format!("{answered} of {queries} steps are answered, and none of {named}{more}")))
}

/// Finds the folders of answers in a folder, or the folder itself.
fn answers_below(parent: &Path) -> Result<Vec<PathBuf>, Error> {
    if parent.join("manifest.json").is_file() {
        return Ok(vec![parent.to_owned()]);
    }
    let mut folders = list(parent)?;
    folders.retain(|path| path.join("manifest.json").is_file());
    if folders.is_empty() {
        return Err(wrong(parent, "it has no answers"));
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

/// Returns the queries that a file answers, from its file's name; `None` for other files.
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
