//! `POST /logprobs`: the request, and the response as one JSON object or as lines of NDJSON.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::problem::Problem;
use crate::text::Text;

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

#[cfg(feature = "schemas")]
mod schema {
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
    use utoipa::openapi::{RefOr, Schema};
    use utoipa::{PartialSchema, ToSchema};

    use super::Pairs;

    impl PartialSchema for Pairs {
        fn schema() -> RefOr<Schema> {
            let all = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["all"]));
            let pair = ArrayBuilder::new().items(usize::schema()).min_items(Some(2)).max_items(Some(2));
            let list = ArrayBuilder::new().items(pair).min_items(Some(1));
            let description = "Every context with every target (`\"all\"`), or these `[context, target]` indices.";
            OneOfBuilder::new().item(all).item(list).description(Some(description)).into()
        }
    }

    impl ToSchema for Pairs {}
}

/// The answer of `POST /logprobs`; results stand in the order asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct LogprobsResponse {
    /// The model's name.
    pub model: String,
    /// What the numbers depend on: weights hash, dtype, backend, kernel version. Equal fingerprints, equal bits.
    pub fingerprint: String,
    /// One result a query, or one a pair.
    pub results: Vec<QueryResult>,
    /// What the request cost.
    pub usage: Usage,
}

/// One query's score.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct QueryResult {
    /// The query's id, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The `[context, target]` indices, for the pairs form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<[usize; 2]>,
    /// Log-probability of the whole target given the context, in nats: the tokens' f32 values added in f64, in order.
    pub sum: f64,
    /// How many tokens were scored.
    pub tokens: usize,
    /// How many of the sequence's tokens (BOS, context and target) came from the cache.
    pub cached_tokens: usize,
    /// Each target token's log-probability in nats (`detail: "tokens"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<f32>>,
    /// The target's token ids (`detail: "tokens"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
    /// Each target token's bytes in the target's text, `[from, to)`, as the tokenizer gives them (`detail: "tokens"`, where the
    /// target is a string). Tokens that share a character share its bytes; a tokenizer may leave bytes out, as spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offsets: Option<Vec<[usize; 2]>>,
    /// The most probable tokens at each target token's place, `[id, log-probability in nats]`, the greatest first, ties by the
    /// smaller id (`top`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<Vec<crate::tuples::Alternative>>>))]
    pub top: Option<Vec<Vec<(u32, f32)>>>,
    /// 1 + how many tokens are more probable than the target's, at each place (`rank`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<Vec<u32>>,
    /// Entropy in nats of the distribution that predicts each target token (`entropy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropies: Option<Vec<f32>>,
    /// Log-probability in nats, at most 0, that any of the subset's tokens stands at each place (`subset`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset_logprobs: Option<Vec<f32>>,
}

/// The media type of an answer as [`StreamLine`]s.
pub const NDJSON: &str = "application/x-ndjson";

/// The media type of an answer as an Arrow IPC stream.
pub const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// One line of an NDJSON answer of `POST /logprobs`: results in the order they finish, then `end`, or a `problem`.
///
/// An answer whose last line is neither was cut off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum StreamLine {
    /// One query's score.
    Result {
        /// The query's (or pair's) index in the request.
        index: usize,
        /// Its score.
        #[serde(flatten)]
        result: QueryResult,
    },
    /// Every result has been sent.
    End {
        /// The model's name.
        model: String,
        /// What the numbers depend on; see [`LogprobsResponse::fingerprint`].
        fingerprint: String,
        /// What the request cost.
        usage: Usage,
    },
    /// What went wrong after the first byte; no more follows.
    Problem(Problem),
}

/// Token counts of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Tokens that went through the model.
    pub computed_tokens: u64,
    /// Tokens whose work was found in the cache.
    pub cached_tokens: u64,
    /// Tokens whose log-probability was asked for.
    pub scored_tokens: u64,
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
    fn unknown_fields_and_values_are_rejected() {
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
