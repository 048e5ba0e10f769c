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

/// The most handshakes at a time; further connections wait to be accepted.
const MAX_HANDSHAKES: usize = 256;

/// The longest that a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read as PEM.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// The defect.
        reason: String,
    },
    /// A certificate and a key that do not make a pair.
    #[error("the certificate cannot be served with: {0}")]
    Pair(String),
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Reads a chain of certificates, the server's own first, and its private key, both in PEM.
    ///
    /// # Errors
    /// A file that cannot be read or holds none, or a key that is another certificate's.
    pub fn from_pem_files(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        let failed = |path: &Path, reason: String| TlsError::File { path: path.display().to_string(), reason };
        let unreadable = |error: tokio_rustls::rustls::pki_types::pem::Error| failed(certificates, error.to_string());
        let chain = CertificateDer::pem_file_iter(certificates).map_err(unreadable)?;
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
        if chain.is_empty() {
            return Err(failed(certificates, "it has no certificate".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, error.to_string()))?;
        let pair = |error: tokio_rustls::rustls::Error| TlsError::Pair(error.to_string());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().map_err(pair)?.with_no_client_auth();
        let mut config = config.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Encrypts a listener's connections.
    pub(crate) fn listen(self, listener: TcpListener) -> TlsListener {
        TlsListener { listener, tls: self, handshakes: JoinSet::new() }
    }
}

/// A listener of connections whose handshake is complete. A slow handshake delays no other.
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
                    Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
                    Err(error) => tracing::error!(%error, "a handshake was cut off"),
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
