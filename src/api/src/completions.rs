//! `POST /v1/completions`, as OpenAI and vLLM have it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, SeqAccess, Unexpected, Visitor};
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
enum Element {
    Token(u32),
    Text(Text),
}

/// Written by hand because an untagged enum keeps whatever it reads until it is known: tens of bytes a token.
impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;

        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token id, a string or an array of token ids")
            }

            fn visit_u64<E: de::Error>(self, token: u64) -> Result<Element, E> {
                let token = u32::try_from(token).map_err(|_| E::invalid_value(Unexpected::Unsigned(token), &self))?;
                Ok(Element::Token(token))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Text(Text::from(text)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Element, A::Error> {
                Text::deserialize(SeqAccessDeserializer::new(seq)).map(Element::Text)
            }
        }

        deserializer.deserialize_any(ElementVisitor)
    }
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
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CompletionsRequest {
    /// The model asked for; if given, it must be the one that is served.
    #[serde(default)]
    pub model: Option<String>,
    /// What is scored or continued.
    pub prompt: Prompts,
    /// Tokens to generate; 16 when absent, as OpenAI has it, or as many as there is room for. 0 scores alone.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// Whether the answer begins with the prompt.
    #[serde(default)]
    pub echo: bool,
    /// Log-probabilities of the answer's tokens, and of so many alternatives beside each.
    #[serde(default)]
    #[cfg_attr(feature = "schemas", schema(maximum = 64))]
    pub logprobs: Option<u16>,
    /// vLLM's: log-probabilities of the prompt's tokens, and of so many alternatives beside each.
    #[serde(default)]
    #[cfg_attr(feature = "schemas", schema(maximum = 64))]
    pub prompt_logprobs: Option<u16>,
    /// vLLM's: whether BOS goes before a string prompt by the model's own rule. Token ids are taken as they are.
    #[serde(default = "yes")]
    pub add_special_tokens: bool,
    /// Completions of each prompt; the seed of each is one more than that of the one before.
    #[serde(default)]
    pub n: Option<u32>,
    /// Whether the answer comes in pieces, as server-sent events.
    #[serde(default)]
    pub stream: bool,
    /// What the pieces say.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// Logits are divided by it; 1 when absent, 0 is greedy.
    #[serde(default)]
    pub temperature: Option<f32>,
    /// The share of probability that is drawn from; all of it when absent.
    #[serde(default)]
    pub top_p: Option<f32>,
    /// vLLM's: how many of the most probable tokens are drawn from; any number when absent, 0 or -1.
    #[serde(default)]
    pub top_k: Option<i64>,
    /// Equal seeds draw equal tokens; by chance when absent.
    #[serde(default)]
    pub seed: Option<i64>,
    /// Texts that end the completion; they are not part of it.
    #[serde(default)]
    pub stop: Option<Stops>,
    /// vLLM's: tokens that end the completion, beside the model's own.
    #[serde(default)]
    pub stop_token_ids: Option<Vec<u32>>,
    /// vLLM's: whether the model's own end is passed over.
    #[serde(default)]
    pub ignore_eos: bool,
    /// Only 1: as many as `n`.
    #[serde(default)]
    pub best_of: Option<u32>,
    /// Only 0: logits are the model's own.
    #[serde(default)]
    pub presence_penalty: Option<f32>,
    /// Only 0: logits are the model's own.
    #[serde(default)]
    pub frequency_penalty: Option<f32>,
    /// vLLM's: the smaller, the sooner; 0 when absent. Of one priority, clients take turns.
    #[serde(default)]
    pub priority: i32,
    /// Without effect.
    #[serde(default)]
    pub user: Option<String>,
}

/// One text or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Stops {
    /// A text.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl From<Stops> for Vec<String> {
    fn from(stops: Stops) -> Self {
        match stops {
            Stops::One(stop) => vec![stop],
            Stops::Many(stops) => stops,
        }
    }
}

/// What the pieces of a stream say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// Whether a last piece, without choices, has the token counts.
    #[serde(default)]
    pub include_usage: bool,
}

fn yes() -> bool {
    true
}

/// The answer of `POST /v1/completions`, or a piece of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct CompletionsResponse {
    /// A name of this answer.
    pub id: String,
    /// Always `"text_completion"`.
    pub object: String,
    /// Unix time, seconds.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// `n` a prompt, in the order asked.
    pub choices: Vec<Choice>,
    /// Token counts; in a stream, of its last piece alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<CompletionsUsage>,
}

/// One completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct Choice {
    /// Its index: the prompt's times `n`, and which of the prompt's it is.
    pub index: usize,
    /// The prompt, if it was to be echoed, and what was generated.
    pub text: String,
    /// Log-probabilities of `text`'s tokens, if asked for.
    pub logprobs: Option<ChoiceLogprobs>,
    /// `"stop"` at a text or token that ends it, `"length"` at `max_tokens`; null in a stream before the last piece.
    pub finish_reason: Option<String>,
    /// vLLM's: log-probabilities by id, the most probable tokens' and the token's own; null for the first, before which
    /// nothing stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<Option<BTreeMap<String, PromptLogprob>>>>))]
    pub prompt_logprobs: Option<Vec<Option<BTreeMap<u32, PromptLogprob>>>>,
}

/// Log-probabilities of a text's tokens; the first prompt token, before which nothing stands, has null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct ChoiceLogprobs {
    /// Where each token's text begins, in characters. BOS's text counts, as in vLLM, though an echoed text does not show it.
    pub text_offset: Vec<usize>,
    /// Natural logarithms.
    pub token_logprobs: Vec<Option<f32>>,
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// Log-probabilities by text: the most probable tokens' and the token's own; of two with the same text, the greater.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
}

/// One token's log-probability, as vLLM has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
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
        for (wrong, why) in [
            ("7", "expected a string, an array of token ids"),
            (r#"["a",1]"#, "mixed in one array"),
            (r#"[1,"a"]"#, "mixed in one array"),
            ("[-1]", "expected a token id, a string or an array of token ids"),
            ("[4294967296]", "4294967296"),
            ("[true]", "expected a token id, a string or an array of token ids"),
            ("{}", "expected a string, an array of token ids"),
            ("[[[1]]]", "expected u32"),
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
