//! `POST /v1/completions`, as OpenAI and vLLM have it, and `POST /generate`, as SGLang has it: what scoring needs of them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::Text;

/// One prompt or several: a string, token ids, or a list of either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Prompts {
    /// A string or token ids.
    One(Text),
    /// A list of either.
    Many(Vec<Text>),
}

/// One element of an array that may be a prompt's tokens or a list of prompts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Element {
    Token(u32),
    Text(Text),
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PromptsVisitor;

        impl<'de> Visitor<'de> for PromptsVisitor {
            type Value = Prompts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, an array of token ids, or an array of strings or of arrays of token ids")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Prompts, E> {
                Ok(Prompts::One(Text::from(text)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompts, A::Error> {
                let (mut tokens, mut texts) = (Vec::new(), Vec::new());
                while let Some(element) = seq.next_element()? {
                    match element {
                        Element::Token(token) => tokens.push(token),
                        Element::Text(text) => texts.push(text),
                    }
                    if !tokens.is_empty() && !texts.is_empty() {
                        return Err(de::Error::custom("token ids and prompts are mixed in one array"));
                    }
                }
                Ok(if tokens.is_empty() { Prompts::Many(texts) } else { Prompts::One(Text::Tokens(tokens)) })
            }
        }

        deserializer.deserialize_any(PromptsVisitor)
    }
}

/// The body of `POST /v1/completions`.
///
/// Fields not named here are refused rather than ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompletionsRequest {
    /// The model asked for; if given, it must be the one that is served.
    #[serde(default)]
    pub model: Option<String>,
    /// What is scored.
    pub prompt: Prompts,
    /// Tokens to generate; 16 when absent, as OpenAI has it.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// Whether the answer begins with the prompt.
    #[serde(default)]
    pub echo: bool,
    /// Log-probabilities of the answer's tokens, and of so many alternatives beside each.
    #[serde(default)]
    pub logprobs: Option<u32>,
    /// vLLM's: log-probabilities of the prompt's tokens, and of so many alternatives beside each.
    #[serde(default)]
    pub prompt_logprobs: Option<u32>,
    /// vLLM's: whether BOS goes before a string prompt by the model's own rule. Token ids are taken as they are.
    #[serde(default = "yes")]
    pub add_special_tokens: bool,
    /// Completions of each prompt.
    #[serde(default)]
    pub n: Option<u32>,
    /// Whether the answer comes in pieces.
    #[serde(default)]
    pub stream: bool,
    /// Without effect where nothing is generated.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// Without effect where nothing is generated.
    #[serde(default)]
    pub top_p: Option<f64>,
    /// Without effect where nothing is generated.
    #[serde(default)]
    pub seed: Option<i64>,
    /// Without effect where nothing is generated.
    #[serde(default)]
    pub stop: Option<Prompts>,
    /// Without effect.
    #[serde(default)]
    pub user: Option<String>,
}

fn yes() -> bool {
    true
}

/// The answer of `POST /v1/completions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletionsResponse {
    /// A name of this answer.
    pub id: String,
    /// Always `"text_completion"`.
    pub object: String,
    /// Unix time, seconds.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// One a prompt, in the order asked.
    pub choices: Vec<Choice>,
    /// Token counts.
    pub usage: CompletionsUsage,
}

/// One prompt's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The prompt's index.
    pub index: usize,
    /// The prompt, if it was to be echoed.
    pub text: String,
    /// Log-probabilities of `text`'s tokens, if asked for.
    pub logprobs: Option<ChoiceLogprobs>,
    /// Always `"length"`.
    pub finish_reason: String,
    /// vLLM's: each token's log-probability by its id; null for the first, before which nothing stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<Vec<Option<BTreeMap<u32, PromptLogprob>>>>,
}

/// Log-probabilities of a text's tokens; the first prompt token, before which nothing stands, has null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChoiceLogprobs {
    /// Where each token's text begins, in characters.
    pub text_offset: Vec<usize>,
    /// Natural logarithms.
    pub token_logprobs: Vec<Option<f32>>,
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// Log-probabilities by text: the token's own.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
}

/// One token's log-probability, as vLLM has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptLogprob {
    /// In nats.
    pub logprob: f32,
    /// The token's rank in the vocabulary, from 1, where it is known.
    pub rank: Option<u32>,
    /// The token's text.
    pub decoded_token: String,
}

/// Token counts, as OpenAI has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletionsUsage {
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_four_forms() {
        let parse = |json| serde_json::from_str::<Prompts>(json);
        let (a, ids) = (Text::from("a"), Text::from(vec![1, 2]));
        assert_eq!(parse(r#""a""#).unwrap(), Prompts::One(a.clone()));
        assert_eq!(parse("[1,2]").unwrap(), Prompts::One(ids.clone()));
        assert_eq!(parse(r#"["a"]"#).unwrap(), Prompts::Many(vec![a.clone()]));
        assert_eq!(parse(r#"["a",[1,2]]"#).unwrap(), Prompts::Many(vec![a, ids]));
        for wrong in ["7", r#"["a",1]"#, r#"[1,"a"]"#, "[-1]", "{}", "[[[1]]]"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
