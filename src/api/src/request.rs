//! `POST /logprobs`: what a client asks.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Text;

/// The body of `POST /logprobs`, in one of two forms: `queries`, or `contexts` x `targets` with `pairs`.
///
/// Fields not named here are refused rather than ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LogprobsRequest {
    /// The model asked for; if given, it must be the one that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// First form: each query has its own context and target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<Vec<QuerySpec>>,
    /// Second form: the contexts that `pairs` refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contexts: Option<Vec<Text>>,
    /// Second form: the targets that `pairs` refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<Text>>,
    /// Second form: which context goes with which target; `"all"` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<Pairs>,
    /// Sums alone, or each token's log-probability too.
    #[serde(default)]
    pub detail: Detail,
    /// Whether a beginning-of-sequence token goes before the context.
    #[serde(default)]
    pub bos: Bos,
    /// So many of the most probable tokens at each target token's place, at most 64 (with `detail: "tokens"`).
    #[serde(default, skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "schemas", schema(maximum = 64))]
    pub top: u16,
    /// Each target token's rank among the vocabulary (with `detail: "tokens"`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub rank: bool,
    /// The entropy of the distribution that predicts each target token (with `detail: "tokens"`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub entropy: bool,
    /// Token ids whose probability together is told at each target token's place (with `detail: "tokens"`): at least one, at
    /// most as many as the vocabulary has; one that is repeated counts once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(min_items = 1))]
    pub subset: Option<Vec<u32>>,
    /// The smaller, the sooner, as vLLM has it; 0 when absent. Of one priority, clients take turns.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// One question: how probable is `target`, given `context`?
///
/// Strings are tokenised apart from each other, so that a context is the same tokens whatever target follows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct QuerySpec {
    /// Returned unchanged with the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What is given; an empty context means the beginning of a text.
    #[serde(default)]
    pub context: Text,
    /// What is scored; at least one token.
    pub target: Text,
}

impl QuerySpec {
    /// A query without an id.
    pub fn new(context: Text, target: Text) -> Self {
        Self { id: None, context, target }
    }
}

/// How much an answer tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// The sum over the target's tokens.
    #[default]
    Sum,
    /// The sum, each token's log-probability, and the token ids.
    Tokens,
}

/// The beginning-of-sequence rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Bos {
    /// The model's own rule: a model that starts its texts with BOS gets one before the context, unless the context starts with it.
    #[default]
    Auto,
    /// As `auto`, even if the context starts with BOS: for token ids that are data, of which one may be the same as BOS.
    /// Refused where the model's texts do not begin with BOS.
    Always,
    /// Never.
    None,
}

/// Which of `contexts` x `targets` to score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Every context with every target, contexts outermost: (0,0), (0,1), ...
    All,
    /// These `[context, target]` indices, answered in this order.
    List(Vec<[usize; 2]>),
}

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Pairs::All => serializer.serialize_str("all"),
            Pairs::List(pairs) => pairs.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;

        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\" or an array of [context, target] index pairs")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Pairs, E> {
                match text {
                    "all" => Ok(Pairs::All),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(1 << 16));
                while let Some(pair) = seq.next_element()? {
                    pairs.push(pair);
                }
                Ok(Pairs::List(pairs))
            }
        }

        deserializer.deserialize_any(PairsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_forms_parse() {
        let queries: LogprobsRequest = serde_json::from_str(
            r#"{"queries":[{"id":"q1","context":"It was","target":" a dark night"},{"target":[3,4]}],"detail":"tokens"}"#,
        )
        .unwrap();
        let specs = queries.queries.unwrap();
        assert_eq!(specs[0].id.as_deref(), Some("q1"));
        assert!(specs[1].context.is_empty());
        assert_eq!(queries.detail, Detail::Tokens);

        let matrix: LogprobsRequest =
            serde_json::from_str(r#"{"contexts":["a"],"targets":["b",[1]],"pairs":[[0,1]],"bos":"none"}"#).unwrap();
        assert_eq!(matrix.pairs, Some(Pairs::List(vec![[0, 1]])));
        assert_eq!(matrix.bos, Bos::None);
    }

    #[test]
    fn unknown_fields_and_words_are_refused() {
        for json in [
            r#"{"querys":[]}"#,
            r#"{"queries":[{"target":"a","contxt":"b"}]}"#,
            r#"{"queries":[],"detail":"all"}"#,
            r#"{"contexts":[],"targets":[],"pairs":"some"}"#,
            r#"{"queries":[{"context":"a"}]}"#,
        ] {
            assert!(serde_json::from_str::<LogprobsRequest>(json).is_err(), "{json}");
        }
    }
}
