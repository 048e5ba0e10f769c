//! Models from the Hugging Face hub: downloaded, resumed, gated, and served from the cache while the hub is
//! unreachable. The hub is a small stub that implements as much of the protocol as a download needs.

#![allow(clippy::unwrap_used)]

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use ring::digest::{SHA256, digest};
use surprisal_tests::tiny::TinyLlama;

/// A hub that serves the files of one folder for every model id.
#[derive(Clone)]
struct Hub {
    files: PathBuf,
    token: Option<&'static str>,
    /// A file, and the status with which the hub responds to requests for it.
    failure: Option<(&'static str, StatusCode)>,
    /// The commit of the branch `main`.
    commit: &'static str,
    /// Number of weight downloads that the hub will still cut off halfway.
    remaining_cuts: Arc<AtomicUsize>,
    /// The file and the first byte of each download.
    downloads: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Hub {
    fn new(files: &Path) -> Self {
        Self {
            files: files.to_owned(),
            token: None,
            failure: None,
            commit: "c1",
            remaining_cuts: Arc::default(),
            downloads: Arc::default(),
        }
    }

    /// Listens on a free port for as long as the runtime lives.
    fn start(&self) -> (tokio::runtime::Runtime, String) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router =
            Router::new().route("/{owner}/{name}/resolve/{revision}/{file}", get(serve_file)).with_state(self.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        (runtime, url)
    }
}

/// Responds to a request for a file.
async fn serve_file(
    State(hub): State<Hub>,
    UrlPath((_, _, revision, file)): UrlPath<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    if hub.token.is_some_and(|token| header("authorization") != Some(&format!("Bearer {token}"))) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if let Some((_, status)) = hub.failure.filter(|(name, _)| *name == file) {
        return status.into_response();
    }
    let Ok(bytes) = std::fs::read(hub.files.join(&file)) else { return StatusCode::NOT_FOUND.into_response() };
    let range = header("range").unwrap().strip_prefix("bytes=").unwrap();
    let (from, to) = range.split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    let end = to.parse().map_or(bytes.len(), |to: usize| to + 1);
    let mut parts = vec![Ok(Bytes::copy_from_slice(&bytes[from..end]))];
    if to.is_empty() {
        let is_cut = file.ends_with(".safetensors")
            && hub.remaining_cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if is_cut {
            let half = Bytes::copy_from_slice(&bytes[from..from + (end - from) / 2]);
            parts = vec![Ok(half), Err(io::Error::other("cut"))];
        }
        hub.downloads.lock().unwrap().push((file.clone(), from));
    }
    // As on the real hub, the SHA-256 of a large file, or another hash of a small file.
    let hash =
        if file.ends_with(".safetensors") { sha256(&std::fs::read(hub.files.join(&file)).unwrap()) } else { file };
    let headers = [
        ("etag", format!("\"{hash}\"")),
        ("x-repo-commit", if revision == "main" { hub.commit.to_owned() } else { revision }),
        ("content-range", format!("bytes {from}-{}/{}", end - 1, bytes.len())),
    ];
    (StatusCode::PARTIAL_CONTENT, headers, Body::from_stream(stream::iter(parts))).into_response()
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs `surprisal serve` until it serves or fails. Returns whether it serves, and its stderr.
fn serve(home: &Path, endpoint: &str, token: Option<&str>) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_surprisal"));
    command.args(["serve", "--model", "owner/tiny", "--port", "0", "--cache-mib", "64"]);
    command.env("HF_HOME", home).env("HF_ENDPOINT", endpoint).env("HF_TOKEN", token.unwrap_or_default());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut serves = false;
    for line in lines {
        said += &line;
        said.push('\n');
        serves = line.starts_with("serving");
        if serves {
            break;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    (serves, said)
}

/// Without a handler, a signal would not stop the first process of a container.
#[test]
fn a_signal_stops_a_server_while_it_loads() {
    let home = tempfile::tempdir().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_surprisal"));
    command.args(["serve", "--model", "owner/tiny", "--port", "0"]).env("HF_HOME", home.path());
    command.env("HF_ENDPOINT", format!("http://{}", silent.local_addr().unwrap()));
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let _request = silent.accept().unwrap();
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert!(child.wait().unwrap().success(), "the server's own signal handler ended the process");
}

/// Writes a tiny Llama in two shards.
fn write_sharded_model(dir: &Path) {
    TinyLlama::default().write(dir, 1);
    let whole = std::fs::read(dir.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let mut map = serde_json::Map::new();
    for (shard, take_norms) in [("model-1.safetensors", true), ("model-2.safetensors", false)] {
        let part: Vec<_> =
            tensors.tensors().into_iter().filter(|(name, _)| name.contains("norm") == take_norms).collect();
        map.extend(part.iter().map(|(name, _)| (name.clone(), shard.into())));
        std::fs::write(dir.join(shard), safetensors::serialize(part, None).unwrap()).unwrap();
    }
    let index = serde_json::json!({ "weight_map": map });
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
}

#[test]
fn doctor_downloads_only_config_json() {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_sharded_model(files.path());
    let hub = Hub::new(files.path());
    let (_runtime, url) = hub.start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_surprisal"));
    command.args(["doctor", "--model", "owner/tiny"]);
    command.env("HF_HOME", home.path()).env("HF_ENDPOINT", url).env("HF_TOKEN", "");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8(output.stdout).unwrap().contains("parameters"));
    let downloads = hub.downloads.lock().unwrap();
    assert!(downloads.iter().all(|(file, _)| file == "config.json") && downloads.len() == 1, "{downloads:?}");
}

#[test]
fn a_model_is_downloaded_once_and_then_needs_no_hub() {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_sharded_model(files.path());
    std::fs::write(files.path().join("generation_config.json"), r#"{"eos_token_id": 1}"#).unwrap();
    let hub = Hub::new(files.path());
    let (runtime, url) = hub.start();
    let (serves, said) = serve(home.path(), &url, None);
    assert!(serves, "{said}");
    let mut files: Vec<String> = hub.downloads.lock().unwrap().iter().map(|(file, _)| file.clone()).collect();
    files.sort();
    let expected = [
        "config.json",
        "generation_config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(files, expected);
    runtime.shutdown_background();
    let (serves, said) = serve(home.path(), "http://127.0.0.1:1", None);
    assert!(serves, "without a hub: {said}");
}

#[test]
fn an_interrupted_download_resumes_where_it_stopped() {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    TinyLlama::default().write(files.path(), 1);
    let size = std::fs::metadata(files.path().join("model.safetensors")).unwrap().len() as usize;
    let hub = Hub::new(files.path());
    hub.remaining_cuts.store(1, Ordering::SeqCst);
    let (_runtime, url) = hub.start();
    let (serves, said) = serve(home.path(), &url, None);
    assert!(serves, "{said}");
    let downloads = hub.downloads.lock().unwrap();
    let starts: Vec<usize> =
        downloads.iter().filter(|(file, _)| file == "model.safetensors").map(|&(_, from)| from).collect();
    assert_eq!(starts, [0, size / 2]);
}

/// A file damaged by a download or a disk is named in an error, and not served.
#[test]
fn a_damaged_file_in_the_cache_is_named() {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    TinyLlama::default().write(files.path(), 1);
    let hub = Hub::new(files.path());
    let (_runtime, url) = hub.start();
    let (serves, said) = serve(home.path(), &url, None);
    assert!(serves, "{said}");
    let sum = sha256(&std::fs::read(files.path().join("model.safetensors")).unwrap());
    let blob = home.path().join("hub/models--owner--tiny/blobs").join(&sum);
    let mut bytes = std::fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let (serves, said) = serve(home.path(), &url, None);
    assert!(!serves && said.contains("model.safetensors: checksum mismatch") && said.contains(&sum), "{said}");
}

/// Without tokenizer_config.json, texts would begin with different tokens, so the server must not start. Once
/// everything is cached, files that the hub does not have are not requested again.
#[test]
fn a_failed_request_is_not_mistaken_for_a_missing_file() {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    TinyLlama::default().write(files.path(), 1);
    let failing = |file, status| Hub { failure: Some((file, status)), ..Hub::new(files.path()) }.start();
    for status in [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        let (_runtime, url) = failing("tokenizer_config.json", status);
        let (serves, said) = serve(home.path(), &url, None);
        assert!(!serves && said.contains("tokenizer_config.json") && said.contains(status.as_str()), "{said}");
    }
    let (_runtime, url) = Hub::new(files.path()).start();
    let (serves, said) = serve(home.path(), &url, None);
    assert!(serves, "{said}");
    let (_runtime, url) = failing("generation_config.json", StatusCode::SERVICE_UNAVAILABLE);
    for endpoint in [url.as_str(), "http://127.0.0.1:1"] {
        let (serves, said) = serve(home.path(), endpoint, None);
        assert!(serves, "everything is cached, but {endpoint} fails: {said}");
    }
}

/// A file missing from the cache comes from the commit of the cached files, although `main` has moved on.
#[test]
fn a_cached_model_stays_at_its_commit() {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    TinyLlama::default().write(files.path(), 1);
    let (runtime, url) = Hub::new(files.path()).start();
    assert!(serve(home.path(), &url, None).0);
    runtime.shutdown_background();
    let generation = files.path().join("generation_config.json");
    std::fs::write(&generation, r#"{"eos_token_id": 1}"#).unwrap();
    let hub = Hub { commit: "c2", ..Hub::new(files.path()) };
    let (runtime, url) = hub.start();
    let (serves, said) = serve(home.path(), &url, None);
    assert!(serves, "{said}");
    assert_eq!(*hub.downloads.lock().unwrap(), [("generation_config.json".to_owned(), 0)]);
    runtime.shutdown_background();
    let (serves, said) = serve(home.path(), "http://127.0.0.1:1", None);
    assert!(serves, "without a hub: {said}");
    let snapshots = home.path().join("hub/models--owner--tiny/snapshots");
    let commits: Vec<_> = std::fs::read_dir(&snapshots).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(commits, ["c1"]);
    assert!(snapshots.join("c1/generation_config.json").exists());
}

/// An adapter in the repository would change the model, so it is not ignored.
#[test]
fn an_adapter_on_the_hub_is_rejected() {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    TinyLlama::default().write(files.path(), 1);
    let adapter = r#"{"peft_type": "LORA", "base_model_name_or_path": "owner/base"}"#;
    std::fs::write(files.path().join("adapter_config.json"), adapter).unwrap();
    let (_runtime, url) = Hub::new(files.path()).start();
    for endpoint in [url.as_str(), "http://127.0.0.1:1"] {
        let (serves, said) = serve(home.path(), endpoint, None);
        assert!(!serves && said.contains("contains an adapter") && said.contains("owner/base"), "{said}");
    }
}

#[test]
fn shards_outside_the_folder_of_the_index_are_rejected() {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_sharded_model(files.path());
    let index = serde_json::json!({ "weight_map": { "model.norm.weight": "../model-1.safetensors" } });
    std::fs::write(files.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let (_runtime, url) = Hub::new(files.path()).start();
    let (serves, said) = serve(home.path(), &url, None);
    assert!(!serves && said.contains("in the same folder"), "{said}");
}

#[test]
fn a_gated_model_requires_a_token_and_a_missing_file_is_named() {
    let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    TinyLlama::default().write(files.path(), 1);
    let hub = Hub { token: Some("secret"), ..Hub::new(files.path()) };
    let (_runtime, url) = hub.start();
    for token in [None, Some("wrong")] {
        let (serves, said) = serve(home.path(), &url, token);
        assert!(!serves && said.contains("owner/tiny") && said.contains("HF_TOKEN"), "{said}");
    }
    std::fs::rename(files.path().join("model.safetensors"), files.path().join("weights.bin")).unwrap();
    let (serves, said) = serve(home.path(), &url, Some("secret"));
    assert!(!serves && said.contains("model.safetensors"), "{said}");
    std::fs::rename(files.path().join("weights.bin"), files.path().join("model.safetensors")).unwrap();
    let (serves, said) = serve(home.path(), &url, Some("secret"));
    assert!(serves, "{said}");
}
