//! Tests that the fingerprint covers every file that decides a response, and that checksums are verified.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use ring::digest::{SHA256, digest};
use safetensors::tensor::{Dtype, TensorView};

use super::*;
use crate::checkpoint::companions::{OPTIONAL_FILES, REQUIRED_FILES};

const CONFIG: &str = r#"{"architectures":["LlamaForCausalLM"],"vocab_size":10,"hidden_size":8,
    "intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2}"#;

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a checkpoint of two files with one tensor each, and returns the files' SHA-256.
fn write(dir: &Path) -> [String; 2] {
    write_as(dir, ["1.safetensors", "2.safetensors"])
}

fn write_as(dir: &Path, [first, second]: [&str; 2]) -> [String; 2] {
    std::fs::write(dir.join("config.json"), CONFIG).unwrap();
    let index = format!(r#"{{"weight_map":{{"x":"{first}","y":"{second}"}}}}"#);
    std::fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    [("x", first), ("y", second)].map(|(tensor, file)| {
        let view = TensorView::new(Dtype::F32, vec![2, 1], &[1; 8]).unwrap();
        let bytes = safetensors::serialize([(tensor, view)], None).unwrap();
        std::fs::write(dir.join(file), &bytes).unwrap();
        sha256(&bytes)
    })
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn fingerprint(dir: &Path) -> Result<String, Error> {
    Checkpoint::open(dir).unwrap().fingerprint()
}

/// Returns valid contents of a file that decides a response.
fn contents(name: &str) -> String {
    if name == "config.json" { CONFIG.to_owned() } else { "{}".to_owned() }
}

#[test]
fn every_file_that_decides_a_response_changes_the_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let mut seen = vec![fingerprint(dir.path()).unwrap()];
    for name in REQUIRED_FILES.into_iter().chain(OPTIONAL_FILES) {
        for contents in [contents(name), format!("{} ", contents(name))] {
            std::fs::write(dir.path().join(name), contents).unwrap();
            seen.push(fingerprint(dir.path()).unwrap());
        }
    }
    let distinct: BTreeSet<&String> = seen.iter().collect();
    // config.json existed before, with the first of its two contents.
    assert_eq!(distinct.len(), 1 + 2 * (REQUIRED_FILES.len() + OPTIONAL_FILES.len()) - 1);
    let other = tempfile::tempdir().unwrap();
    write_as(other.path(), ["b.safetensors", "a.safetensors"]);
    std::fs::write(other.path().join("README.md"), "A description").unwrap();
    assert_eq!(fingerprint(other.path()).unwrap(), seen[0], "names of weight files and other files do not matter");
}

/// Another library's model has the same rule.
#[test]
fn fingerprints_of_given_files_cover_the_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let weights = [dir.path().join("1.safetensors")];
    let hash = || fingerprint_files(dir.path(), &weights);
    let before = hash().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    assert_ne!(hash().unwrap(), before);
    std::fs::write(dir.path().join("SHA256SUMS"), format!("{}  tokenizer.json\n", sha256(b"[]"))).unwrap();
    assert!(hash().unwrap_err().to_string().contains("tokenizer.json: checksum mismatch"));
}

#[test]
fn a_file_that_does_not_match_sha256sums_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = write(dir.path());
    let unchecked = fingerprint(dir.path()).unwrap();
    let sums = |text: &str| std::fs::write(dir.path().join("SHA256SUMS"), text).unwrap();
    let config = sha256(CONFIG.as_bytes());
    sums(&format!("{first}  1.safetensors\n{second} *2.safetensors\n{config}  config.json\n{first}  missing.json\n"));
    assert_eq!(fingerprint(dir.path()).unwrap(), unchecked);
    damage(&dir.path().join("2.safetensors"));
    let error = fingerprint(dir.path()).unwrap_err().to_string();
    assert!(error.contains("2.safetensors: checksum mismatch") && error.contains(&second), "{error}");
    assert!(error.contains("SHA256SUMS"), "{error}");
    sums(&format!("{first}  1.safetensors\n"));
    assert_ne!(fingerprint(dir.path()).unwrap(), unchecked);
    sums("nonsense");
    assert!(fingerprint(dir.path()).unwrap_err().to_string().contains("SHA256SUMS: line 1"));
}

#[test]
fn checksums_of_all_files_that_are_read_are_verified() {
    for name in REQUIRED_FILES.into_iter().chain(OPTIONAL_FILES).chain([INDEX_FILE]) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path());
        let path = dir.path().join(name);
        if !path.exists() {
            std::fs::write(&path, contents(name)).unwrap();
        }
        let right = sha256(&std::fs::read(&path).unwrap());
        let sums = |sha256: &str| std::fs::write(dir.path().join("SHA256SUMS"), format!("{sha256}  {name}\n")).unwrap();
        sums(&right);
        fingerprint(dir.path()).unwrap();
        sums(&sha256(b"other contents"));
        let error = fingerprint(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}: checksum mismatch")) && error.contains(&right), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_corrupted_hub_blob_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let [first, _] = write(dir.path());
    let (file, blob) = (dir.path().join("1.safetensors"), dir.path().join(&first));
    std::fs::rename(&file, &blob).unwrap();
    std::os::unix::fs::symlink(&blob, &file).unwrap();
    fingerprint(dir.path()).unwrap();
    damage(&blob);
    let error = fingerprint(dir.path()).unwrap_err().to_string();
    assert!(error.contains("1.safetensors: checksum mismatch") && error.contains(&first), "{error}");
}

#[test]
fn reads_are_observed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let length = |file: &str| std::fs::metadata(dir.path().join(file)).unwrap().len();
    let files = length("1.safetensors") + length("2.safetensors");
    let reads = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&reads);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let checkpoint = checkpoint.with_observer(move |purpose, bytes| noted.lock().unwrap().push((purpose, bytes)));
    checkpoint.fingerprint().unwrap();
    let sum = |purpose| reads.lock().unwrap().iter().filter(|read| read.0 == purpose).map(|read| read.1).sum::<u64>();
    assert_eq!((sum(ReadPurpose::Checksums), sum(ReadPurpose::Weights), checkpoint.tensor_bytes()), (files, 0, 16));
    checkpoint.fingerprint().unwrap();
    assert_eq!(sum(ReadPurpose::Checksums), files, "the second call reads no file");
    checkpoint.tensor_f32("x", &[2, 1]).unwrap();
    checkpoint.read_slice("y", [2, 1], [1..2, 0..1], |_, _| {}).unwrap();
    assert_eq!(sum(ReadPurpose::Weights), 8 + 4);
}
