//! The server under load: where it is, what it serves.

use std::time::Duration;

use serde::Deserialize;

use crate::connection::{Connection, Reply, Trouble};
use crate::{Endpoint, Error};

/// A server that says nothing about itself for so long is not there.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest piece of an answer that is shown.
const SHOWN: usize = 300;

/// A server that answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Where it is.
    pub endpoint: Endpoint,
    /// The API key, if it wants one.
    pub key: Option<String>,
    /// The model it serves.
    pub model: String,
    /// What its numbers depend on, if it says so.
    pub fingerprint: Option<String>,
    /// Token ids are below it.
    pub vocabulary: u32,
    /// Tokens of the longest text it takes, if it says so.
    pub longest: Option<usize>,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

/// What servers tell of a model; beyond the name, each tells something else.
#[derive(Deserialize)]
struct Model {
    id: String,
    #[serde(default)]
    max_model_len: Option<usize>,
    #[serde(default)]
    vocab_size: Option<u32>,
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default)]
    meta: Option<Meta>,
}

/// llama.cpp's.
#[derive(Default, Deserialize)]
struct Meta {
    #[serde(default)]
    n_vocab: Option<u32>,
    #[serde(default)]
    n_ctx_train: Option<usize>,
}

impl Target {
    /// Asks the server which model it serves (`/v1/models`). `vocabulary` overrides what it says, and is needed where it says
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Status`] or [`Error::Answer`] if it does not tell; [`Error::Invalid`] for a vocabulary that
    /// nobody knows.
    pub async fn discover(endpoint: Endpoint, key: Option<String>, vocabulary: Option<u32>) -> Result<Self, Error> {
        let url = endpoint.url("/v1/models");
        let mut connection = Connection::new(endpoint.clone(), key.as_deref(), PATIENCE);
        let reply = connection.get("/v1/models").await;
        let reply = expect_success(&url, reply)?;
        let unclear = |reason: String| Error::Answer { url: url.clone(), reason };
        let models: Models = serde_json::from_slice(&reply.body).map_err(|error| unclear(error.to_string()))?;
        let model = models.data.into_iter().next().ok_or_else(|| unclear("it serves no model".into()))?;
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
            longest: model.max_model_len.or(meta.n_ctx_train),
        })
    }

    pub(crate) fn connect(&self, timeout: Duration) -> Connection {
        Connection::new(self.endpoint.clone(), self.key.as_deref(), timeout)
    }
}

/// An answer with status 200, or why there is none.
pub(crate) fn expect_success(url: &str, reply: Result<Reply, Trouble>) -> Result<Reply, Error> {
    let reply = reply.map_err(|error| Error::Unreachable { url: url.to_owned(), reason: error.to_string() })?;
    if reply.status == 200 {
        return Ok(reply);
    }
    let body: String = String::from_utf8_lossy(&reply.body).chars().take(SHOWN).collect();
    Err(Error::Status { url: url.to_owned(), status: reply.status, body })
}
