//! Tests that shards are merged only if they are right and agree.

use std::ops::Range;

use super::*;
use crate::plan::PlannedQuery;
use crate::store::provenance::Provenance;

/// The number of queries in the plan.
const QUERIES: usize = 6;

/// Returns query `index`, which has one target token.
fn query(index: usize) -> PlannedQuery {
    PlannedQuery::Marginal { document: index, split: 1, end: 2 }
}

/// Creates a folder of answers with a manifest.
fn folder(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name).join("answers-0123456789abcdef");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(MANIFEST), format!(r#"{{"key": "key", "steps": {QUERIES}}}"#)).unwrap();
    folder
}

/// Writes the answers to some queries; each has `shift` less than minus its index.
fn write(folder: &Path, range: Range<usize>, shift: f32) -> PathBuf {
    let [key, model, fingerprint, config] = ["key", "m", "f", "c"].map(str::to_owned);
    let provenance = Provenance { key, version: "1", model, fingerprint, config, seed: 0 };
    let queries: Vec<PlannedQuery> = range.clone().map(query).collect();
    let answers = range.clone().map(|index| vec![-(index as f32) - shift]).collect();
    let file = AnswerFile { first: range.start, answers };
    let bytes = file.encode(&provenance, &queries).unwrap();
    let path = folder.join(file.name(&bytes).to_string());
    std::fs::write(&path, bytes).unwrap();
    path
}

fn merged(dir: &Path, from: &[&Path]) -> Result<Merged, String> {
    let from: Vec<PathBuf> = from.iter().map(|&path| path.to_owned()).collect();
    merge(&from, &dir.join("all")).map_err(|error| error.to_string())
}

fn copies(dir: &Path) -> usize {
    list(&dir.join("all").join("answers-0123456789abcdef")).map_or(0, |paths| paths.len())
}

#[test]
fn contradicting_shards_are_rejected_and_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| folder(dir.path(), name));
    let kept = write(&a, 0..4, 0.0);
    let other = write(&b, 3..6, 0.5);
    let error = merged(dir.path(), &[&a, &b]).unwrap_err();
    assert!(error.starts_with(other.to_str().unwrap()) && error.contains(kept.to_str().unwrap()), "{error}");
    assert!(error.contains("query 3 (column `step`) has other log-probabilities"), "{error}");
    assert_eq!(copies(dir.path()), 0);
    std::fs::remove_file(other).unwrap();
    write(&b, 3..6, 0.0);
    assert_eq!(merged(dir.path(), &[&a, &b]).unwrap().answered, QUERIES);
    assert_eq!(copies(dir.path()), 3);
    // The merged folder contradicts another shard, too.
    let c = folder(dir.path(), "c");
    write(&c, 0..1, 1.0);
    assert!(merged(dir.path(), &[&c]).unwrap_err().contains("query 0"));
}

/// A killed merge leaves answers, but no manifest.
#[test]
fn answers_of_a_killed_merge_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let a = folder(dir.path(), "a");
    write(&a, 0..6, 0.0);
    let target = folder(dir.path(), "all");
    std::fs::remove_file(target.join(MANIFEST)).unwrap();
    let left = write(&target, 0..2, 0.5);
    assert!(merged(dir.path(), &[&a]).unwrap_err().contains("query 0"));
    std::fs::write(&left, "half").unwrap();
    let error = merged(dir.path(), &[&a]).unwrap_err();
    assert!(error.starts_with(left.to_str().unwrap()) && error.contains("checksum mismatch"), "{error}");
    std::fs::remove_file(left).unwrap();
    write(&target, 0..2, 0.0);
    assert_eq!(merged(dir.path(), &[&a]).unwrap().answered, QUERIES);
    assert!(target.join(MANIFEST).is_file());
}

#[test]
fn gaps_are_reported_for_overlapping_shards() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| folder(dir.path(), name));
    // A shorter shard that starts with the longer one, and that is read after it.
    write(&a, 0..4, 0.0);
    write(&b, 0..2, 0.0);
    let error = merged(dir.path(), &[&a, &b]).unwrap_err();
    assert!(error.contains("4 of 6 queries are answered; missing: 4..6"), "{error}");
    write(&b, 5..6, 0.0);
    let error = merged(dir.path(), &[&b]).unwrap_err();
    assert!(error.contains("5 of 6 queries are answered; missing: 4..5"), "the target's answers count: {error}");
    write(&b, 3..5, 0.0);
    let all = merged(dir.path(), &[&b]).unwrap();
    assert_eq!((all.answered, all.queries), (QUERIES, QUERIES));
}

#[test]
fn files_that_are_not_answers_are_rejected_whatever_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let a = folder(dir.path(), "a");
    let right = write(&a, 0..6, 0.0);
    let junk = b"7 bytes";
    let checksum = blake3::hash(junk).to_hex()[..16].to_owned();
    let name = |range: Range<usize>| a.join(AnswerName { range, checksum: checksum.clone() }.to_string());
    std::fs::write(name(0..6), junk).unwrap();
    let error = merged(dir.path(), &[&a]).unwrap_err();
    assert!(error.contains(&checksum) && error.contains("not a Parquet file of answers"), "{error}");
    std::fs::remove_file(name(0..6)).unwrap();

    let renamed =
        right.with_file_name(right.file_name().unwrap().to_str().unwrap().replace("-000000006-", "-000000005-"));
    std::fs::copy(&right, &renamed).unwrap();
    let error = merged(dir.path(), &[&a]).unwrap_err();
    assert!(error.contains("the name states queries 0..5, but the file answers 0..6"), "{error}");
    std::fs::remove_file(renamed).unwrap();

    std::fs::write(a.join("mine.parquet"), junk).unwrap();
    assert!(merged(dir.path(), &[&a]).unwrap_err().contains("mine.parquet: not the name of an answer file"));
    std::fs::remove_file(a.join("mine.parquet")).unwrap();

    let long = write(&a, 4..8, 0.0);
    let error = merged(dir.path(), &[&a]).unwrap_err();
    assert!(error.contains("the file answers queries 4..8, but the plan has 6"), "{error}");
    std::fs::remove_file(long).unwrap();
    let positive = write(&a, 0..1, -5.0);
    assert!(merged(dir.path(), &[&a]).unwrap_err().contains("log-probability 5; it must be at most 0"));
    std::fs::remove_file(positive).unwrap();
    assert_eq!(merged(dir.path(), &[&a]).unwrap().answered, QUERIES);
}

/// Shards of earlier versions have no documents; the others must have the same.
#[test]
fn documents_are_merged_if_they_agree() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder(dir.path(), name));
    let answers = [(&a, 0..2), (&b, 2..4), (&c, 4..6)];
    answers.into_iter().for_each(|(folder, range)| drop(write(folder, range, 0.0)));
    let document = |folder: &Path| folder.join("documents").join("tokens.parquet");
    for (folder, bytes) in [(&b, "tokens"), (&c, "other tokens")] {
        std::fs::create_dir(folder.join("documents")).unwrap();
        std::fs::write(document(folder), bytes).unwrap();
    }
    let error = merged(dir.path(), &[&a, &b, &c]).unwrap_err();
    assert!(error.starts_with(document(&c).to_str().unwrap()), "{error}");
    assert!(error.contains(&format!("its content differs from {}", document(&b).display())), "{error}");
    assert_eq!(copies(dir.path()), 0);
    std::fs::write(document(&c), "tokens").unwrap();
    let all = merged(dir.path(), &[&a, &b, &c]).unwrap();
    assert_eq!(std::fs::read(document(&all.folder)).unwrap(), b"tokens");
    assert_eq!(merged(dir.path(), &[&a]).unwrap().answered, QUERIES, "merging again changes nothing");
}
