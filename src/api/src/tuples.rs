//! JSON schemas of tuples, which are JSON arrays on the wire.

use utoipa::openapi::schema::{ArrayBuilder, ArrayItems};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A `[log-probability, token id, text]` tuple.
pub(crate) struct TokenLogprob;

impl PartialSchema for TokenLogprob {
    fn schema() -> RefOr<Schema> {
        tuple(
            "`[log-probability in nats, token id, text]`. The log-probability is null for the first token of a prompt; \
             the text is null unless requested.",
            [Option::<f32>::schema(), u32::schema(), Option::<String>::schema()],
        )
    }
}

impl ToSchema for TokenLogprob {}

/// A `[token id, log-probability]` tuple.
pub(crate) struct Alternative;

impl PartialSchema for Alternative {
    fn schema() -> RefOr<Schema> {
        tuple("`[token id, log-probability in nats]`.", [u32::schema(), f32::schema()])
    }
}

impl ToSchema for Alternative {}

fn tuple<const N: usize>(description: &str, items: [RefOr<Schema>; N]) -> RefOr<Schema> {
    let items = items.into_iter().filter_map(|item| match item {
        RefOr::T(schema) => Some(schema),
        RefOr::Ref(_) => None,
    });
    let tuple = ArrayBuilder::new().description(Some(description)).items(ArrayItems::False).prefix_items(items);
    tuple.min_items(Some(N)).max_items(Some(N)).into()
}
