//! The choices of `/v1/completions`: texts, and log-probabilities in the formats of OpenAI and vLLM.

use std::collections::BTreeMap;

use surprisal_api::{Choice, ChoiceLogprobs, PromptLogprob};
use surprisal_engine::{GeneratedToken, PositionDetails, Scores};

use crate::app::App;
use crate::generation::batch::Prompt;
use crate::generation::continuation::{Completion, EndReason};
use crate::generation::decoder::token_text;
use crate::routes::response::LOWEST_LOGPROB;

/// The options that determine the contents of a choice.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChoiceFormat {
    pub(super) echo: bool,
    /// Number of alternatives to list for each token of the text; `None` to list no log-probabilities.
    pub(super) logprobs: Option<u16>,
    /// Number of alternatives to list for each token of the prompt; `None` to list no log-probabilities.
    pub(super) prompt_logprobs: Option<u16>,
}

/// One token of a list, with its log-probability unless it is the first token of a prompt.
#[derive(Clone, Copy)]
struct Entry<'a> {
    token: u32,
    logprob: Option<f32>,
    position: Option<&'a PositionDetails>,
}

impl<'a> From<&'a GeneratedToken> for Entry<'a> {
    fn from(GeneratedToken { id, logprob, position, .. }: &'a GeneratedToken) -> Self {
        Entry { token: *id, logprob: Some(*logprob), position: Some(position) }
    }
}

impl ChoiceFormat {
    /// Returns a whole completion as a choice.
    pub(super) fn choice(self, app: &App, index: usize, prompt: &Prompt, completion: &Completion) -> Choice {
        let mut choice = self.prompt_choice(app, index, prompt, &completion.scores);
        choice.text.push_str(&completion.text);
        let generated = self.tokens(app, &completion.tokens, choice.logprobs.as_ref().map_or(0, end_offset));
        if let (Some(lists), Some(generated)) = (&mut choice.logprobs, generated) {
            lists.text_offset.extend(generated.text_offset);
            lists.token_logprobs.extend(generated.token_logprobs);
            lists.tokens.extend(generated.tokens);
            lists.top_logprobs.extend(generated.top_logprobs);
        }
        choice.finish_reason = Some(completion.end.as_ref().map_or("length", EndReason::finish_reason).to_owned());
        choice
    }

    /// Returns the part of a choice that comes from the prompt.
    pub(super) fn prompt_choice(self, app: &App, index: usize, prompt: &Prompt, scores: &Scores) -> Choice {
        let Prompt { tokens, text } = prompt;
        let first = Entry { token: tokens[0], logprob: None, position: None };
        let scored = tokens[1..].iter().zip(&scores.logprobs).enumerate().map(|(at, (&token, &logprob))| Entry {
            token,
            logprob: Some(logprob),
            position: scores.positions.get(at),
        });
        let entries: Vec<Entry<'_>> = std::iter::once(first).chain(scored).collect();
        let one_by_one = || tokens.iter().map(|&token| token_text(app, token)).collect();
        let decoded = || app.codec.decode(tokens).unwrap_or_else(|_| one_by_one());
        Choice {
            index,
            // A string is echoed as sent, because its decoded tokens may begin with BOS or differ in other ways.
            text: if self.echo { text.clone().unwrap_or_else(decoded) } else { String::new() },
            logprobs: self
                .logprobs
                .map(|top| if self.echo { openai_logprobs(app, &entries, top, 0) } else { ChoiceLogprobs::default() }),
            finish_reason: None,
            prompt_logprobs: self
                .prompt_logprobs
                .map(|top| entries.iter().map(|entry| prompt_entry(app, entry, top)).collect()),
        }
    }

    /// Returns the log-probability lists of generated tokens whose text begins at `offset`; `None` if they were not
    /// requested.
    pub(super) fn tokens(self, app: &App, tokens: &[GeneratedToken], offset: usize) -> Option<ChoiceLogprobs> {
        let entries: Vec<Entry<'_>> = tokens.iter().map(Entry::from).collect();
        self.logprobs.map(|top| openai_logprobs(app, &entries, top, offset))
    }
}

/// Returns the offset at which the next token's text begins, in characters.
pub(super) fn end_offset(lists: &ChoiceLogprobs) -> usize {
    let last = lists.text_offset.last().zip(lists.tokens.last());
    last.map_or(0, |(offset, text)| offset + text.chars().count())
}

/// Returns log-probability lists in OpenAI's format, for tokens whose text begins at `offset`.
fn openai_logprobs(app: &App, entries: &[Entry<'_>], top: u16, offset: usize) -> ChoiceLogprobs {
    let mut lists = ChoiceLogprobs::default();
    let mut offset = offset;
    for entry in entries {
        let text = token_text(app, entry.token);
        lists.text_offset.push(offset);
        offset += text.chars().count();
        lists.token_logprobs.push(entry.logprob.map(|logprob| logprob.max(LOWEST_LOGPROB)));
        lists.top_logprobs.push(entry.logprob.map(|logprob| by_text(app, entry, &text, logprob, top)));
        lists.tokens.push(text);
    }
    lists
}

/// Returns log-probabilities keyed by token text. If several tokens have the same text, the greatest log-probability is
/// kept, so that clients can check whether a token is the most probable one.
fn by_text(app: &App, entry: &Entry<'_>, text: &str, logprob: f32, top: u16) -> BTreeMap<String, f32> {
    let mut map = BTreeMap::from([(text.to_owned(), logprob.max(LOWEST_LOGPROB))]);
    for &(id, logprob) in alternatives(entry, top) {
        let value = map.entry(token_text(app, id)).or_insert(LOWEST_LOGPROB);
        *value = value.max(logprob);
    }
    map
}

/// Returns vLLM's entry for one token of the prompt; `None` for the first token.
fn prompt_entry(app: &App, entry: &Entry<'_>, top: u16) -> Option<BTreeMap<u32, PromptLogprob>> {
    let logprob = entry.logprob?;
    let by_id = |id, logprob: f32, rank| {
        (id, PromptLogprob { logprob: logprob.max(LOWEST_LOGPROB), rank, decoded_token: token_text(app, id) })
    };
    let listed = alternatives(entry, top);
    let count_above = |logprob: f32| listed.iter().filter(|other| other.1 > logprob).count() as u32;
    let listed = listed.iter().map(|&(id, logprob)| by_id(id, logprob, Some(1 + count_above(logprob))));
    let token = by_id(entry.token, logprob, entry.position.and_then(|position| position.rank));
    Some(listed.chain([token]).collect())
}

fn alternatives<'a>(entry: &Entry<'a>, top: u16) -> &'a [(u32, f32)] {
    entry.position.map_or(&[], |position| &position.top[..position.top.len().min(top.into())])
}
