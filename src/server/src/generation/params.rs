//! Generation parameters of a request, and the engine settings derived from them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use surprisal_api::Stops;
use surprisal_engine::{Generation, PositionOptions, Sampling, ScoreError};

use crate::app::App;
use crate::input::validate::{check_maximum, check_vocabulary};
use crate::problem::{self, Failure};

/// The maximum number of stop strings: the decoder searches for each one after every token.
pub(crate) const MAX_STOPS: usize = 64;

/// The maximum length of a stop string, in bytes.
const MAX_STOP_BYTES: usize = 1024;

/// The maximum number of stop tokens.
pub(crate) const MAX_STOP_TOKENS: usize = 256;

/// The generation parameters of a request, independent of the route's field names.
#[derive(Debug, Default)]
pub(crate) struct GenerationParams {
    /// Prefix of the field names in problems.
    pub(crate) field_prefix: &'static str,
    /// Field name of `max_tokens`, without the prefix.
    pub(crate) max_tokens_field: &'static str,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) default_max_tokens: u32,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<i64>,
    pub(crate) seed: Option<i64>,
    pub(crate) stop: Option<Stops>,
    pub(crate) stop_token_ids: Option<Vec<u32>>,
    pub(crate) ignore_eos: bool,
    /// Number of alternatives to list for each token.
    pub(crate) top: u16,
}

/// The generation settings for a batch of prompts.
#[derive(Debug)]
pub(crate) struct GenerationConfig {
    /// Settings that all completions share. `PromptBatch::submit` sets the seed and `max_tokens` of each completion.
    pub(crate) generation: Generation,
    /// `true` if the request has a seed. Then the seeds of a prompt's completions do not depend on the other prompts;
    /// otherwise all completions of the request have different seeds.
    pub(crate) is_seeded: bool,
    /// `true` if the request omits `max_tokens`. Then a long prompt is continued only as far as the model's maximum
    /// length allows.
    pub(crate) is_default_length: bool,
    /// Path of `max_tokens` in the request, for use in problems.
    pub(crate) max_tokens_field: String,
    pub(crate) stops: Arc<[String]>,
}

impl GenerationParams {
    /// Validates the parameters. Returns the settings; `None` if the request generates no tokens.
    pub(crate) fn into_config(self, app: &App) -> Result<Option<GenerationConfig>, Failure> {
        let field = |name: &str| format!("{}{name}", self.field_prefix);
        let stops: Arc<[String]> = self.stop.map(Vec::from).unwrap_or_default().into();
        check_stops(&stops, &field("stop"))?;
        let mut stop_tokens = self.stop_token_ids.unwrap_or_default();
        check_maximum(&field("stop_token_ids"), stop_tokens.len(), MAX_STOP_TOKENS)?;
        check_vocabulary(&stop_tokens, app.model().vocab_size, &field("stop_token_ids"), None)?;
        if !self.ignore_eos {
            stop_tokens.extend(app.codec.end_token_ids());
        }
        let top_k = match self.top_k.unwrap_or(0) {
            -1 => 0,
            top_k => u32::try_from(top_k)
                .map_err(|_| problem::out_of_range(&field("top_k"), &top_k.to_string(), "from -1 to 4294967295"))?,
        };
        let max_tokens = self.max_tokens.unwrap_or(self.default_max_tokens);
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(1.0),
            top_k,
            // Any i64 is a valid seed: only its bits matter.
            seed: self.seed.map_or_else(|| RandomState::new().build_hasher().finish(), i64::cast_unsigned),
        };
        let options = PositionOptions { top: self.top, ..PositionOptions::default() };
        let generation = Generation { max_tokens: max_tokens.max(1) as usize, sampling, stop: stop_tokens, options };
        generation.check().map_err(|error| match error {
            ScoreError::Sampling { field: name, value, rule } => problem::out_of_range(&field(name), &value, rule),
            _ => problem::internal(),
        })?;
        let (is_seeded, is_default_length) = (self.seed.is_some(), self.max_tokens.is_none());
        let max_tokens_field = field(self.max_tokens_field);
        let config = GenerationConfig { generation, is_seeded, is_default_length, max_tokens_field, stops };
        Ok((max_tokens > 0).then_some(config))
    }
}

impl GenerationConfig {
    /// Returns the number of tokens that must fit after a prompt, within the model's maximum length.
    pub(crate) fn min_tokens(&self) -> usize {
        if self.is_default_length { 1 } else { self.generation.max_tokens }
    }

    /// Returns the maximum number of tokens to generate after a prompt of this length, in a sequence of at most
    /// `max_length` tokens.
    pub(crate) fn max_tokens(&self, prompt_length: usize, max_length: usize) -> usize {
        let max_tokens = self.generation.max_tokens;
        if self.is_default_length { max_tokens.min(max_length.saturating_sub(prompt_length)) } else { max_tokens }
    }
}

fn check_stops(stops: &[String], field: &str) -> Result<(), Failure> {
    check_maximum(field, stops.len(), MAX_STOPS)?;
    for (at, stop) in stops.iter().enumerate() {
        let field = format!("{field}[{at}]");
        if stop.is_empty() {
            return Err(problem::empty_stop(field));
        }
        check_maximum(&field, stop.len(), MAX_STOP_BYTES)?;
    }
    Ok(())
}
