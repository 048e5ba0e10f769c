//! The API keys and the certificate of a running server, which SIGHUP reloads.

use surprisal_server::{KeyRing, Tls};

use crate::error::Error;
use crate::settings::Settings;
use crate::signals::Hangups;

/// The API keys and the certificate of a server. Clones share them.
#[derive(Clone)]
pub(crate) struct Security {
    pub(crate) keys: KeyRing,
    /// Number of API keys; 0 if clients need none.
    pub(crate) key_count: usize,
    pub(crate) tls: Option<Tls>,
}

impl Security {
    /// Reads the keys and the certificate that the settings and the environment name.
    pub(crate) fn read(settings: &Settings) -> Result<Self, Error> {
        let keys = settings.api_keys(std::env::var_os("SURPRISAL_API_KEYS"))?;
        Ok(Self { key_count: keys.len(), keys: KeyRing::from(keys), tls: settings.tls()? })
    }

    /// Reloads the keys and the certificate at each SIGHUP.
    pub(crate) fn reload_on(self, mut hangups: Hangups, settings: Settings) {
        tokio::spawn(async move {
            loop {
                hangups.next().await;
                self.reload(&settings);
            }
        });
    }

    /// Reads all files again. If one of them is invalid, everything stays as it is.
    fn reload(&self, settings: &Settings) {
        let read = settings
            .api_keys(std::env::var_os("SURPRISAL_API_KEYS"))
            .and_then(|keys| settings.tls().map(|certificate| (keys, certificate)));
        match read {
            Ok((keys, certificate)) => {
                let (key_count, has_certificate) = (keys.len(), certificate.is_some());
                self.keys.replace(keys);
                if let (Some(current), Some(new)) = (&self.tls, &certificate) {
                    current.replace(new);
                }
                tracing::info!(keys = key_count, certificate = has_certificate, "API keys and certificate reloaded");
            }
            Err(error) => tracing::error!(%error, "reload failed; the old API keys and certificate stay in use"),
        }
    }
}
