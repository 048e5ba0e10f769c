//! TLS: a listener that encrypts its connections with rustls.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

/// The maximum number of concurrent handshakes; further connections wait to be accepted.
const MAX_HANDSHAKES: usize = 256;

/// The maximum time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read as PEM.
    #[error("{path}: {reason}")]
    File {
        /// Path of the file.
        path: String,
        /// Reason why it cannot be read or used.
        reason: String,
    },
    /// A certificate and a key that do not match.
    #[error("cannot use the certificate with the key: {0}")]
    Pair(String),
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Reads a certificate chain, which begins with the server's own certificate, and that certificate's private key,
    /// both in PEM.
    ///
    /// # Errors
    /// [`TlsError`] if a file cannot be read or has no certificate or key, or if the key does not match the
    /// certificate.
    pub fn from_pem_files(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        let failed = |path: &Path, reason: String| TlsError::File { path: path.display().to_string(), reason };
        let unreadable = |error: tokio_rustls::rustls::pki_types::pem::Error| failed(certificates, error.to_string());
        let chain = CertificateDer::pem_file_iter(certificates).map_err(unreadable)?;
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
        if chain.is_empty() {
            return Err(failed(certificates, "the file has no certificate".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, error.to_string()))?;
        let pair = |error: tokio_rustls::rustls::Error| TlsError::Pair(error.to_string());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().map_err(pair)?.with_no_client_auth();
        let mut config = config.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Returns a listener that encrypts its connections.
    pub(crate) fn listen(self, listener: TcpListener) -> TlsListener {
        TlsListener { listener, tls: self, handshakes: JoinSet::new() }
    }
}

/// A listener that accepts connections once their handshake is complete. A slow handshake does not delay others.
pub(crate) struct TlsListener {
    listener: TcpListener,
    tls: Tls,
    handshakes: JoinSet<io::Result<(TlsStream<TcpStream>, SocketAddr)>>,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                (connection, address) = Listener::accept(&mut self.listener), if self.handshakes.len() < MAX_HANDSHAKES => {
                    let _ = connection.set_nodelay(true);
                    let handshake = self.tls.0.accept(connection);
                    self.handshakes.spawn(async move { Ok((tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await??, address)) });
                }
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(error) => tracing::error!(%error, "TLS handshake task failed"),
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
