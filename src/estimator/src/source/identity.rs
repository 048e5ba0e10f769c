//! The identity of the model behind a server: it must not change in a run.

use std::sync::{Arc, OnceLock};

use crate::error::Error;

/// The fingerprint that every response must have. Servers that list no fingerprint share one identity, which the first
/// response determines.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelIdentity(Arc<OnceLock<Known>>);

/// A fingerprint and the server that stated it first.
#[derive(Debug)]
struct Known {
    url: String,
    fingerprint: String,
}

impl ModelIdentity {
    /// Creates the identity that a server lists.
    pub(crate) fn listed(url: &str, fingerprint: &str) -> Self {
        let known = Known { url: url.to_owned(), fingerprint: fingerprint.to_owned() };
        Self(Arc::new(OnceLock::from(known)))
    }

    /// Returns whether a server has stated a fingerprint.
    pub(crate) fn is_known(&self) -> bool {
        self.0.get().is_some()
    }

    /// Checks the fingerprint of a response from the server at `url`.
    ///
    /// # Errors
    /// [`Error::ModelChanged`] if the server stated another fingerprint before, or [`Error::ReplicasDiffer`] if another
    /// server did.
    pub(crate) fn check(&self, url: &str, now: String) -> Result<(), Error> {
        let first = self.0.get_or_init(|| Known { url: url.to_owned(), fingerprint: now.clone() });
        if first.fingerprint == now {
            return Ok(());
        }
        let before = first.fingerprint.clone();
        if first.url == url {
            return Err(Error::ModelChanged { url: url.to_owned(), before, now });
        }
        Err(Error::ReplicasDiffer {
            one: format!("{} serves {before}", first.url),
            other: format!("{url} serves {now}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_that_changes_names_the_server() {
        let check = |identity: &ModelIdentity, url: &str, now: &str| {
            identity.check(url, now.to_owned()).map_err(|error| error.to_string())
        };
        let listed = ModelIdentity::listed("http://a", "f1");
        assert_eq!(check(&listed, "http://a", "f1"), Ok(()));
        let error = check(&listed, "http://a", "f2").unwrap_err();
        assert!(error.starts_with("http://a: the served model changed") && error.contains("f1 became f2"), "{error}");

        let shared = ModelIdentity::default();
        let other = shared.clone();
        assert_eq!((check(&shared, "http://a", "f1"), check(&other, "http://b", "f1")), (Ok(()), Ok(())));
        let error = check(&other, "http://b", "f2").unwrap_err();
        assert!(error.contains("http://a serves f1, but http://b serves f2"), "{error}");
    }
}
