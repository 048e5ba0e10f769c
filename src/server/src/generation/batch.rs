//! The prompts of one request. The engine scores each prompt, continues it, or does both.

use std::ops::Range;
use std::sync::{Arc, Once};

use futures_util::future::{BoxFuture, FutureExt};
use surprisal_api::{Detail, Prompts, Text};
use surprisal_engine::{CacheNamespace, PositionOptions, Query, SchedulingParams, ScoreError};

use super::continuation::{Completion, Continuation};
use super::params::GenerationConfig;
use crate::app::App;
use crate::codec::TextCodec;
use crate::input::encode::{EncodedText, add_template, encode};
use crate::input::validate::check_query_count;
use crate::limits::disposal::{Bulky, Disposed};
use crate::limits::turns::JobSize;
use crate::limits::window::{NumberedResults, SubmissionWindow};
use crate::problem::{self, Failure};
use crate::token_texts::{TokenTexts, divide};

/// The prompts of a request, and the settings for scoring and continuing them.
#[derive(Debug)]
pub(crate) struct PromptBatch {
    /// Request field that contains the prompts, for use in problems.
    pub(crate) field: PromptField,
    pub(crate) prompts: Disposed<Vec<Prompt>>,
    pub(crate) completions_per_prompt: usize,
    /// Index of the first token to score in each prompt; `None` to score none. A prompt's first token is never scored.
    pub(crate) score_from: Option<usize>,
    /// Details to compute for each scored token, in addition to its log-probability.
    pub(crate) options: PositionOptions,
    /// Generation settings; `None` if the prompts are only scored.
    pub(crate) generation: Option<GenerationConfig>,
    pub(crate) scheduling: SchedulingParams,
    /// Part of the prefix cache that the prompts share with others.
    pub(crate) namespace: CacheNamespace,
}

/// A prompt: its tokens, and its text if the request contains the prompt as a string.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: Option<String>,
    /// Range of the text's own tokens, between those that the tokenizer adds.
    own_tokens: Range<usize>,
    /// Memory for encoding the text again, in bytes.
    encoding_memory: usize,
}

impl Bulky for Prompt {
    fn allocations(&self) -> usize {
        2
    }
}

impl Prompt {
    /// Returns the size of the job that divides the text among the tokens, for which it may have to be encoded again.
    pub(crate) fn texts_size(&self) -> JobSize {
        JobSize { bytes: self.text.as_ref().map_or(0, String::len), memory: self.encoding_memory }
    }

    /// Returns a decoder for the prompt's tokens from index `from` on. The texts of a string's own tokens join to the
    /// string.
    pub(crate) fn texts(&self, codec: &Arc<dyn TextCodec>, from: usize) -> TokenTexts {
        let mut added = TokenTexts::after(codec, &[]);
        let (before, rest) = self.tokens.split_at(from.min(self.tokens.len()));
        let Some(text) = &self.text else { return TokenTexts::after(codec, before) };
        // The text has been encoded before, so this cannot fail.
        let offsets = || codec.encode_with_offsets(text).map(|(_, offsets)| offsets).unwrap_or_default();
        let own = divide(codec.as_ref(), text, &self.tokens[self.own_tokens.clone()], offsets);
        let mut texts: Vec<String> =
            self.tokens[..self.own_tokens.start].iter().map(|&token| added.push(token)).collect();
        texts.extend(own);
        texts.extend(self.tokens[self.own_tokens.end..].iter().map(|&token| added.push(token)));
        let known = texts.split_off(texts.len().saturating_sub(rest.len()));
        TokenTexts::after(codec, before).with_known(known)
    }
}

/// The request field that contains one prompt or a list of prompts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PromptField {
    pub(crate) name: &'static str,
    /// `true` if the field contains a list.
    pub(crate) is_list: bool,
}

impl PromptField {
    pub(crate) fn new(name: &'static str, prompts: &Prompts) -> Self {
        Self { name, is_list: matches!(prompts, Prompts::Many(_)) }
    }

    /// Returns the path of a prompt, such as `prompt[3]`, or `prompt` if it is the only one and not in a list.
    pub(crate) fn at(self, index: usize) -> String {
        if self.is_list { format!("{}[{index}]", self.name) } else { self.name.to_owned() }
    }
}

/// A completion that the engine is working on.
pub(crate) enum PendingCompletion<'a> {
    /// A prompt that is scored but not continued.
    Scored(BoxFuture<'a, Result<Completion, ScoreError>>),
    Continued(Box<Continuation>),
}

impl PromptBatch {
    /// Returns the number of completions of all prompts.
    pub(crate) fn count(&self) -> usize {
        self.prompts.len() * self.completions_per_prompt
    }

    /// Returns the number of tokens of all prompts.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.tokens.len()).sum()
    }

    /// Returns the prompt of a completion.
    pub(crate) fn prompt(&self, index: usize) -> &Prompt {
        &self.prompts[index / self.completions_per_prompt]
    }

    /// Returns the problem for a completion that failed in the engine.
    pub(crate) fn engine_failed(&self, index: usize, error: &ScoreError) -> Failure {
        let prompt = index / self.completions_per_prompt;
        problem::engine_failed(prompt, self.field.at(prompt), error)
    }

    /// Rejects a batch that exceeds a limit. Returns the number of tokens that admission counts for the batch; each
    /// alternative counts as one token.
    pub(crate) fn check(&self, app: &App) -> Result<u32, Failure> {
        let (prompts, max_queries) = (self.prompts.len(), app.config.max_queries);
        check_query_count(self.field.name, prompts, max_queries)?;
        if self.count() > max_queries {
            return Err(problem::too_many_completions(self.completions_per_prompt, prompts, max_queries));
        }
        let max_length = app.model().max_length;
        let mut total = 0_usize;
        for (index, prompt) in self.prompts.iter().enumerate() {
            let prompt_length = prompt.tokens.len();
            self.check_length(index, prompt_length, max_length)?;
            let cost = self.cost(prompt_length, max_length).saturating_mul(self.completions_per_prompt);
            total = total.saturating_add(cost);
        }
        app.admission.check_tokens(total)
    }

    /// Rejects a prompt that is too long, or that leaves too little room for its continuation.
    fn check_length(&self, index: usize, prompt_length: usize, max_length: usize) -> Result<(), Failure> {
        let min_tokens = self.generation.as_ref().map_or(0, GenerationConfig::min_tokens);
        let min_length = prompt_length.saturating_add(min_tokens);
        if min_length <= max_length {
            return Ok(());
        }
        match &self.generation {
            Some(config) if prompt_length <= max_length && !config.is_default_length => {
                let field = config.max_tokens_field.clone();
                Err(problem::max_tokens_too_large(index, field, min_tokens, prompt_length, max_length))
            }
            _ => {
                let field = self.field.at(index);
                Err(problem::sequence_too_long(index, field, min_length, max_length))
            }
        }
    }

    /// Returns the number of tokens that admission counts for one completion: the tokens of its sequence, and one token
    /// per alternative.
    fn cost(&self, prompt_length: usize, max_length: usize) -> usize {
        let scored = self.score_from.map_or(0, |from| prompt_length.saturating_sub(from));
        let scored_alternatives = scored * usize::from(self.options.top);
        let Some(config) = &self.generation else { return prompt_length.saturating_add(scored_alternatives) };
        let generated = config.max_tokens(prompt_length, max_length);
        let generated_alternatives = generated.saturating_mul(config.generation.options.top.into());
        (prompt_length + generated).saturating_add(scored_alternatives + generated_alternatives)
    }

    /// Submits one completion to the engine at once, before the result is awaited.
    pub(crate) fn submit<'a>(&self, app: &'a App, index: usize) -> PendingCompletion<'a> {
        let tokens = self.prompt(index).tokens.clone();
        let length = tokens.len();
        let score_from = self.score_from.map_or(length, |from| from.max(1).min(length));
        let (options, scheduling, namespace) = (self.options.clone(), self.scheduling, self.namespace);
        let query = Query { tokens, score_from, options, scheduling, namespace };
        match &self.generation {
            Some(config) => {
                let mut generation = config.generation.clone();
                generation.max_tokens = config.max_tokens(length, app.model().max_length);
                let offset = if config.is_seeded { index % self.completions_per_prompt } else { index };
                generation.sampling.seed = generation.sampling.seed.wrapping_add(offset as u64);
                let stops = Arc::clone(&config.stops);
                PendingCompletion::Continued(Box::new(Continuation::start(app, query, generation, stops)))
            }
            None if score_from < length => {
                let scores = app.scorer.score(query);
                let completion = async { Ok(Completion { scores: scores.await?, ..Completion::default() }) };
                PendingCompletion::Scored(completion.boxed())
            }
            None => PendingCompletion::Scored(async { Ok(Completion::default()) }.boxed()),
        }
    }

    /// Runs all completions; returns them in order, with their indices. The first failure cancels the rest.
    pub(crate) async fn run(&self, app: &App) -> Result<Vec<(usize, Completion)>, Failure> {
        let mut window = SubmissionWindow::new(self.count(), |index| {
            let pending = self.submit(app, index);
            async move { (index, pending.finish().await) }
        });
        let mut completions = NumberedResults::default();
        while let Some((index, completion)) = window.next().await {
            completions.insert(index, completion.map_err(|error| self.engine_failed(index, &error))?);
        }
        Ok(completions.into_list())
    }
}

impl PendingCompletion<'_> {
    async fn finish(self) -> Result<Completion, ScoreError> {
        match self {
            Self::Scored(scores) => scores.await,
            Self::Continued(continuation) => continuation.finish().await,
        }
    }
}

/// Warns, once, about token ids without the tokens that the tokenizer adds before a text: clients that tokenize texts
/// themselves often forget them.
fn warn_if_bos_is_missing(prefix: &[u32], tokens: &[u32]) {
    static WARNING: Once = Once::new();
    if !tokens.starts_with(prefix) {
        WARNING.call_once(|| {
            let first = tokens.first();
            tracing::warn!(
                ?prefix,
                first,
                "prompt of token ids lacks the BOS that the tokenizer adds to texts; scores may be far off"
            );
        });
    }
}

/// Tokenizes prompts and rejects empty ones. Adds the tokenizer's special tokens to strings
/// only, and only if `special` is `true`.
pub(crate) fn tokenize_prompts(
    app: &App,
    prompts: Prompts,
    field: PromptField,
    special: bool,
) -> Result<Disposed<Vec<Prompt>>, Failure> {
    let prompts = match prompts {
        Prompts::One(prompt) => vec![prompt],
        Prompts::Many(prompts) => prompts,
    };
    check_query_count(field.name, prompts.len(), app.config.max_queries)?;
    let mut tokenized = Vec::with_capacity(prompts.len());
    let mut total = 0;
    for (index, prompt) in prompts.into_iter().enumerate() {
        let field = field.at(index);
        let text = if let Text::String(text) = &prompt { Some(text.clone()) } else { None };
        let EncodedText { mut tokens, .. } = encode(app, prompt, Detail::Sum, &field, Some(index))?;
        total += tokens.len();
        app.admission.check_tokens(total)?;
        let mut own_tokens = 0..tokens.len();
        if special && text.is_some() {
            (tokens, own_tokens) = add_template(app.codec.as_ref(), &tokens);
        } else if text.is_none() {
            warn_if_bos_is_missing(app.codec.prefix(), &tokens);
        }
        if tokens.is_empty() {
            return Err(problem::empty_prompt(index, field));
        }
        let encoding_memory = app.codec.encoding_bytes().saturating_mul(text.as_ref().map_or(0, String::len));
        tokenized.push(Prompt { tokens, text, own_tokens, encoding_memory });
    }
    Ok(Disposed::new(tokenized))
}
