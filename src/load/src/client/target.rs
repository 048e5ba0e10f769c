//! The server under load: its address, and the model it serves.

use std::time::Duration;

use serde::Deserialize;

use super::connection::{Connection, expect_success};
use super::endpoint::Endpoint;
use crate::error::Error;

/// Longest wait for a server to state which model it serves.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that has stated what it serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its address.
    pub endpoint: Endpoint,
    /// The API key, if it requires one.
    pub key: Option<String>,
    /// The model it serves.
    pub model: String,
    /// The fingerprint of everything its numbers depend on, if it states one.
    pub fingerprint: Option<String>,
    /// Size of its vocabulary; every token id is below it.
    pub vocabulary: u32,
    /// Tokens of the longest text it takes, if it states a limit.
    pub max_length: Option<usize>,
}

#[derive(Deserialize)]
struct ModelList {
    data: Vec<ListedModel>,
}

/// A model in the list of models; beyond the name, each kind of server states other fields.
#[derive(Deserialize)]
struct ListedModel {
    id: String,
    #[serde(default)]
    max_model_len: Option<usize>,
    #[serde(default)]
    vocab_size: Option<u32>,
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default)]
    meta: Option<LlamaCppMeta>,
}

/// The fields of llama.cpp's server.
#[derive(Default, Deserialize)]
struct LlamaCppMeta {
    #[serde(default)]
    n_vocab: Option<u32>,
    #[serde(default)]
    n_ctx_train: Option<usize>,
}

impl Target {
    /// Asks the server which model it serves (`/v1/models`). `vocabulary` overrides the size that the server states, and is
    /// required where it states none.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Status`] or [`Error::Answer`] if it does not tell; [`Error::Invalid`] for a vocabulary that
    /// nobody knows.
    pub async fn discover(endpoint: Endpoint, key: Option<String>, vocabulary: Option<u32>) -> Result<Self, Error> {
        let url = endpoint.url("/v1/models");
        let mut connection = Connection::new(endpoint.clone(), key.as_deref(), DISCOVERY_TIMEOUT);
        let response = connection.get("/v1/models").await;
        let response = expect_success(&url, response)?;
        let invalid = |reason: String| Error::Answer { url: url.clone(), reason };
        let models: ModelList = serde_json::from_slice(&response.body).map_err(|error| invalid(error.to_string()))?;
        let model = models.data.into_iter().next().ok_or_else(|| invalid("it serves no model".into()))?;
        let meta = model.meta.unwrap_or_default();
        let Some(vocabulary) = vocabulary.or(model.vocab_size).or(meta.n_vocab) else {
            return Err(Error::invalid("vocabulary", "unknown", "given (--vocab), since the server does not tell"));
        };
        Ok(Self {
            endpoint,
            key,
            model: model.id,
            fingerprint: model.fingerprint,
            vocabulary,
            max_length: model.max_model_len.or(meta.n_ctx_train),
        })
    }

    /// Returns a connection to the server, not yet open.
    pub(crate) fn connect(&self, timeout: Duration) -> Connection {
        Connection::new(self.endpoint.clone(), self.key.as_deref(), timeout)
    }
}
