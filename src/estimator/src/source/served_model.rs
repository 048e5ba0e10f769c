//! The model that a server serves, from its `/v1/models`.

use serde::Deserialize;

use crate::error::Error;
use crate::source::dialect::ScoringDialect;
use crate::source::options::HttpOptions;

/// The response of `/v1/models`; servers other than ours leave fields out.
#[derive(Deserialize)]
pub(crate) struct ModelList {
    data: Vec<ServedModel>,
}

/// One model of the list.
#[derive(Deserialize)]
pub(crate) struct ServedModel {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) max_model_len: Option<usize>,
    #[serde(default)]
    pub(crate) vocab_size: Option<usize>,
    #[serde(default)]
    fingerprint: Option<String>,
}

impl ModelList {
    /// Returns the model with this name, or the first one; `url` is named in errors.
    pub(crate) fn choose(self, url: &str, name: Option<&str>) -> Result<ServedModel, Error> {
        let ids: Vec<String> = self.data.iter().map(|model| model.id.clone()).collect();
        let chosen = self.data.into_iter().find(|model| name.is_none_or(|name| name == model.id));
        chosen.ok_or_else(|| {
            let reason = match name {
                Some(name) => format!("{name} is not among the models that are served: {}", ids.join(", ")),
                None => "no model is served".to_owned(),
            };
            Error::UnexpectedResponse { url: url.to_owned(), reason }
        })
    }
}

impl ServedModel {
    /// Returns what the model's log-probabilities depend on; `url` is named in errors.
    pub(crate) fn fingerprint(&self, url: &str, options: &HttpOptions) -> Result<String, Error> {
        let own = self.fingerprint.clone();
        let model = match options.api {
            ScoringDialect::Surprisal => {
                let reason = "it has no fingerprint: not a surprisal server? then say which api it has".to_owned();
                own.ok_or_else(|| Error::UnexpectedResponse { url: url.to_owned(), reason })?
            }
            // Others do not promise equal bits; the name is all there is.
            api => own.unwrap_or_else(|| format!("{}:{}", api.name(), self.id)),
        };
        Ok(with_bos(model, options.bos))
    }
}

/// Adds the BOS that the client sends to a fingerprint: log-probabilities depend on it.
pub(crate) fn with_bos(fingerprint: String, bos: Option<u32>) -> String {
    match bos {
        Some(bos) => format!("{fingerprint}, bos {bos}"),
        None => fingerprint,
    }
}
