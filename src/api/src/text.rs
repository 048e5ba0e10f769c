//! A text on the wire: a string or token ids.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A text: a string, which the server tokenizes, or an array of token ids, which it uses unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Text {
    /// A string, which the server tokenizes without adding special tokens.
    String(String),
    /// Token ids, each below the model's vocabulary size.
    Tokens(Vec<u32>),
}

impl Text {
    /// Returns `true` for an empty string or an empty list of token ids.
    pub fn is_empty(&self) -> bool {
        match self {
            Text::String(text) => text.is_empty(),
            Text::Tokens(tokens) => tokens.is_empty(),
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Text::Tokens(Vec::new())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text::String(text.to_owned())
    }
}

impl From<Vec<u32>> for Text {
    fn from(tokens: Vec<u32>) -> Self {
        Text::Tokens(tokens)
    }
}

/// A manual implementation, because the errors of a derived untagged enum report only that the input "did not match
/// any variant".
impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of token ids")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text::String(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Text, E> {
                Ok(Text::String(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
                let mut tokens = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(1 << 16));
                while let Some(token) = seq.next_element()? {
                    tokens.push(token);
                }
                Ok(Text::Tokens(tokens))
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_token_ids_round_trip() {
        for (json, text) in
            [(r#""It was""#, Text::from("It was")), ("[1,2]", Text::from(vec![1, 2])), ("[]", Text::default())]
        {
            assert_eq!(serde_json::from_str::<Text>(json).unwrap(), text);
            assert_eq!(serde_json::to_string(&text).unwrap(), json);
        }
    }

    #[test]
    fn other_types_are_rejected_with_the_expected_types() {
        for json in ["1", "null", "{}", "[-1]", "[1.5]", "[4294967296]"] {
            assert!(serde_json::from_str::<Text>(json).is_err(), "{json}");
        }
        let error = serde_json::from_str::<Text>("1").unwrap_err().to_string();
        assert!(error.contains("a string or an array of token ids"), "{error}");
    }
}
