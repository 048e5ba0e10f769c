//! The server under load: its address, and the model it serves.

use std::time::Duration;

use serde::Deserialize;

use super::connection::{Connection, expect_success};
use super::endpoint::Endpoint;
use crate::error::Error;

/// Timeout of the request for the server's model.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// A server and the model that it reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The server's address.
    pub endpoint: Endpoint,
    /// The API key; `None` if the server requires none.
    pub key: Option<String>,
    /// Name of the model.
    pub model: String,
    /// Fingerprint of everything that the log-probabilities depend on; `None` if the server reports none.
    pub fingerprint: Option<String>,
    /// Vocabulary size; every token id is less than this.
    pub vocabulary: u32,
    /// Maximum length of a text, in tokens; `None` if the server reports none.
    pub max_length: Option<usize>,
}

#[derive(Deserialize)]
struct ModelList {
    data: Vec<ListedModel>,
}

/// A model in the list of models; fields other than the name depend on the kind of server.
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

/// Fields that only llama.cpp's server has.
#[derive(Default, Deserialize)]
struct LlamaCppMeta {
    #[serde(default)]
    n_vocab: Option<u32>,
    #[serde(default)]
    n_ctx_train: Option<usize>,
}

impl Target {
    /// Requests the server's model from `/v1/models`. `vocabulary` overrides the vocabulary size that the server
    /// reports, and is required if it reports none.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Status`] or [`Error::Answer`] if the server's model cannot be read;
    /// [`Error::Invalid`] if the vocabulary size is unknown.
    pub async fn discover(endpoint: Endpoint, key: Option<String>, vocabulary: Option<u32>) -> Result<Self, Error> {
        let url = endpoint.url("/v1/models");
        let mut connection = Connection::new(endpoint.clone(), key.as_deref(), DISCOVERY_TIMEOUT);
        let response = connection.get("/v1/models").await;
        let response = expect_success(&url, response)?;
        let invalid = |reason: String| Error::Answer { url: url.clone(), reason };
        let models: ModelList = serde_json::from_slice(&response.body).map_err(|error| invalid(error.to_string()))?;
        let model = models.data.into_iter().next().ok_or_else(|| invalid("the list of models is empty".into()))?;
        let meta = model.meta.unwrap_or_default();
        let Some(vocabulary) = vocabulary.or(model.vocab_size).or(meta.n_vocab) else {
            return Err(Error::invalid("vocabulary", "unknown", "set with --vocab: the server does not report it"));
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

    /// Returns a connection to the server that is not open yet.
    pub(crate) fn connect(&self, timeout: Duration) -> Connection {
        Connection::new(self.endpoint.clone(), self.key.as_deref(), timeout)
    }
}
