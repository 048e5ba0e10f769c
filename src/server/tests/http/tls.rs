//! TLS: certificates, handshakes and encrypted connections.

use std::path::Path;
use std::sync::Arc;

use reqwest::{Certificate, Client};
use serde_json::json;
use surprisal_server::{App, ServerConfig, Tls, serve_tls};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::support::{BOS, ByteCodec, LetterScorer};

/// Writes a certificate for localhost and its key to files. Returns their paths, and the certificate as PEM.
fn certificate(dir: &Path) -> (std::path::PathBuf, std::path::PathBuf, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key, made.cert.pem())
}

#[tokio::test]
async fn connections_are_encrypted_and_a_silent_one_does_not_delay_others() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key, pem) = certificate(dir.path());
    let tls = Tls::from_pem_files(&certificate, &key).unwrap();
    let app = App::new(Arc::new(LetterScorer::new()), Arc::new(ByteCodec(Some(BOS))), ServerConfig::default());
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

    // Neither a client without TLS nor one that does not trust the certificate gets a response.
    let plain = Client::builder().no_proxy().build().unwrap();
    assert!(plain.get(format!("http://{address}/health")).send().await.is_err());
    let doubting = Client::builder().no_proxy().tls_certs_only([]).resolve("localhost", address).build().unwrap();
    assert!(doubting.get(&url).send().await.is_err());
    drop((trusting, plain, doubting));
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0, "the server drops a connection without a handshake");
}

/// Serves HTTPS until the returned sender is dropped or sends. Returns the address, too.
async fn start(tls: Tls) -> (std::net::SocketAddr, oneshot::Sender<()>) {
    let app = App::new(Arc::new(LetterScorer::new()), Arc::new(ByteCodec(Some(BOS))), ServerConfig::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(serve_tls(listener, tls, app, async move { stopped.await.unwrap_or_default() }));
    (address, stop)
}

/// Returns the status of `/health` to a new client that trusts only this certificate.
async fn health(address: std::net::SocketAddr, pem: &str) -> Option<u16> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().tls_certs_only([Certificate::from_pem(pem.as_bytes()).unwrap()]);
    let client = client.resolve("localhost", address).build().unwrap();
    let response = client.get(format!("https://localhost:{}/health", address.port())).send().await;
    response.ok().map(|response| response.status().as_u16())
}

#[tokio::test]
async fn silent_sockets_do_not_delay_a_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key, pem) = certificate(dir.path());
    let (address, _stop) = start(Tls::from_pem_files(&certificate, &key).unwrap()).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(health(address, &pem).await, Some(200));
    for socket in &silent {
        let read = socket.try_read(&mut [0; 1]);
        assert!(read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "no handshake has timed out");
    }
}

#[tokio::test]
async fn a_certificate_is_replaced_while_the_server_runs() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [old, new] = dirs.each_ref().map(|dir| certificate(dir.path()));
    let tls = Tls::from_pem_files(&old.0, &old.1).unwrap();
    let (address, _stop) = start(tls.clone()).await;
    assert_eq!((health(address, &old.2).await, health(address, &new.2).await), (Some(200), None));
    tls.replace(&Tls::from_pem_files(&new.0, &new.1).unwrap());
    assert_eq!((health(address, &old.2).await, health(address, &new.2).await), (None, Some(200)));
}

#[test]
fn certificate_errors_name_the_file_or_the_defect() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key, _) = certificate(dir.path());
    let none = dir.path().join("none.pem");
    let error = |certificate: &Path, key: &Path| Tls::from_pem_files(certificate, key).err().unwrap().to_string();
    assert!(error(&none, &key).contains("none.pem"));
    assert!(error(&key, &key).contains("no certificate"));
    assert!(error(&certificate, &certificate).contains("cert.pem"));
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(&none, other).unwrap();
    assert!(error(&certificate, &none).contains("cannot use the certificate"));
}
