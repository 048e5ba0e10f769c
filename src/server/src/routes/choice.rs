//! The choices of `/v1/completions`: texts, and log-probabilities in OpenAI's lists and vLLM's.

use std::collections::BTreeMap;

use surprisal_api::{Choice, ChoiceLogprobs, PromptLogprob};
use surprisal_engine::{GeneratedToken, PositionDetails, Scores};

use super::continuation::{End, Written, token_text};
use super::work::Prompt;
use crate::App;

/// vLLM's stand-in for minus infinity, which JSON cannot say.
pub(super) const LOWEST: f32 = -9999.0;

/// What a choice shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) echo: bool,
    /// Alternatives beside the log-probability of each token of the text.
    pub(super) logprobs: Option<u16>,
    /// Alternatives beside the log-probability of each token of the prompt.
    pub(super) prompt_logprobs: Option<u16>,
}

/// One token of a list.
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

impl Form {
    /// A completion as a whole.
    pub(super) fn choice(self, app: &App, index: usize, prompt: &Prompt, written: &Written) -> Choice {
        let mut choice = self.prompt_choice(app, index, prompt, &written.scores);
        choice.text.push_str(&written.text);
        let more = self.tokens(app, &written.tokens, choice.logprobs.as_ref().map_or(0, end_offset));
        if let (Some(lists), Some(more)) = (&mut choice.logprobs, more) {
            lists.text_offset.extend(more.text_offset);
            lists.token_logprobs.extend(more.token_logprobs);
            lists.tokens.extend(more.tokens);
            lists.top_logprobs.extend(more.top_logprobs);
        }
        choice.finish_reason = Some(written.end.as_ref().map_or("length", End::reason).to_owned());
        choice
    }

    /// The part of a completion that is its prompt.
    pub(super) fn prompt_choice(self, app: &App, index: usize, prompt: &Prompt, scores: &Scores) -> Choice {
        let Prompt { tokens, text } = prompt;
        let unknown = Entry { token: tokens[0], logprob: None, position: None };
        let known = tokens[1..].iter().zip(&scores.logprobs).enumerate().map(|(at, (&token, &logprob))| Entry {
            token,
            logprob: Some(logprob),
            position: scores.positions.get(at),
        });
        let entries: Vec<Entry<'_>> = std::iter::once(unknown).chain(known).collect();
        let one_by_one = || tokens.iter().map(|&token| token_text(app, token)).collect();
        let decoded = || app.codec.decode(tokens).unwrap_or_else(|_| one_by_one());
        Choice {
            index,
            // A text comes back as it was sent: its tokens may say it with BOS, or otherwise.
            text: if self.echo { text.clone().unwrap_or_else(decoded) } else { String::new() },
            logprobs: self
                .logprobs
                .map(|top| if self.echo { lists(app, &entries, top, 0) } else { ChoiceLogprobs::default() }),
            finish_reason: None,
            prompt_logprobs: self
                .prompt_logprobs
                .map(|top| entries.iter().map(|entry| by_id(app, entry, top)).collect()),
        }
    }

    /// The lists of tokens that were drawn, the first at `offset`.
    pub(super) fn tokens(self, app: &App, tokens: &[GeneratedToken], offset: usize) -> Option<ChoiceLogprobs> {
        let entries: Vec<Entry<'_>> = tokens.iter().map(Entry::from).collect();
        self.logprobs.map(|top| lists(app, &entries, top, offset))
    }
}

/// Where the next token's text begins, in characters.
pub(super) fn end_offset(lists: &ChoiceLogprobs) -> usize {
    let last = lists.text_offset.last().zip(lists.tokens.last());
    last.map_or(0, |(offset, text)| offset + text.chars().count())
}

/// OpenAI's lists.
fn lists(app: &App, entries: &[Entry<'_>], top: u16, offset: usize) -> ChoiceLogprobs {
    let mut lists = ChoiceLogprobs::default();
    let mut offset = offset;
    for entry in entries {
        let text = token_text(app, entry.token);
        lists.text_offset.push(offset);
        offset += text.chars().count();
        lists.token_logprobs.push(entry.logprob.map(|logprob| logprob.max(LOWEST)));
        lists.top_logprobs.push(entry.logprob.map(|logprob| by_text(app, entry, &text, logprob, top)));
        lists.tokens.push(text);
    }
    lists
}

/// Of tokens with the same text the greater counts: a token is the most probable if its value is the greatest there is.
fn by_text(app: &App, entry: &Entry<'_>, text: &str, logprob: f32, top: u16) -> BTreeMap<String, f32> {
    let mut map = BTreeMap::from([(text.to_owned(), logprob.max(LOWEST))]);
    for &(id, logprob) in alternatives(entry, top) {
        let value = map.entry(token_text(app, id)).or_insert(LOWEST);
        *value = value.max(logprob);
    }
    map
}

/// vLLM's entry of one token of the prompt.
fn by_id(app: &App, entry: &Entry<'_>, top: u16) -> Option<BTreeMap<u32, PromptLogprob>> {
    let logprob = entry.logprob?;
    let one = |id, logprob: f32, rank| {
        (id, PromptLogprob { logprob: logprob.max(LOWEST), rank, decoded_token: token_text(app, id) })
    };
    let listed = alternatives(entry, top);
    let above = |logprob: f32| listed.iter().filter(|other| other.1 > logprob).count() as u32;
    let listed = listed.iter().map(|&(id, logprob)| one(id, logprob, Some(1 + above(logprob))));
    let own = one(entry.token, logprob, entry.position.and_then(|position| position.rank));
    Some(listed.chain([own]).collect())
}

fn alternatives<'a>(entry: &Entry<'a>, top: u16) -> &'a [(u32, f32)] {
    entry.position.map_or(&[], |position| &position.top[..position.top.len().min(top.into())])
}
