//! JSON schemas of the types that are read by hand.

use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ArrayItems, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::{Pairs, Prompts, Text};

type Schemas = Vec<(String, RefOr<Schema>)>;

impl PartialSchema for Prompts {
    fn schema() -> RefOr<Schema> {
        let text = || Ref::from_schema_name(Text::name());
        let description = "One prompt or several: a string, token ids, or a list of either.";
        // An empty list is of both kinds, and refused.
        let (one, many) = (text(), ArrayBuilder::new().items(text()).min_items(Some(1)));
        AnyOfBuilder::new().item(one).item(many).description(Some(description)).into()
    }
}

impl ToSchema for Prompts {
    fn schemas(schemas: &mut Schemas) {
        schemas.push((Text::name().into_owned(), Text::schema()));
    }
}

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
