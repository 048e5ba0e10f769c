//! Reading answers: every log-probability that was asked for is there, or it is no answer.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use surprisal_api::LogprobsResponse;

use crate::{Api, Ask};

/// What a request brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// The targets' log-probabilities, in nats, in order; `None` from a server that has none.
    pub(crate) logprobs: Option<Vec<f64>>,
    /// Tokens that went through the model, where the answer says so.
    pub(crate) computed_tokens: Option<u64>,
    /// Tokens that were found in a cache, where the answer says so.
    pub(crate) cached_tokens: Option<u64>,
}

/// Reads the answer to `ask`; the error says what is wrong with it.
pub(crate) fn read(api: Api, ask: &Ask, body: &[u8]) -> Result<Answer, String> {
    let answer = match api {
        Api::Surprisal => ours(body)?,
        Api::Vllm => vllm(ask, body)?,
        Api::OpenAi => openai(ask, body)?,
        Api::Sglang => sglang(ask, body)?,
        Api::LlamaCpp => return llama_cpp(ask, body),
    };
    match answer.logprobs.as_ref().map_or(0, Vec::len) {
        found if found == ask.scored_tokens() => Ok(answer),
        found => Err(format!("{found} log-probabilities, not {}", ask.scored_tokens())),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn ours(body: &[u8]) -> Result<Answer, String> {
    let LogprobsResponse { results, usage, .. } = parse(body)?;
    let logprobs = results.into_iter().flat_map(|result| result.logprobs.unwrap_or_default());
    Ok(Answer {
        // Every f32 is an f64, so equal bits stay equal, and others apart.
        logprobs: Some(logprobs.map(f64::from).collect()),
        computed_tokens: Some(usage.computed_tokens),
        cached_tokens: Some(usage.cached_tokens),
    })
}

#[derive(Deserialize)]
struct Completions {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    index: usize,
    #[serde(default)]
    prompt_logprobs: Option<Vec<Option<HashMap<String, Logprob>>>>,
    #[serde(default)]
    logprobs: Option<ChoiceLogprobs>,
}

#[derive(Deserialize)]
struct Logprob {
    logprob: f64,
}

#[derive(Deserialize)]
struct ChoiceLogprobs {
    token_logprobs: Vec<Option<f64>>,
}

/// The choices, one a pair, in the order asked.
fn choices(ask: &Ask, body: &[u8]) -> Result<Vec<Choice>, String> {
    let Completions { mut choices } = parse(body)?;
    choices.sort_by_key(|choice| choice.index);
    match choices.len() {
        found if found == ask.pairs.len() => Ok(choices),
        found => Err(format!("{found} choices, not {}", ask.pairs.len())),
    }
}

fn vllm(ask: &Ask, body: &[u8]) -> Result<Answer, String> {
    let mut logprobs = Vec::with_capacity(ask.scored_tokens());
    for (choice, (context, target)) in choices(ask, body)?.into_iter().zip(ask.texts()) {
        let prompt = choice.prompt_logprobs.ok_or("a choice has no prompt_logprobs")?;
        for (id, position) in target.iter().zip(prompt.iter().skip(context.len())) {
            let own = position.as_ref().and_then(|found| found.get(&id.to_string()));
            logprobs.push(own.ok_or_else(|| format!("prompt_logprobs has none of token {id}"))?.logprob);
        }
    }
    Ok(Answer { logprobs: Some(logprobs), ..Answer::default() })
}

fn openai(ask: &Ask, body: &[u8]) -> Result<Answer, String> {
    let mut logprobs = Vec::with_capacity(ask.scored_tokens());
    for (choice, (context, target)) in choices(ask, body)?.into_iter().zip(ask.texts()) {
        let echoed = choice.logprobs.ok_or("a choice has no logprobs")?.token_logprobs;
        let own = echoed.into_iter().skip(context.len()).take(target.len());
        logprobs.extend(own.map(|value| value.ok_or("token_logprobs has null")).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(Answer { logprobs: Some(logprobs), ..Answer::default() })
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::Many(many) => many,
            Self::One(one) => vec![one],
        }
    }
}

#[derive(Deserialize)]
struct Generated {
    meta_info: Meta,
}

#[derive(Deserialize)]
struct Meta {
    input_token_logprobs: Vec<(Option<f64>, u32, Option<String>)>,
    #[serde(default)]
    cached_tokens: Option<u64>,
}

fn sglang(ask: &Ask, body: &[u8]) -> Result<Answer, String> {
    let generated = parse::<OneOrMany<Generated>>(body)?.into_vec();
    let mut logprobs = Vec::with_capacity(ask.scored_tokens());
    let cached_tokens = generated.iter().map(|one| one.meta_info.cached_tokens).sum();
    for (Generated { meta_info }, (_, target)) in generated.into_iter().zip(ask.texts()) {
        let all = meta_info.input_token_logprobs;
        for (value, ..) in &all[all.len().saturating_sub(target.len())..] {
            logprobs.push(value.ok_or("input_token_logprobs has null")?);
        }
    }
    Ok(Answer { logprobs: Some(logprobs), cached_tokens, computed_tokens: None })
}

#[derive(Deserialize)]
struct Completed {
    tokens_evaluated: u64,
    #[serde(default)]
    timings: Option<Timings>,
}

#[derive(Deserialize)]
struct Timings {
    prompt_n: u64,
}

/// `tokens_evaluated` are all of the prompt's; `timings.prompt_n` those that went through the model.
fn llama_cpp(ask: &Ask, body: &[u8]) -> Result<Answer, String> {
    let completed = parse::<OneOrMany<Completed>>(body)?.into_vec();
    if completed.len() != ask.pairs.len() {
        return Err(format!("{} completions, not {}", completed.len(), ask.pairs.len()));
    }
    let whole: u64 = completed.iter().map(|one| one.tokens_evaluated).sum();
    let computed: Option<u64> = completed.iter().map(|one| one.timings.as_ref().map(|timings| timings.prompt_n)).sum();
    Ok(Answer {
        logprobs: None,
        computed_tokens: computed,
        cached_tokens: computed.map(|computed| whole.saturating_sub(computed)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Tokens 0 5 | 7 8 and 0 | 7 8.
    fn ask() -> Ask {
        let (contexts, targets) = (vec![vec![0, 5], vec![0]], vec![vec![7, 8]]);
        Ask { contexts, targets, pairs: vec![[0, 0], [1, 0]], ..Ask::default() }
    }

    fn logprobs(api: Api, body: &Value) -> Result<Vec<f64>, String> {
        read(api, &ask(), body.to_string().as_bytes()).map(|answer| answer.logprobs.unwrap())
    }

    #[test]
    fn each_servers_answer_has_the_same_numbers() {
        let expected = Ok(vec![-1.0, -2.0, -3.0, -4.5]);
        let at = |id: &str, value: f64| json!({id: {"logprob": value, "rank": 1, "decoded_token": "x"}});
        let first = json!([null, at("5", -9.0), at("7", -1.0), at("8", -2.0)]);
        let second = json!([null, at("7", -3.0), at("8", -4.5)]);
        let vllm =
            json!({"choices": [{"index": 1, "prompt_logprobs": second}, {"index": 0, "prompt_logprobs": first}]});
        assert_eq!(logprobs(Api::Vllm, &vllm), expected);
        let choice = |index, values: Value| json!({"index": index, "logprobs": {"token_logprobs": values}});
        let echoed = [choice(0, json!([null, -9.0, -1.0, -2.0, -7.0])), choice(1, json!([null, -3.0, -4.5, -7.0]))];
        assert_eq!(logprobs(Api::OpenAi, &json!({"choices": echoed})), expected);
        let meta = |values: Value| json!({"meta_info": {"input_token_logprobs": values, "cached_tokens": 1}});
        let generated = json!([
            meta(json!([[null, 5, null], [-1.0, 7, null], [-2.0, 8, null]])),
            meta(json!([[-3.0, 7, null], [-4.5, 8, "x"]])),
        ]);
        assert_eq!(logprobs(Api::Sglang, &generated), expected);
        let result = |values: Value| json!({"sum": 0.0, "tokens": 2, "cached_tokens": 0, "logprobs": values});
        let usage = json!({"computed_tokens": 5, "cached_tokens": 2, "scored_tokens": 4});
        let results = [result(json!([-1.0, -2.0])), result(json!([-3.0, -4.5]))];
        let ours = json!({"model": "m", "fingerprint": "f", "results": results, "usage": usage});
        assert_eq!(logprobs(Api::Surprisal, &ours), expected);
        let read = read(Api::Surprisal, &ask(), ours.to_string().as_bytes()).unwrap();
        assert_eq!((read.computed_tokens, read.cached_tokens), (Some(5), Some(2)));
    }

    #[test]
    fn half_an_answer_is_none() {
        let choice = |values: Value| json!({"index": 0, "logprobs": {"token_logprobs": values}});
        let cut = json!({"choices": [choice(json!([null, -9.0, -1.0])), choice(json!([null, -3.0, -4.5]))]});
        assert_eq!(logprobs(Api::OpenAi, &cut), Err("3 log-probabilities, not 4".into()));
        let null = json!({"choices": [choice(json!([null, -9.0, null, -1.0])), choice(json!([null, -3.0, -4.5]))]});
        assert!(logprobs(Api::OpenAi, &null).unwrap_err().contains("null"));
        assert!(logprobs(Api::OpenAi, &json!({"choices": []})).unwrap_err().contains("0 choices"));
        assert!(logprobs(Api::Surprisal, &json!({"hello": 1})).is_err());
    }

    #[test]
    fn llama_cpps_answer_says_what_was_computed() {
        let one = |n: u64| json!({"tokens_evaluated": 4, "tokens_cached": 5, "timings": {"prompt_n": n}});
        let answer = read(Api::LlamaCpp, &ask(), json!([one(4), one(1)]).to_string().as_bytes()).unwrap();
        assert_eq!((answer.logprobs, answer.computed_tokens, answer.cached_tokens), (None, Some(5), Some(3)));
    }
}
