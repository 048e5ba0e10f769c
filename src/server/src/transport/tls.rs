//! TLS: the certificate with which rustls encrypts connections.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

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

/// A certificate and its key, which may be replaced while the server runs. Clones share them.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<TlsAcceptor>>);

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
        Ok(Self(Arc::new(RwLock::new(TlsAcceptor::from(Arc::new(config))))))
    }

    /// Replaces the certificate and its key by those of `other`. Open connections keep the old ones.
    pub fn replace(&self, other: &Self) {
        let acceptor = other.acceptor();
        // A panic while the lock is held leaves the old certificate or the new one.
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
    }

    /// Returns the acceptor of new connections.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Does not print the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}
