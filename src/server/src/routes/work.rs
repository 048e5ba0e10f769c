//! What `/v1/completions` and `/generate` are made of: prompts to tokens, and each prompt scored, continued, or both.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, try_join_all};
use surprisal_api::{Bos, Detail, Prompts, Stops, Text};
use surprisal_engine::{Generation, PositionOptions, Query, Sampling, SchedulingParams, ScoreError};

use super::continuation::{Continuation, Written};
use crate::App;
use crate::prepare::{begin, check_count, check_most, check_vocabulary, encode};
use crate::problem::{self, Failure};

/// The most texts that end a continuation, and the longest, in bytes: each is looked for at every token.
pub(crate) const MAX_STOPS: usize = 64;
const MAX_STOP_BYTES: usize = 1024;

/// The most tokens that do.
pub(crate) const MAX_STOP_TOKENS: usize = 256;

/// What is asked of each prompt.
#[derive(Debug)]
pub(super) struct Work {
    /// How the request calls its prompts.
    pub(super) name: &'static str,
    pub(super) prompts: Vec<Prompt>,
    /// Completions of each prompt.
    pub(super) each: usize,
    /// Index of the first scored token of a prompt, if any is; nothing stands before a prompt's first.
    pub(super) score_from: Option<usize>,
    pub(super) extras: PositionOptions,
    pub(super) writing: Option<Writing>,
    pub(super) turn: SchedulingParams,
}

/// A prompt's tokens, and the text that they were made of, if it was one.
#[derive(Debug)]
pub(super) struct Prompt {
    pub(super) tokens: Vec<u32>,
    pub(super) text: Option<String>,
}

/// How prompts are continued.
#[derive(Debug)]
pub(super) struct Writing {
    generation: Generation,
    /// Whether the request has a seed: then each prompt is continued as it would be alone. Without one, all are drawn apart.
    seeded: bool,
    /// True where a prompt that leaves less room than asked is continued as far as there is.
    yields: bool,
    stops: Arc<[String]>,
}

/// How a request says how prompts are continued.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// What stands before the names of the fields.
    pub(super) prefix: &'static str,
    pub(super) length: Option<u32>,
    pub(super) default_length: u32,
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    pub(super) top_k: Option<i64>,
    pub(super) seed: Option<i64>,
    pub(super) stop: Option<Stops>,
    pub(super) stop_token_ids: Option<Vec<u32>>,
    pub(super) ignore_eos: bool,
    pub(super) top: u16,
}

impl Wish {
    /// How to generate; `None` where no token is wanted. Numbers are checked in either case.
    pub(super) fn writing(self, app: &App) -> Result<Option<Writing>, Failure> {
        let name = |field: &str| format!("{}{field}", self.prefix);
        let stops: Arc<[String]> = self.stop.map(Vec::from).unwrap_or_default().into();
        check_stops(&stops, &name("stop"))?;
        let mut stop = self.stop_token_ids.unwrap_or_default();
        check_most(&name("stop_token_ids"), stop.len(), MAX_STOP_TOKENS)?;
        check_vocabulary(&stop, app.model().vocab_size, &name("stop_token_ids"), None)?;
        if !self.ignore_eos {
            stop.extend(app.codec.ends());
        }
        let top_k = match self.top_k.unwrap_or(0) {
            -1 => 0,
            top_k => u32::try_from(top_k)
                .map_err(|_| problem::out_of_range(&name("top_k"), &top_k.to_string(), "-1, 0, or a count"))?,
        };
        let length = self.length.unwrap_or(self.default_length);
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(1.0),
            top_k,
            // Bits are what counts, not their sign.
            seed: self.seed.map_or_else(|| RandomState::new().build_hasher().finish(), i64::cast_unsigned),
        };
        let extras = PositionOptions { top: self.top, ..PositionOptions::default() };
        let generation = Generation { max_tokens: length.max(1) as usize, sampling, stop, options: extras };
        generation.check().map_err(|error| match error {
            ScoreError::Sampling { field, value, rule } => problem::out_of_range(&name(field), &value, rule),
            _ => problem::internal(),
        })?;
        let (seeded, yields) = (self.seed.is_some(), self.length.is_none());
        Ok((length > 0).then_some(Writing { generation, seeded, yields, stops }))
    }
}

impl Work {
    /// Completions in all.
    pub(super) fn count(&self) -> usize {
        self.prompts.len() * self.each
    }

    /// The prompt of a completion.
    pub(super) fn prompt(&self, index: usize) -> &Prompt {
        &self.prompts[index / self.each]
    }

    /// How a problem calls a completion's prompt.
    pub(super) fn field(&self, index: usize) -> String {
        format!("{}[{}]", self.name, index / self.each)
    }

    /// Refuses what does not fit; the room that the rest takes, in tokens. An alternative counts as a token.
    pub(super) fn check(&self, app: &App) -> Result<u32, Failure> {
        check_count(self.name, self.count(), app.config.max_queries)?;
        let limit = app.model().max_length;
        let mut total = 0_usize;
        for (index, Prompt { tokens: prompt, .. }) in self.prompts.iter().enumerate() {
            let least = match &self.writing {
                None => 0,
                Some(writing) if writing.yields => 1,
                Some(writing) => writing.generation.max_tokens,
            };
            if prompt.len().saturating_add(least) > limit {
                let field = format!("{}[{index}]", self.name);
                return Err(problem::sequence_too_long(index, field, prompt.len().saturating_add(least), limit));
            }
            let drawn = self.writing.as_ref().map_or(0, |writing| writing.length(prompt.len(), limit));
            let scored = self.score_from.map_or(0, |from| prompt.len().saturating_sub(from));
            let top = self.writing.as_ref().map_or(0, |writing| writing.generation.options.top);
            let alternatives = scored * usize::from(self.extras.top) + drawn.saturating_mul(top.into());
            total = total.saturating_add((prompt.len() + drawn).saturating_add(alternatives).saturating_mul(self.each));
        }
        app.admission.check(total)
    }

    /// Asks for one completion, at once.
    pub(super) fn ask<'a>(&self, app: &'a App, index: usize) -> Asked<'a> {
        let prompt = &self.prompt(index).tokens;
        let len = prompt.len();
        let score_from = self.score_from.map_or(len, |from| from.max(1).min(len));
        let query = Query { tokens: prompt.clone(), score_from, options: self.extras.clone(), scheduling: self.turn };
        match &self.writing {
            Some(writing) => {
                let mut generation = writing.generation.clone();
                generation.max_tokens = writing.length(len, app.model().max_length);
                let nth = if writing.seeded { index % self.each } else { index };
                generation.sampling.seed = generation.sampling.seed.wrapping_add(nth as u64);
                Asked::Continued(Box::new(Continuation::ask(app, query, generation, Arc::clone(&writing.stops))))
            }
            None if score_from < len => {
                let scores = app.scorer.score(query);
                Asked::Scored(async { Ok(Written { scores: scores.await?, ..Written::default() }) }.boxed())
            }
            None => Asked::Scored(async { Ok(Written::default()) }.boxed()),
        }
    }

    /// All completions, in order; the first failure drops the rest.
    pub(super) async fn run(&self, app: &App) -> Result<Vec<Written>, Failure> {
        let asked: Vec<_> = (0..self.count()).map(|index| self.ask(app, index)).collect();
        let one = async |(index, asked): (usize, Asked<'_>)| {
            let written = match asked {
                Asked::Scored(scores) => scores.await,
                Asked::Continued(continuation) => continuation.written().await,
            };
            written.map_err(|error| problem::not_scored(index / self.each, self.field(index), &error))
        };
        try_join_all(asked.into_iter().enumerate().map(one)).await
    }
}

/// A completion that was asked for.
pub(super) enum Asked<'a> {
    Scored(BoxFuture<'a, Result<Written, ScoreError>>),
    Continued(Box<Continuation>),
}

impl Writing {
    /// The most tokens that are drawn after a prompt.
    fn length(&self, prompt: usize, limit: usize) -> usize {
        let asked = self.generation.max_tokens;
        if self.yields { asked.min(limit.saturating_sub(prompt)) } else { asked }
    }
}

fn check_stops(stops: &[String], field: &str) -> Result<(), Failure> {
    check_most(field, stops.len(), MAX_STOPS)?;
    for (at, stop) in stops.iter().enumerate() {
        let field = format!("{field}[{at}]");
        if stop.is_empty() {
            return Err(problem::empty_stop(field));
        }
        check_most(&field, stop.len(), MAX_STOP_BYTES)?;
    }
    Ok(())
}

/// The tokens of prompts that fit; BOS goes before strings alone, if `special`.
pub(super) fn tokenise(app: &App, prompts: Prompts, name: &str, special: bool) -> Result<Vec<Prompt>, Failure> {
    let prompts = match prompts {
        Prompts::One(prompt) => vec![prompt],
        Prompts::Many(prompts) => prompts,
    };
    check_count(name, prompts.len(), app.config.max_queries)?;
    let tokens = |(index, prompt): (usize, Text)| {
        let field = format!("{name}[{index}]");
        let text = if let Text::String(text) = &prompt { Some(text.clone()) } else { None };
        let rule = if special && text.is_some() { Bos::Auto } else { Bos::None };
        let tokens = begin(rule, app.codec.bos(), encode(app, prompt, Detail::Sum, &field, Some(index))?.tokens);
        if tokens.is_empty() { Err(problem::empty_prompt(index, field)) } else { Ok(Prompt { tokens, text }) }
    };
    prompts.into_iter().enumerate().map(tokens).collect()
}
