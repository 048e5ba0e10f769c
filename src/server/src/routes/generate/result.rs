//! The results of `/generate`: texts, token counts and log-probabilities in SGLang's format.

use surprisal_api::{FinishReason, GenerateMeta, GenerateResponse, Matched, TokenLogprob};
use surprisal_engine::PositionDetails;

use crate::app::{App, TOKEN_BYTES};
use crate::generation::batch::{Prompt, PromptBatch};
use crate::generation::continuation::{Completion, EndReason};
use crate::limits::turns::JobSize;
use crate::routes::response::LOWEST_LOGPROB;
use crate::token_texts::TokenTexts;

/// The memory of a result without lists, in bytes.
const RESULT_BYTES: usize = 256;

/// The memory of a token or an alternative with its text in the lists and in their JSON, in bytes.
const ENTRY_BYTES: usize = 128;

/// The options that determine the contents of a result.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResultFormat {
    /// `true` if the result has log-probabilities.
    pub(super) logprobs: bool,
    /// `true` if each log-probability comes with its token's text.
    pub(super) token_texts: bool,
}

impl ResultFormat {
    /// Returns the size of the job that makes and writes a result, or a result so far.
    pub(super) fn size(self, batch: &PromptBatch, index: usize, completion: &Completion) -> JobSize {
        let scored = if self.logprobs { completion.scores.logprobs.len() } else { 0 };
        let (tokens, top) = (completion.tokens.len() + scored, usize::from(batch.options.top));
        let has_texts = self.logprobs && self.token_texts;
        let texts = if has_texts { batch.prompt(index).texts_size() } else { JobSize::default() };
        let text = completion.text.len();
        let lists = JobSize {
            bytes: RESULT_BYTES + tokens * (1 + usize::from(self.logprobs) + top) * TOKEN_BYTES + text,
            memory: RESULT_BYTES + tokens * (1 + top) * ENTRY_BYTES + 4 * text,
        };
        lists + texts
    }

    /// Returns the result of one prompt, or its result so far if the completion is not `finished`.
    pub(super) fn response(
        self,
        app: &App,
        batch: &PromptBatch,
        index: usize,
        id: &str,
        completion: &Completion,
        finished: bool,
    ) -> GenerateResponse {
        let (prompt, tokens) = (batch.prompt(index), &completion.tokens);
        let from = batch.score_from.unwrap_or(usize::MAX);
        let has_top = batch.options.top > 0;
        let (input, input_top) = self.input(app, prompt, from, completion);
        let (output, output_top) = self.output(app, prompt, completion);
        GenerateResponse {
            text: completion.text.clone(),
            output_ids: tokens.iter().map(|token| token.id).collect(),
            meta_info: GenerateMeta {
                id: id.to_owned(),
                finish_reason: finished.then(|| finish_reason(completion)),
                prompt_tokens: prompt.tokens.len(),
                completion_tokens: tokens.len(),
                cached_tokens: completion.scores.cached_tokens,
                input_token_logprobs: self.logprobs.then_some(input),
                output_token_logprobs: self.logprobs.then_some(output),
                input_top_logprobs: has_top.then_some(input_top),
                output_top_logprobs: has_top.then_some(output_top),
            },
            index: None,
        }
    }

    /// Returns the log-probabilities of the prompt's tokens from index `from` on, and the alternatives at their
    /// positions. Nothing precedes a prompt's first token, so it has neither.
    fn input(
        self,
        app: &App,
        prompt: &Prompt,
        from: usize,
        completion: &Completion,
    ) -> (Vec<TokenLogprob>, Vec<Option<Vec<TokenLogprob>>>) {
        let (mut entries, mut top) = (Vec::new(), Vec::new());
        let listed = prompt.tokens.get(from..).filter(|_| self.logprobs).unwrap_or_default();
        let mut texts = self.token_texts.then(|| prompt.texts(&app.codec, from));
        let mut scores = completion.scores.logprobs.iter().enumerate();
        for (index, &token) in listed.iter().enumerate() {
            let scored = if from + index == 0 { None } else { scores.next() };
            let position = scored.and_then(|(at, _)| completion.scores.positions.get(at));
            top.push(position.map(|position| alternatives(texts.as_ref(), position)));
            let text = texts.as_mut().map(|texts| texts.push(token));
            entries.push((scored.map(|(_, logprob)| logprob.max(LOWEST_LOGPROB)), token, text));
        }
        (entries, top)
    }

    /// Returns the log-probabilities of the generated tokens, and the alternatives at their positions.
    fn output(
        self,
        app: &App,
        prompt: &Prompt,
        completion: &Completion,
    ) -> (Vec<TokenLogprob>, Vec<Vec<TokenLogprob>>) {
        let (mut entries, mut top) = (Vec::new(), Vec::new());
        let generated = if self.logprobs { completion.tokens.as_slice() } else { &[] };
        let mut texts = self.token_texts.then(|| TokenTexts::after(&app.codec, &prompt.tokens));
        for token in generated {
            top.push(alternatives(texts.as_ref(), &token.position));
            let text = texts.as_mut().map(|texts| texts.push(token.id));
            entries.push((Some(token.logprob.max(LOWEST_LOGPROB)), token.id, text));
        }
        (entries, top)
    }
}

/// Returns the alternatives at a position, with their texts if `texts` decodes tokens at this position.
fn alternatives(texts: Option<&TokenTexts>, position: &PositionDetails) -> Vec<TokenLogprob> {
    let text = |token| texts.map(|texts| texts.peek(token));
    position.top.iter().map(|&(token, logprob)| (Some(logprob.max(LOWEST_LOGPROB)), token, text(token))).collect()
}

fn finish_reason(completion: &Completion) -> FinishReason {
    let (kind, length, matched) = match &completion.end {
        None | Some(EndReason::Length) => ("length", Some(completion.tokens.len()), None),
        Some(EndReason::StopToken(token)) => ("stop", None, Some(Matched::Token(*token))),
        Some(EndReason::StopText(text)) => ("stop", None, Some(Matched::Text(text.clone()))),
    };
    FinishReason { kind: kind.to_owned(), length, matched }
}
