//! Prompts and stop strings of `/v1/completions` and `/generate`.

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::text::Text;

/// One prompt or several: a string, an array of token ids, or an array of either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Prompts {
    /// A single prompt.
    One(Text),
    /// A list of prompts.
    Many(Vec<Text>),
}

/// One element of an array that may be either a prompt's token ids or a list of prompts.
enum Element {
    Token(u32),
    Text(Text),
}

/// A manual implementation, because a derived untagged enum buffers its input until the variant is known, at tens of
/// bytes per token.
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
                        return Err(de::Error::custom("token ids and prompts are mixed in one array; send one kind"));
                    }
                }
                Ok(if tokens.is_empty() { Prompts::Many(texts) } else { Prompts::One(Text::Tokens(tokens)) })
            }
        }

        deserializer.deserialize_any(PromptsVisitor)
    }
}

/// One stop string or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Stops {
    /// One stop string.
    One(String),
    /// Several stop strings.
    Many(Vec<String>),
}

/// A manual implementation, because the errors of a derived untagged enum name neither the wrong element nor the
/// expected types.
impl<'de> Deserialize<'de> for Stops {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StopsVisitor;

        impl<'de> Visitor<'de> for StopsVisitor {
            type Value = Stops;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E: de::Error>(self, stop: &str) -> Result<Stops, E> {
                Ok(Stops::One(stop.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Stops, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Stops::Many)
            }
        }

        deserializer.deserialize_any(StopsVisitor)
    }
}

impl From<Stops> for Vec<String> {
    fn from(stops: Stops) -> Self {
        match stops {
            Stops::One(stop) => vec![stop],
            Stops::Many(stops) => stops,
        }
    }
}

/// Returns the default value of `add_special_tokens`.
pub(crate) fn default_true() -> bool {
    true
}

#[cfg(feature = "schemas")]
mod schema {
    use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder};
    use utoipa::openapi::{Ref, RefOr, Schema};
    use utoipa::{PartialSchema, ToSchema};

    use super::Prompts;
    use crate::text::Text;

    impl PartialSchema for Prompts {
        fn schema() -> RefOr<Schema> {
            let text = || Ref::from_schema_name(Text::name());
            let description = "One prompt or several: a string, an array of token ids, or an array of either.";
            // An empty array would match both alternatives; the server rejects it.
            let (one, many) = (text(), ArrayBuilder::new().items(text()).min_items(Some(1)));
            AnyOfBuilder::new().item(one).item(many).description(Some(description)).into()
        }
    }

    impl ToSchema for Prompts {
        fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
            schemas.push((Text::name().into_owned(), Text::schema()));
        }
    }
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
