//! The choices of `/v1/completions`: texts, and log-probabilities in the formats of OpenAI and vLLM.

use surprisal_api::{Choice, ChoiceLogprobs, Matched, OrderedMap, PromptLogprob};
use surprisal_engine::{GeneratedToken, PositionDetails, Scores};

use crate::app::{App, TOKEN_BYTES};
use crate::generation::batch::Prompt;
use crate::generation::continuation::{Completion, EndReason};
use crate::limits::turns::JobSize;
use crate::routes::response::LOWEST_LOGPROB;
use crate::token_texts::{TokenTexts, token_id_label};

/// The memory of a choice without lists, in bytes.
const CHOICE_BYTES: usize = 256;

/// The memory of a token with its text in the lists and in their JSON, in bytes.
const DETAIL_BYTES: usize = 128;

/// The memory of an alternative with its text in the lists and in their JSON, in bytes.
const ALTERNATIVE_BYTES: usize = 160;

/// The options that determine the contents of a choice.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChoiceFormat {
    pub(super) echo: bool,
    /// Number of alternatives to list for each token of the text; `None` to list no log-probabilities.
    pub(super) logprobs: Option<u16>,
    /// Number of alternatives to list for each token of the prompt; `None` to list no log-probabilities.
    pub(super) prompt_logprobs: Option<u16>,
    /// `true` to write `token_id:{id}` instead of each token's text.
    pub(super) tokens_as_ids: bool,
    /// `true` to return token ids.
    pub(super) token_ids: bool,
    /// `true` if the model's own EOS tokens do not end a completion.
    pub(super) ignore_eos: bool,
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
    /// Returns the size of the job that makes and writes a choice.
    pub(super) fn size(self, prompt: &Prompt, completion: &Completion) -> JobSize {
        self.prompt_size(prompt) + self.tokens_size(completion.tokens.len(), completion.text.len())
    }

    /// Returns the size of the job that makes and writes the part of a choice that comes from the prompt.
    pub(super) fn prompt_size(self, prompt: &Prompt) -> JobSize {
        let lists_tokens = self.logprobs.is_some() && self.echo || self.prompt_logprobs.is_some();
        let is_listed = lists_tokens || self.echo || self.token_ids;
        let size = self.tokens_size(if is_listed { prompt.tokens.len() } else { 0 }, 0);
        let text = prompt.text.as_ref().filter(|_| is_listed).map_or(0, String::len);
        let texts = if lists_tokens { prompt.texts_size() } else { JobSize::default() };
        size + JobSize { bytes: text, memory: 4 * text } + texts
    }

    /// Returns the size of the job that makes and writes lists of tokens, and a text.
    fn tokens_size(self, tokens: usize, text: usize) -> JobSize {
        let top = usize::from(self.logprobs.unwrap_or(0)) + usize::from(self.prompt_logprobs.unwrap_or(0));
        JobSize {
            bytes: CHOICE_BYTES + tokens * (1 + top) * TOKEN_BYTES + text,
            memory: CHOICE_BYTES + tokens * (DETAIL_BYTES + top * ALTERNATIVE_BYTES) + 4 * text,
        }
    }

    /// Returns a whole completion as a choice.
    pub(super) fn choice(self, app: &App, index: usize, prompt: &Prompt, completion: &Completion) -> Choice {
        let (mut choice, offset) = self.prompt_choice(app, index, prompt, &completion.scores);
        choice.text.push_str(&completion.text);
        let mut texts = TokenTexts::after(&app.codec, &prompt.tokens);
        let (generated, _) = self.tokens(&mut texts, &completion.tokens, offset);
        if let (Some(lists), Some(generated)) = (&mut choice.logprobs, generated) {
            lists.text_offset.extend(generated.text_offset);
            lists.token_logprobs.extend(generated.token_logprobs);
            lists.tokens.extend(generated.tokens);
            lists.top_logprobs.extend(generated.top_logprobs);
        }
        choice.finish_reason = Some(completion.end.as_ref().map_or("length", EndReason::finish_reason).to_owned());
        choice.stop_reason = self.stop_reason(app, completion.end.as_ref());
        choice.token_ids = self.token_ids.then(|| completion.tokens.iter().map(|token| token.id).collect());
        choice
    }

    /// Returns the part of a choice that comes from the prompt, and the offset of the text that follows the prompt.
    pub(super) fn prompt_choice(self, app: &App, index: usize, prompt: &Prompt, scores: &Scores) -> (Choice, usize) {
        let tokens = &prompt.tokens;
        let first = Entry { token: tokens[0], logprob: None, position: None };
        let scored = tokens[1..].iter().zip(&scores.logprobs).enumerate().map(|(at, (&token, &logprob))| Entry {
            token,
            logprob: Some(logprob),
            position: scores.positions.get(at),
        });
        let entries: Vec<Entry<'_>> = std::iter::once(first).chain(scored).collect();
        let texts = || prompt.texts(&app.codec, 0);
        let decoded = || {
            let mut texts = texts();
            tokens.iter().map(|&token| texts.push(token)).collect()
        };
        let echoed: &[Entry<'_>] = if self.echo { &entries } else { &[] };
        let (logprobs, offset) = match self.logprobs {
            Some(_) => self.lists(&mut texts(), echoed, 0),
            None => (None, 0),
        };
        let choice = Choice {
            index,
            // A string is echoed as sent, because its decoded tokens may begin with BOS or differ in other ways.
            text: if self.echo { prompt.text.clone().unwrap_or_else(decoded) } else { String::new() },
            logprobs,
            finish_reason: None,
            stop_reason: None,
            prompt_logprobs: self.prompt_logprobs.map(|top| {
                let mut texts = texts();
                entries.iter().map(|entry| prompt_entry(&mut texts, entry, top)).collect()
            }),
            token_ids: self.token_ids.then(Vec::new),
            prompt_token_ids: self.token_ids.then(|| tokens.clone()),
        };
        (choice, offset)
    }

    /// Returns the log-probability lists of generated tokens whose text begins at `offset`, `None` if they were not
    /// requested, and the offset at which their text ends.
    pub(super) fn tokens(
        self,
        texts: &mut TokenTexts,
        tokens: &[GeneratedToken],
        offset: usize,
    ) -> (Option<ChoiceLogprobs>, usize) {
        let entries: Vec<Entry<'_>> = tokens.iter().map(Entry::from).collect();
        self.lists(texts, &entries, offset)
    }

    /// Returns the stop string or stop token that ended a completion. As in vLLM, an EOS token is neither.
    pub(super) fn stop_reason(self, app: &App, end: Option<&EndReason>) -> Option<Matched> {
        match end? {
            EndReason::Length => None,
            EndReason::StopText(text) => Some(Matched::Text(text.clone())),
            EndReason::StopToken(token) => {
                let is_eos = !self.ignore_eos && app.codec.end_token_ids().contains(token);
                (!is_eos).then_some(Matched::Token(*token))
            }
        }
    }

    /// Returns log-probability lists in OpenAI's format, for tokens whose text begins at `offset`, and the offset at
    /// which their text ends, in characters.
    fn lists(self, texts: &mut TokenTexts, entries: &[Entry<'_>], offset: usize) -> (Option<ChoiceLogprobs>, usize) {
        let Some(top) = self.logprobs else { return (None, 0) };
        let mut lists = ChoiceLogprobs::default();
        let mut offset = offset;
        for entry in entries {
            let others = self.label_alternatives(texts, entry, top);
            let text = texts.push(entry.token);
            lists.text_offset.push(offset);
            offset += text.chars().count();
            let label = if self.tokens_as_ids { token_id_label(entry.token) } else { text };
            lists.token_logprobs.push(entry.logprob.map(|logprob| logprob.max(LOWEST_LOGPROB)));
            lists.top_logprobs.push(entry.logprob.map(|logprob| by_label(&label, logprob, others)));
            lists.tokens.push(label);
        }
        (Some(lists), offset)
    }

    /// Returns the ids and log-probabilities of a token's alternatives, and their texts or ids as labels.
    fn label_alternatives(self, texts: &TokenTexts, entry: &Entry<'_>, top: u16) -> Vec<(u32, f32, String)> {
        let others = alternatives(entry, top).iter().filter(|other| other.0 != entry.token);
        let label = |id| if self.tokens_as_ids { token_id_label(id) } else { texts.peek(id) };
        others.map(|&(id, logprob)| (id, logprob, label(id))).collect()
    }
}

/// Returns the log-probabilities of a token and its alternatives by their labels, the token itself first. A label that
/// is taken is replaced by the token's id.
fn by_label(label: &str, logprob: f32, others: Vec<(u32, f32, String)>) -> OrderedMap<String, f32> {
    let mut members = vec![(label.to_owned(), logprob.max(LOWEST_LOGPROB))];
    for (id, logprob, label) in others {
        let is_taken = members.iter().any(|member| member.0 == label);
        members.push((if is_taken { token_id_label(id) } else { label }, logprob.max(LOWEST_LOGPROB)));
    }
    OrderedMap(members)
}

/// Returns vLLM's entry for one token of the prompt: the token itself, then the alternatives, the most probable first.
/// `None` for the first token.
fn prompt_entry(texts: &mut TokenTexts, entry: &Entry<'_>, top: u16) -> Option<OrderedMap<u32, PromptLogprob>> {
    let listed = alternatives(entry, top);
    let count_above = |logprob: f32| listed.iter().filter(|other| other.1 > logprob).count() as u32;
    let by_id = |id, logprob: f32, rank, decoded_token| {
        (id, PromptLogprob { logprob: logprob.max(LOWEST_LOGPROB), rank, decoded_token })
    };
    let others = listed.iter().filter(|other| other.0 != entry.token);
    let others = others.map(|&(id, logprob)| by_id(id, logprob, Some(1 + count_above(logprob)), texts.peek(id)));
    let others: Vec<_> = others.collect();
    let text = texts.push(entry.token);
    let token = by_id(entry.token, entry.logprob?, entry.position.and_then(|position| position.rank), text);
    Some(std::iter::once(token).chain(others).collect())
}

fn alternatives<'a>(entry: &Entry<'a>, top: u16) -> &'a [(u32, f32)] {
    entry.position.map_or(&[], |position| &position.top[..position.top.len().min(top.into())])
}
