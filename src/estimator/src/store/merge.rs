//! Answers that several processes gave, each a part of an experiment, put together in one folder.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::Error;
use crate::files::write_atomically;
use crate::store::shard::Shard;

/// Answers that were put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Where they are.
    pub folder: PathBuf,
    /// Steps of the plan that are answered.
    pub answered: usize,
    /// Steps of the plan.
    pub steps: usize,
}

/// What of `manifest.json` must agree.
#[derive(Deserialize)]
struct Manifest {
    key: String,
    steps: usize,
}

/// Copies all shards of answers below `from` into `into`. Each is checked; those that are there already are left alone. A run of the same
/// experiment with `into` as its folder finds them.
///
/// # Errors
/// [`Error::Merge`] for a folder without answers, answers to different questions, a shard that is damaged, and steps that nobody
/// answered; [`Error::File`] for what cannot be read or written.
pub fn merge(from: &[PathBuf], into: &Path) -> Result<Merged, Error> {
    let folders = from.iter().map(|parent| answers_below(parent)).collect::<Result<Vec<_>, _>>()?.concat();
    let mut manifests = folders.iter().map(|folder| Ok((folder, manifest(folder)?)));
    let (first, Manifest { key, steps }) =
        manifests.next().unwrap_or_else(|| Err(wrong(into, "no folders are given")))?;
    for other in manifests {
        let (folder, manifest) = other?;
        if manifest.key != key {
            return Err(wrong(
                folder,
                &format!("answers to other questions than {}, or by another model", first.display()),
            ));
        }
    }
    let target = into.join(first.file_name().unwrap_or_default());
    std::fs::create_dir_all(&target).map_err(|source| Error::File { path: target.clone(), source })?;
    let mut ranges = BTreeMap::new();
    for folder in &folders {
        for path in list(folder)? {
            let Some(range) = range_of(&path) else { continue };
            let bytes = read(&path)?;
            let stem = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            if !stem.ends_with(&format!("-{}", Shard::checksum(&bytes))) {
                return Err(wrong(&path, "its bytes have another checksum than its name says"));
            }
            let copy = target.join(path.file_name().unwrap_or_default());
            if !copy.exists() {
                write_atomically(&copy, &bytes)?;
            }
            ranges.insert(range.start, range.end);
        }
    }
    let about = target.join("manifest.json");
    if !about.exists() {
        write_atomically(&about, &read(&first.join("manifest.json"))?)?;
    }
    let (mut answered, mut next, mut missing) = (0, 0, Vec::new());
    for (start, end) in ranges.into_iter().chain([(steps, steps)]) {
        if start > next {
            missing.push(format!("{next}..{start}"));
        }
        answered += end.saturating_sub(start.max(next));
        next = next.max(end);
    }
    if !missing.is_empty() {
        let more = if missing.len() > 4 { ", ..." } else { "" };
        let named = missing[..missing.len().min(4)].join(", ");
        return Err(wrong(&target, &format!("{answered} of {steps} steps are answered, and none of {named}{more}")));
    }
    Ok(Merged { folder: target, answered, steps })
}

/// The folders of answers in a folder, or itself.
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

fn manifest(folder: &Path) -> Result<Manifest, Error> {
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

/// The steps that a shard's name says it answers.
fn range_of(path: &Path) -> Option<Range<usize>> {
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
