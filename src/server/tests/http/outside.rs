//! What stands between a server and the world: TLS, pages of other origins, traces.

use std::path::Path;
use std::sync::Arc;

use reqwest::{Certificate, Client, Method};
use serde_json::json;
use surprisal_server::{ApiKeys, App, ServerConfig, Tls, serve_tls};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::support::{BOS, Bytes, Letters, Server};

/// A certificate for localhost and its key, as files.
fn certificate(dir: &Path) -> (std::path::PathBuf, std::path::PathBuf, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key, made.cert.pem())
}

#[tokio::test]
async fn connections_are_encrypted_and_a_silent_one_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key, pem) = certificate(dir.path());
    let tls = Tls::from_pem_files(&certificate, &key).unwrap();
    let app = App::new(Arc::new(Letters::new()), Arc::new(Bytes(Some(BOS))), ServerConfig::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(serve_tls(listener, tls, app, async move { stopped.await.unwrap_or_default() }));

    let mut silent = TcpStream::connect(address).await.unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let trusting = Client::builder().no_proxy().tls_certs_only([Certificate::from_pem(pem.as_bytes()).unwrap()]);
    let trusting = trusting.resolve("localhost", address).build().unwrap();
    let url = format!("https://localhost:{}/logprobs", address.port());
    let answer = trusting.post(&url).json(&json!({"queries": [{"target": "abc"}]})).send().await.unwrap();
    assert_eq!(answer.status(), 200);

    // Neither a client that speaks plainly nor one that does not know the certificate gets an answer.
    let plain = Client::builder().no_proxy().build().unwrap();
    assert!(plain.get(format!("http://{address}/health")).send().await.is_err());
    let doubting = Client::builder().no_proxy().tls_certs_only([]).resolve("localhost", address).build().unwrap();
    assert!(doubting.get(&url).send().await.is_err());
    drop((trusting, plain, doubting));
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0, "a handshake that never came is given up");
}

#[test]
fn a_wrong_certificate_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key, _) = certificate(dir.path());
    let none = dir.path().join("none.pem");
    let refused = |certificate: &Path, key: &Path| Tls::from_pem_files(certificate, key).err().unwrap().to_string();
    assert!(refused(&none, &key).contains("none.pem"));
    assert!(refused(&key, &key).contains("no certificate"));
    assert!(refused(&certificate, &certificate).contains("cert.pem"));
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(&none, other).unwrap();
    assert!(refused(&certificate, &none).contains("cannot be served with"));
}

#[tokio::test]
async fn pages_of_listed_origins_alone_may_ask() {
    let cors_origins = vec!["https://lab.example".to_owned()];
    let config = ServerConfig { cors_origins, ..ServerConfig::default() };
    let keys = ApiKeys::parse("key");
    let open = Server::serve(Arc::new(Letters::new()), config, Some(BOS), keys).await;
    let closed = Server::start().await;
    for (server, origin, allowed) in [
        (&open, "https://lab.example", Some("https://lab.example")),
        (&open, "https://elsewhere.example", None),
        (&closed, "https://lab.example", None),
    ] {
        // A browser asks before it sends, and without the key.
        let asked = server.client.request(Method::OPTIONS, format!("{}/logprobs", server.url)).header("origin", origin);
        let asked = asked.header("access-control-request-method", "POST").send().await.unwrap();
        let sent =
            server.client.get(format!("{}/v1/models", server.url)).header("origin", origin).send().await.unwrap();
        for answer in [asked, sent] {
            let found = answer.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap());
            assert_eq!(found, allowed, "{origin}: {answer:?}");
        }
    }
}

#[test]
fn what_is_no_origin_is_found() {
    let wrong = |origin: &str| {
        let config = ServerConfig { cors_origins: vec![origin.to_owned()], ..ServerConfig::default() };
        config.wrong_origin().is_some()
    };
    for right in ["*", "https://lab.example", "http://localhost:3000"] {
        assert!(!wrong(right), "{right}");
    }
    for refused in ["", "lab.example", "https://", "https://lab.example/", "ftp://lab.example", "https://a b"] {
        assert!(wrong(refused), "{refused}");
    }
}

#[tokio::test]
async fn a_trace_goes_on_in_the_answer() {
    let server = Server::start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let get = async |given: Option<String>| {
        let mut request = server.client.get(format!("{}/health", server.url));
        if let Some(given) = given {
            request = request.header("traceparent", given);
        }
        let answer = request.send().await.unwrap();
        answer.headers()["traceparent"].to_str().unwrap().to_owned()
    };
    let answered = get(Some(format!("00-{trace}-00f067aa0ba902b7-01"))).await;
    assert!(answered.starts_with(&format!("00-{trace}-")) && answered.ends_with("-01"), "{answered}");
    assert!(!answered.contains("00f067aa0ba902b7"), "the span is the server's own");
    let (one, other) = (get(None).await, get(Some("nonsense".to_owned())).await);
    assert!(one.len() == 55 && one[..35] != other[..35], "{one} {other}");
}
