//! In which words a server is asked for log-probabilities of given texts.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use surprisal_api::{Bos, Detail, LogprobsRequest, Pairs, Text};

use crate::Ask;

/// A dialect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `POST /logprobs`: contexts, targets and pairs as they are.
    #[default]
    Surprisal,
    /// `POST /v1/completions` with `prompt_logprobs`: a prompt a pair.
    Vllm,
    /// `POST /generate` with `logprob_start_len`: a prompt a pair.
    Sglang,
    /// `POST /v1/completions` with `echo` and `logprobs`: a prompt a pair.
    OpenAi,
    /// `POST /completion` of llama.cpp's server. It has no log-probabilities of a prompt, so the texts go through the model and
    /// nothing is answered: less work than is asked of the others.
    LlamaCpp,
}

impl Api {
    /// Every one.
    pub const ALL: [Api; 5] = [Api::Surprisal, Api::Vllm, Api::Sglang, Api::OpenAi, Api::LlamaCpp];

    /// As it stands before `+http://`.
    pub fn name(self) -> &'static str {
        match self {
            Api::Surprisal => "surprisal",
            Api::Vllm => "vllm",
            Api::Sglang => "sglang",
            Api::OpenAi => "openai",
            Api::LlamaCpp => "llamacpp",
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            Api::Surprisal => "/logprobs",
            Api::Vllm | Api::OpenAi => "/v1/completions",
            Api::Sglang => "/generate",
            Api::LlamaCpp => "/completion",
        }
    }

    /// The request's body.
    pub(crate) fn body(self, ask: &Ask, model: &str) -> Result<Bytes, serde_json::Error> {
        let prompts = || ask.texts().map(|(context, target)| [context, target].concat()).collect::<Vec<_>>();
        let body = match self {
            Api::Surprisal => return Ok(serde_json::to_vec(&request(ask))?.into()),
            Api::Vllm => {
                json!({"model": model, "prompt": prompts(), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0})
            }
            Api::OpenAi => {
                json!({"model": model, "prompt": prompts(), "max_tokens": 1, "temperature": 0, "echo": true, "logprobs": 1})
            }
            Api::Sglang => json!({
                "input_ids": prompts(), "return_logprob": true, "logprob_start_len": starts(ask),
                "sampling_params": {"max_new_tokens": 1, "temperature": 0},
            }),
            Api::LlamaCpp => json!({"prompt": prompts(), "n_predict": 1, "temperature": 0, "cache_prompt": true}),
        };
        Ok(serde_json::to_vec(&body)?.into())
    }
}

fn request(ask: &Ask) -> LogprobsRequest {
    let texts = |texts: &[Vec<u32>]| texts.iter().cloned().map(Text::from).collect();
    let all = ask.pairs.len() == ask.contexts.len() * ask.targets.len();
    LogprobsRequest {
        contexts: Some(texts(&ask.contexts)),
        targets: Some(texts(&ask.targets)),
        pairs: Some(if all { Pairs::All } else { Pairs::List(ask.pairs.clone()) }),
        detail: Detail::Tokens,
        bos: Bos::None,
        ..LogprobsRequest::default()
    }
}

/// Where answers are to begin: at each context's last token, since SGLang has none for the first it is asked for. One number if one
/// does, as not every server takes a list.
fn starts(ask: &Ask) -> Value {
    let starts: Vec<usize> = ask.texts().map(|(context, _)| context.len() - 1).collect();
    match starts.first() {
        Some(&first) if starts.iter().all(|&start| start == first) => json!(first),
        _ => json!(starts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pairs: &[[usize; 2]]) -> Ask {
        let (contexts, targets) = (vec![vec![0, 5], vec![0]], vec![vec![7, 8]]);
        Ask { contexts, targets, pairs: pairs.to_vec(), ..Ask::default() }
    }

    fn body(api: Api, ask: &Ask) -> Value {
        serde_json::from_slice(&api.body(ask, "m").unwrap()).unwrap()
    }

    #[test]
    fn each_server_is_asked_in_its_own_words() {
        let whole = ask(&[[0, 0], [1, 0]]);
        let ours = body(Api::Surprisal, &whole);
        assert_eq!(ours["contexts"], json!([[0, 5], [0]]));
        assert_eq!((&ours["pairs"], &ours["bos"], &ours["detail"]), (&json!("all"), &json!("none"), &json!("tokens")));
        assert_eq!(body(Api::Surprisal, &ask(&[[1, 0]]))["pairs"], json!([[1, 0]]));
        let vllm = body(Api::Vllm, &whole);
        assert_eq!((&vllm["prompt"], &vllm["prompt_logprobs"]), (&json!([[0, 5, 7, 8], [0, 7, 8]]), &json!(0)));
        assert_eq!(body(Api::OpenAi, &whole)["echo"], json!(true));
        assert_eq!(body(Api::Sglang, &whole)["logprob_start_len"], json!([1, 0]));
        assert_eq!(body(Api::Sglang, &ask(&[[0, 0]]))["logprob_start_len"], json!(1));
        assert_eq!(body(Api::LlamaCpp, &whole)["prompt"], json!([[0, 5, 7, 8], [0, 7, 8]]));
    }
}
