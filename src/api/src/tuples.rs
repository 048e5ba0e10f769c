//! JSON schemas of tuples, which are arrays on the wire.

use utoipa::openapi::schema::{ArrayBuilder, ArrayItems};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// `[log-probability, token id, text]`.
pub(crate) struct TokenLogprob;

impl PartialSchema for TokenLogprob {
    fn schema() -> RefOr<Schema> {
        tuple([Option::<f32>::schema(), u32::schema(), Option::<String>::schema()])
    }
}

impl ToSchema for TokenLogprob {}

/// `[token id, log-probability]`.
pub(crate) struct Alternative;

impl PartialSchema for Alternative {
    fn schema() -> RefOr<Schema> {
        tuple([u32::schema(), f32::schema()])
    }
}

impl ToSchema for Alternative {}

fn tuple<const N: usize>(items: [RefOr<Schema>; N]) -> RefOr<Schema> {
    let items = items.into_iter().filter_map(|item| match item {
        RefOr::T(schema) => Some(schema),
        RefOr::Ref(_) => None,
    });
    let tuple = ArrayBuilder::new().items(ArrayItems::False).prefix_items(items);
    tuple.min_items(Some(N)).max_items(Some(N)).into()
}
