//! The served model, from a server's `/v1/models`.

use serde::Deserialize;

use crate::error::Error;
use crate::source::dialect::ScoringDialect;
use crate::source::options::HttpOptions;

/// The response of `/v1/models`. Servers other than surprisal omit some fields.
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
    /// Returns the model with this name, or the first one if `name` is `None`. Error messages include `url`.
    pub(crate) fn choose(self, url: &str, name: Option<&str>) -> Result<ServedModel, Error> {
        let ids: Vec<String> = self.data.iter().map(|model| format!("`{}`", model.id)).collect();
        let chosen = self.data.into_iter().find(|model| name.is_none_or(|name| name == model.id));
        chosen.ok_or_else(|| {
            let reason = match name {
                Some(name) => format!("unknown model `{name}`; the server serves {}", ids.join(", ")),
                None => "the server serves no model".to_owned(),
            };
            Error::UnexpectedResponse { url: url.to_owned(), reason }
        })
    }
}

impl ServedModel {
    /// Returns whether the server lists a fingerprint.
    pub(crate) fn lists_fingerprint(&self) -> bool {
        self.fingerprint.is_some()
    }

    /// Returns the fingerprint, which identifies everything that the model's log-probabilities depend on. Errors name
    /// `url`.
    pub(crate) fn fingerprint(&self, url: &str, options: &HttpOptions) -> Result<String, Error> {
        let own = self.fingerprint.clone();
        let model = match options.api {
            ScoringDialect::Surprisal => {
                let reason = "the model has no fingerprint; set api if this is not a surprisal server".to_owned();
                own.ok_or_else(|| Error::UnexpectedResponse { url: url.to_owned(), reason })?
            }
            // Other servers do not promise bit-identical results; the best identity is the model's name.
            api => own.unwrap_or_else(|| format!("{}:{}", api.name(), self.id)),
        };
        Ok(with_bos(model, options.bos))
    }
}

/// Appends the client's BOS to a fingerprint, because log-probabilities depend on it.
pub(crate) fn with_bos(fingerprint: String, bos: Option<u32>) -> String {
    match bos {
        Some(bos) => format!("{fingerprint}, bos {bos}"),
        None => fingerprint,
    }
}
