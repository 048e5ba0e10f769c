//! The ways in which servers are asked for log-probabilities of a prompt: ours, and those of OpenAI, vLLM and SGLang.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use surprisal_api::{Bos, Detail, LogprobsRequest, LogprobsResponse, QuerySpec};

use crate::source::ScoreQuery;

/// How a server is spoken to. All are asked with token ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `POST /logprobs` of a surprisal server.
    #[default]
    Surprisal,
    /// `POST /v1/completions` with `echo` and `logprobs`, as OpenAI's first servers had it and many others have.
    OpenAi,
    /// `POST /v1/completions` with vLLM's `prompt_logprobs`.
    Vllm,
    /// `POST /generate` of SGLang with `return_logprob`.
    Sglang,
}

/// What a request says beside its queries.
#[derive(Clone, Debug)]
pub(crate) struct Wording<'a> {
    pub(crate) model: &'a str,
    /// The token before every sequence; without one, our server adds its model's own.
    pub(crate) bos: Option<u32>,
}

/// Answers to a request, and the fingerprint of who gave them, if it says.
pub(crate) type Read = (Vec<Vec<f32>>, Option<String>);

impl Api {
    /// Where requests go.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Surprisal => "/logprobs",
            Self::OpenAi | Self::Vllm => "/v1/completions",
            Self::Sglang => "/generate",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Surprisal => "surprisal",
            Self::OpenAi => "openai",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
        }
    }

    /// The request's body.
    pub(crate) fn request(self, queries: &[ScoreQuery], wording: &Wording<'_>) -> Value {
        let prompts = || queries.iter().map(|query| prompt(query, wording.bos)).collect::<Vec<_>>();
        match self {
            Self::Surprisal => {
                let spec = |query: &ScoreQuery| {
                    let context: Vec<u32> = wording.bos.iter().chain(&query.context).copied().collect();
                    QuerySpec::new(context.into(), query.target.clone().into())
                };
                let queries = Some(queries.iter().map(spec).collect());
                let bos = if wording.bos.is_some() { Bos::None } else { Bos::Always };
                json!(LogprobsRequest { queries, detail: Detail::Tokens, bos, ..LogprobsRequest::default() })
            }
            // One token is written because servers of old refuse to write none.
            Self::OpenAi => json!({"model": wording.model, "prompt": prompts(), "echo": true, "logprobs": 1,
                "max_tokens": 1, "temperature": 0}),
            Self::Vllm => json!({"model": wording.model, "prompt": prompts(), "prompt_logprobs": 0,
                "max_tokens": 1, "temperature": 0}),
            Self::Sglang => {
                // From a token before the target on: some versions leave out the first one they are asked for.
                let start =
                    |(query, prompt): (&ScoreQuery, &Vec<u32>)| (prompt.len() - query.target.len()).saturating_sub(1);
                let prompts = prompts();
                let first = queries.iter().zip(&prompts).map(start).min().unwrap_or(0);
                json!({"input_ids": prompts, "return_logprob": true, "logprob_start_len": first,
                    "sampling_params": {"max_new_tokens": 0, "temperature": 0}})
            }
        }
    }

    /// Reads the answer to [`request`](Self::request).
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn read(self, body: &[u8], queries: &[ScoreQuery], wording: &Wording<'_>) -> Result<Read, String> {
        let of_prompt = |logprobs: Vec<Vec<Option<f32>>>| -> Result<Vec<Vec<f32>>, String> {
            check_count(queries, logprobs.len())?;
            let one = |(index, (query, logprobs))| target(index, query, wording.bos, logprobs);
            queries.iter().zip(logprobs).enumerate().map(one).collect()
        };
        match self {
            Self::Surprisal => {
                let answer: LogprobsResponse = parse(body)?;
                check_count(queries, answer.results.len())?;
                let results = queries.iter().zip(answer.results).enumerate();
                let logprobs = results
                    .map(|(index, (query, result))| check_tokens(index, query, result.logprobs.unwrap_or_default()));
                Ok((logprobs.collect::<Result<_, _>>()?, Some(answer.fingerprint)))
            }
            Self::OpenAi | Self::Vllm => {
                let mut choices = parse::<Choices>(body)?.choices;
                choices.sort_by_key(|choice| choice.index);
                let logprobs = choices.into_iter().zip(queries).map(|(choice, query)| match self {
                    Self::Vllm => choice.listed(&prompt(query, wording.bos)),
                    _ => choice.echoed(),
                });
                Ok((of_prompt(logprobs.collect::<Result<_, _>>()?)?, None))
            }
            Self::Sglang => {
                let texts = match parse::<Value>(body)? {
                    Value::Array(texts) => texts,
                    text => vec![text],
                };
                let read = |text: Value| serde_json::from_value::<Generated>(text).map_err(|error| error.to_string());
                let read = |text| Ok::<_, String>(read(text)?.meta_info.input_token_logprobs);
                let logprobs = texts.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
                let first =
                    |logprobs: Vec<(Option<f32>, u32, Value)>| logprobs.into_iter().map(|(logprob, ..)| logprob);
                check_count(queries, logprobs.len())?;
                let ends = logprobs.into_iter().zip(queries).enumerate().map(|(index, (logprobs, query))| {
                    let logprobs: Vec<_> = first(logprobs).collect();
                    end(index, query, logprobs)
                });
                Ok((ends.collect::<Result<_, _>>()?, None))
            }
        }
    }
}

/// A completion of OpenAI's or vLLM's.
#[derive(Deserialize)]
struct Choices {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    index: usize,
    #[serde(default)]
    logprobs: Option<Echo>,
    /// For each token of the prompt what vLLM knows, by token id.
    #[serde(default)]
    prompt_logprobs: Option<Vec<Option<HashMap<u32, Listed>>>>,
}

#[derive(Deserialize)]
struct Echo {
    token_logprobs: Vec<Option<f32>>,
}

#[derive(Deserialize)]
struct Listed {
    logprob: f32,
}

/// SGLang's answer: log-probability, token id, text.
#[derive(Deserialize)]
struct Generated {
    meta_info: Meta,
}

#[derive(Deserialize)]
struct Meta {
    input_token_logprobs: Vec<(Option<f32>, u32, Value)>,
}

impl Choice {
    fn echoed(self) -> Result<Vec<Option<f32>>, String> {
        let echo = self.logprobs.ok_or("it has no logprobs: the server does not offer echo with logprobs")?;
        Ok(echo.token_logprobs)
    }

    fn listed(self, prompt: &[u32]) -> Result<Vec<Option<f32>>, String> {
        let places = self.prompt_logprobs.ok_or("it has no prompt_logprobs: the server does not offer them")?;
        let place = |(place, token): (Option<HashMap<u32, Listed>>, &u32)| {
            place.and_then(|place| place.get(token).map(|listed| listed.logprob))
        };
        Ok(places.into_iter().zip(prompt).map(place).collect())
    }
}

fn parse<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn prompt(query: &ScoreQuery, bos: Option<u32>) -> Vec<u32> {
    bos.iter().chain(&query.context).chain(&query.target).copied().collect()
}

fn check_count(queries: &[ScoreQuery], results: usize) -> Result<(), String> {
    match queries.len() == results {
        true => Ok(()),
        false => Err(format!("{} queries, {results} results", queries.len())),
    }
}

fn check_tokens(index: usize, query: &ScoreQuery, logprobs: Vec<f32>) -> Result<Vec<f32>, String> {
    let (asked, given) = (query.target.len(), logprobs.len());
    match asked == given {
        true => Ok(logprobs),
        false => {
            Err(format!("query {index} of the request has {asked} target tokens, its result {given} log-probabilities"))
        }
    }
}

/// The target's part of a prompt's log-probabilities; what was written after it is left out.
fn target(index: usize, query: &ScoreQuery, bos: Option<u32>, logprobs: Vec<Option<f32>>) -> Result<Vec<f32>, String> {
    let length = usize::from(bos.is_some()) + query.context.len() + query.target.len();
    end(index, query, logprobs.into_iter().take(length).collect())
}

/// The last of the log-probabilities, one for each target token.
fn end(index: usize, query: &ScoreQuery, logprobs: Vec<Option<f32>>) -> Result<Vec<f32>, String> {
    let first = logprobs.len().saturating_sub(query.target.len());
    let missing = || {
        format!(
            "the first token of query {index} has no log-probability: nothing stands before it; say the model's bos, a token id"
        )
    };
    let known = logprobs[first..].iter().map(|logprob| logprob.ok_or_else(missing)).collect::<Result<_, _>>()?;
    check_tokens(index, query, known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOS: Option<u32> = Some(9);

    fn queries() -> Vec<ScoreQuery> {
        vec![ScoreQuery { context: vec![1, 2], target: vec![3, 4] }, ScoreQuery { context: vec![], target: vec![5] }]
    }

    fn read(api: Api, answer: Value, bos: Option<u32>) -> Result<Vec<Vec<f32>>, String> {
        api.read(answer.to_string().as_bytes(), &queries(), &Wording { model: "m", bos }).map(|(logprobs, _)| logprobs)
    }

    /// As the servers write them, the token that was generated included, and choices in any order.
    #[test]
    fn answers_of_all_kinds_are_read() {
        let want = Ok(vec![vec![-3.0, -4.0], vec![-5.0]]);
        let echo = json!({"choices": [
            {"index": 1, "text": "", "logprobs": {"token_logprobs": [null, -5.0, -0.5], "tokens": ["b", "e", "x"]}},
            {"index": 0, "text": "", "logprobs": {"token_logprobs": [null, -1.0, -2.0, -3.0, -4.0, -0.5]}}]});
        assert_eq!(read(Api::OpenAi, echo, BOS), want);
        let listed =
            |id: u32, logprob: f32| json!({id.to_string(): {"logprob": logprob, "rank": 3, "decoded_token": "x"}});
        let mut third = listed(3, -3.0);
        third["77"] = json!({"logprob": -0.1, "rank": 1});
        let vllm = json!({"choices": [
            {"index": 0, "prompt_logprobs": [null, listed(1, -1.0), listed(2, -2.0), third, listed(4, -4.0)]},
            {"index": 1, "prompt_logprobs": [null, listed(5, -5.0)]}]});
        assert_eq!(read(Api::Vllm, vllm, BOS), want);
        let sglang = json!([
            {"text": "", "meta_info": {"input_token_logprobs": [[-2.0, 2, null], [-3.0, 3, null], [-4.0, 4, null]]}},
            {"text": "", "meta_info": {"input_token_logprobs": [[null, 9, null], [-5.0, 5, null]]}}]);
        assert_eq!(read(Api::Sglang, sglang, BOS), want);
    }

    /// Our server adds its model's own BOS, or none where one is sent.
    #[test]
    fn sequences_begin_with_one_bos() {
        for (bos, rule, contexts) in [(None, "always", json!([[1, 2], []])), (BOS, "none", json!([[9, 1, 2], [9]]))] {
            let request = Api::Surprisal.request(&queries(), &Wording { model: "m", bos });
            let sent: Vec<&Value> = (0..2_usize).map(|query| &request["queries"][query]["context"]).collect();
            assert_eq!((&request["bos"], json!(sent)), (&json!(rule), contexts));
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let silent = || json!({"choices": [{"index": 0, "text": "x"}, {"index": 1, "text": "y"}]});
        assert!(read(Api::OpenAi, silent(), BOS).unwrap_err().contains("does not offer echo"));
        assert!(read(Api::Vllm, silent(), BOS).unwrap_err().contains("does not offer them"));
        let one = json!({"choices": [{"index": 0, "logprobs": {"token_logprobs": [null, -1.0, -2.0, -3.0]}}]});
        assert_eq!(read(Api::OpenAi, one, None).unwrap_err(), "2 queries, 1 results");
        let unknown = json!({"choices": [{"index": 0, "logprobs": {"token_logprobs": [null, -1.0, -2.0, -3.0, -9.0]}},
            {"index": 1, "logprobs": {"token_logprobs": [null, -9.0]}}]});
        assert!(read(Api::OpenAi, unknown, None).unwrap_err().contains("say the model's bos"));
    }
}
