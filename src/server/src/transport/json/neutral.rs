//! Check of a field that the server does not implement: its value must change nothing.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use surprisal_api::{Neutral, NeutralField};

use super::coerce;
use super::fault::{Cause, Fault, Found};

/// A value without its contents, which may be large.
#[derive(Debug, PartialEq)]
pub(super) enum Outline {
    Null,
    Flag(bool),
    Number(f64),
    Text(String),
    Array {
        /// `true` if all elements are null, or there are none.
        is_empty: bool,
    },
    Object {
        is_empty: bool,
        /// `true` if `"type": "text"` is the only member that is not null.
        is_text_format: bool,
    },
}

/// Rejects a value that changes something.
pub(super) fn check(field: &NeutralField, outline: &Outline) -> Result<(), Fault> {
    if *outline == Outline::Null || field.values.iter().any(|&value| outline.matches(value)) {
        return Ok(());
    }
    Err(Fault::new(Cause::NotNeutral { found: outline.found(), expected: field.expected(), reason: field.reason }))
}

impl Outline {
    fn matches(&self, value: Neutral) -> bool {
        match (value, self) {
            (Neutral::Any, _)
            | (Neutral::Empty, Self::Array { is_empty: true } | Self::Object { is_empty: true, .. })
            | (Neutral::TextFormat, Self::Object { is_text_format: true, .. }) => true,
            (Neutral::Word(word), Self::Text(text)) => word == text,
            (Neutral::Flag(flag), Self::Flag(found)) => flag == *found,
            (Neutral::Flag(flag), Self::Number(number)) => coerce::flag_from_number(*number) == Some(flag),
            (Neutral::Flag(flag), Self::Text(text)) => coerce::flag_from_word(text) == Some(flag),
            (Neutral::Number(number), Self::Number(found)) => number == *found,
            (Neutral::Number(number), Self::Text(text)) => coerce::float_from_text(text) == Some(number),
            _ => false,
        }
    }

    fn found(&self) -> Found {
        match self {
            Self::Null => Found::Null,
            Self::Flag(flag) => Found::Scalar((*flag).into()),
            // A whole number is written as in the request, without a fraction.
            Self::Number(number) => match coerce::integer_from_float(*number) {
                Some(whole) => Found::Scalar(whole.into()),
                None => Found::Scalar((*number).into()),
            },
            Self::Text(text) => Found::Scalar(text.as_str().into()),
            Self::Array { .. } => Found::Array(None),
            Self::Object { .. } => Found::Object,
        }
    }
}

/// The seed of an [`Outline`].
pub(super) struct OutlineSeed;

impl<'de> DeserializeSeed<'de> for OutlineSeed {
    type Value = Outline;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Outline, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OutlineSeed {
    type Value = Outline;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Outline, E> {
        Ok(Outline::Flag(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Outline, E> {
        Ok(Outline::Number(number as f64))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Outline, E> {
        Ok(Outline::Number(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Outline, E> {
        Ok(Outline::Number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Outline, E> {
        Ok(Outline::Text(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Outline, E> {
        Ok(Outline::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Outline, A::Error> {
        let mut is_empty = true;
        while let Some(element) = seq.next_element::<Option<IgnoredAny>>()? {
            is_empty &= element.is_none();
        }
        Ok(Outline::Array { is_empty })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
        let (mut is_empty, mut is_text, mut has_others) = (true, false, false);
        while let Some(key) = map.next_key::<String>()? {
            is_empty = false;
            if key == "type" {
                is_text = map.next_value::<MaybeText>()?.0;
            } else {
                has_others |= map.next_value::<Option<IgnoredAny>>()?.is_some();
            }
        }
        Ok(Outline::Object { is_empty, is_text_format: is_text && !has_others })
    }
}

/// `true` if the value is the string `"text"`.
struct MaybeText(bool);

impl<'de> Deserialize<'de> for MaybeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let outline = OutlineSeed.deserialize(deserializer)?;
        Ok(Self(outline == Outline::Text("text".to_owned())))
    }
}
