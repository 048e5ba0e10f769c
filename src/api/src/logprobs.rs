//! `POST /logprobs`: the request, and the response as one JSON object or as NDJSON lines.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::problem::Problem;
use crate::text::Text;
use crate::token_options::{Boundary, OffsetUnit, TokenText};

/// The body of `POST /logprobs`, in one of two forms: `queries`; or `contexts` and `targets`, optionally with `pairs`.
///
/// Unknown fields are rejected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LogprobsRequest {
    /// Name of the model. If present, it must be the served model's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// First form: the queries, each with a context and a target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<Vec<QuerySpec>>,
    /// Second form: the contexts, which `pairs` refers to by index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contexts: Option<Vec<Text>>,
    /// Second form: the targets, which `pairs` refers to by index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<Text>>,
    /// Second form: the pairs of a context and a target to score. Default: `"all"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs: Option<Pairs>,
    /// Level of detail of the results. Default: `"sum"`.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub detail: Detail,
    /// Rule for adding the beginning-of-sequence token (BOS) before the context. Default: `"auto"`.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub bos: Bos,
    /// Split between context and target. Default: `"separate"`. `"joint"` requires `queries` whose contexts and targets
    /// are strings.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "crate::lenient::or_default")]
    pub boundary: Boundary,
    /// Texts of tokens to return along with token ids. Requires `detail: "tokens"`. Default: `"strings"`, or `"none"`
    /// in an Arrow response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<TokenText>,
    /// Unit of `offsets` and `overlap` in the results. Default: `"bytes"`.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "crate::lenient::or_default")]
    pub offset_unit: OffsetUnit,
    /// Number of most probable tokens to return at each target position, at most 64. Default: 0. Values above 0 require
    /// `detail: "tokens"`.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "crate::lenient::top_or_zero")]
    #[cfg_attr(feature = "schemas", schema(maximum = 64))]
    pub top: u16,
    /// `true` to return the rank of each target token in the vocabulary. Requires `detail: "tokens"`.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "crate::lenient::or_default")]
    pub rank: bool,
    /// `true` to return the entropy of the distribution that predicts each target token. Requires `detail: "tokens"`.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "crate::lenient::or_default")]
    pub entropy: bool,
    /// Set of token ids: each result has the log-probability of the whole set at each target position. Requires
    /// `detail: "tokens"`. Must have at least one id, and at most as many ids as the vocabulary. A repeated id counts
    /// once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(min_items = 1))]
    pub subset: Option<Vec<u32>>,
    /// Priority of the request. As in vLLM, requests with smaller values run sooner. Default: 0. Clients whose requests
    /// have the same priority take turns. The operator sets the smallest value that a client may use, 0 by default.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "crate::lenient::or_default")]
    pub priority: i32,
    /// Salt of the prefix cache: the request shares cached prefixes only with requests that have the same salt (and,
    /// unless the server shares the cache among API keys, the same key). A string of 1 to 128 characters, which should
    /// be hard to guess. It changes only the counts of cached tokens, not the results. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(min_length = 1, max_length = 128))]
    pub cache_salt: Option<String>,
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// One query: how probable is `target`, given `context`?
///
/// Unless `boundary` is `"joint"`, the context and the target are tokenized separately, so a context has the same
/// tokens no matter which target follows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct QuerySpec {
    /// Identifier of the query, which is copied to its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Text that precedes the target. Default: empty, so the target is the beginning of the text.
    #[serde(default, deserialize_with = "crate::lenient::or_default")]
    pub context: Text,
    /// Text to score; at least one token.
    pub target: Text,
}

impl QuerySpec {
    /// Creates a query without an id.
    pub fn new(context: Text, target: Text) -> Self {
        Self { id: None, context, target }
    }
}

/// The level of detail of the results: `"sum"` returns the sum of each target's log-probabilities; `"tokens"` also
/// returns each target token's log-probability, id and text, and its offsets if the target is a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// The sum of the log-probabilities of the target's tokens.
    #[default]
    Sum,
    /// The sum, and the log-probability, id, text and offsets of each token.
    Tokens,
}

/// The rule for adding the beginning-of-sequence token (BOS): `"auto"` adds BOS before the context if the model's
/// tokenizer adds BOS to texts and the context does not already begin with it; `"always"` adds BOS even if the context
/// begins with it, and is rejected if the tokenizer never adds BOS; `"none"` adds no BOS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Bos {
    /// The tokenizer's own rule: BOS before the context if the tokenizer adds BOS to texts, unless the context already
    /// begins with it.
    #[default]
    Auto,
    /// BOS before the context, even if the context begins with BOS: for contexts of arbitrary token ids, the first of
    /// which may happen to be BOS. Rejected if the tokenizer never adds BOS.
    Always,
    /// No BOS.
    None,
}

/// The pairs of a context and a target to score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Every context with every target, contexts outermost: (0,0), (0,1), ...
    All,
    /// The listed pairs of `[context, target]` indices. The results are in the same order.
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
            let description = "Every context with every target (`\"all\"`), or a list of `[context, target]` pairs.";
            OneOfBuilder::new().item(all).item(list).description(Some(description)).into()
        }
    }

    impl ToSchema for Pairs {}
}

/// The response to `POST /logprobs`, with results in the order of the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct LogprobsResponse {
    /// Name of the model.
    pub model: String,
    /// Identifier of everything that affects the results: a hash of the model's files (weights, configuration and
    /// tokenizer), dtype, backend and numerics version. Servers with the same fingerprint return bit-identical results.
    pub fingerprint: String,
    /// One result per query or per pair.
    pub results: Vec<QueryResult>,
    /// Token counts of the request.
    pub usage: Usage,
}

/// The score of one query.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct QueryResult {
    /// Id of the query, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The `[context, target]` indices. Present if the request has `contexts` and `targets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<[usize; 2]>,
    /// Log-probability of the whole target given the context, in nats: the tokens' f32 log-probabilities, summed in f64
    /// in token order.
    pub sum: f64,
    /// Number of tokens in the target, all of which are scored.
    pub tokens: usize,
    /// Number of the sequence's tokens (BOS, context and target) that were found in the prefix cache.
    pub cached_tokens: usize,
    /// Log-probability of each target token, in nats. Present with `detail: "tokens"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<f32>>,
    /// Token ids of the target. Present with `detail: "tokens"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
    /// Range `[from, to)` of each target token in the target's text, in bytes or, with `offset_unit: "chars"`, in
    /// characters, as the tokenizer reports it. Present with `detail: "tokens"` if the target is a string. Tokens that
    /// share a character have overlapping ranges. Some bytes, such as spaces, may be in no token's range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offsets: Option<Vec<[usize; 2]>>,
    /// Length of the context's part of the first target token, in the unit of `offsets`. Present with
    /// `boundary: "joint"`; 0 if the context ends at a token boundary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<usize>,
    /// Text of each target token. The texts join to the target, after the context's part of the first token if there is
    /// an `overlap`. A character of several tokens belongs to the last of them. Present with `detail: "tokens"` and
    /// `texts: "strings"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<Vec<String>>,
    /// Bytes of each target token. Present with `texts: "bytes"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Vec<Vec<u8>>>,
    /// Most probable tokens at each target position, as `[token id, log-probability in nats]`: the most probable first,
    /// with ties ordered by id. Present if `top` is above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemas", schema(value_type = Option<Vec<Vec<crate::tuples::Alternative>>>))]
    pub top: Option<Vec<Vec<(u32, f32)>>>,
    /// Text that each token of `top` would have at its position. Present if `top` is above 0, with `texts: "strings"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_texts: Option<Vec<Vec<String>>>,
    /// Bytes of each token of `top`. Present if `top` is above 0, with `texts: "bytes"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_bytes: Option<Vec<Vec<Vec<u8>>>>,
    /// Rank of each target token: 1 plus the number of more probable tokens. Present if `rank` is `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<Vec<u32>>,
    /// Entropy of the distribution that predicts each target token, in nats. Present if `entropy` is `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropies: Option<Vec<f32>>,
    /// Log-probability that the token at each target position is in `subset`, in nats; at most 0. Present if the
    /// request has `subset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset_logprobs: Option<Vec<f32>>,
}

/// The media type of a response that consists of [`StreamLine`]s.
pub const NDJSON: &str = "application/x-ndjson";

/// The media type of a response as an Arrow IPC stream.
pub const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// One line of an NDJSON response to `POST /logprobs`: results in the order in which they finish, then one `end` or one
/// `problem`.
///
/// A response whose last line is neither is incomplete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum StreamLine {
    /// The score of one query.
    Result {
        /// Index of the query or pair in the request.
        index: usize,
        /// The score.
        #[serde(flatten)]
        result: QueryResult,
    },
    /// The last line of a complete response.
    End {
        /// Name of the model.
        model: String,
        /// Identifier of everything that affects the results, as in `LogprobsResponse`.
        fingerprint: String,
        /// Token counts of the request.
        usage: Usage,
    },
    /// A failure after the response has started. This is the last line.
    Problem(Problem),
}

/// Token counts of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Number of tokens that the model processed in forward passes.
    pub computed_tokens: u64,
    /// Number of tokens that were found in the prefix cache.
    pub cached_tokens: u64,
    /// Number of scored tokens.
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
