//! Coercion of scalars, with the rules of pydantic's lax mode, which vLLM and SGLang use: numbers may be strings
//! or flags, integers may be whole floats, and flags may be numbers or words.

use std::fmt::{self, Display};

/// The type of a field, as far as coercion and messages depend on it.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// The type that the visitor describes.
    Any,
    Flag,
    Integer {
        min: i64,
        max: u64,
    },
    Float,
    String,
    Array,
    /// An object with these fields.
    Object {
        type_name: &'static str,
        fields: &'static [&'static str],
    },
    /// One of these words.
    Word(&'static [&'static str]),
}

/// The expected type in words.
impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Never shown: the visitor describes the type itself.
            Self::Any => f.write_str("of another type"),
            Self::Flag => f.write_str("true or false"),
            Self::Integer { min, max } => write!(f, "an integer from {min} to {max}"),
            Self::Float => f.write_str("a number"),
            Self::String => f.write_str("a string"),
            Self::Array => f.write_str("an array"),
            Self::Object { .. } => f.write_str("an object"),
            Self::Word(words) => f.write_str(&super::fault::alternatives(words)),
        }
    }
}

/// Returns the flag that a word stands for.
pub(super) fn flag_from_word(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Returns the flag that a number stands for.
pub(super) fn flag_from_number(number: f64) -> Option<bool> {
    if number == 0.0 {
        Some(false)
    } else if number == 1.0 {
        Some(true)
    } else {
        None
    }
}

/// Returns the integer in a text, such as `5` or `5.0`.
pub(super) fn integer_from_text(text: &str) -> Option<i64> {
    let digits = text.trim();
    let digits = match digits.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|digit| digit == b'0') => whole,
        _ => digits,
    };
    digits.parse().ok()
}

/// Returns the integer that equals a float, if there is one.
pub(super) fn integer_from_float(number: f64) -> Option<i64> {
    // 2^63 is the first float above the range.
    let in_range = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number);
    (in_range && number.fract() == 0.0).then_some(number as i64)
}

/// Returns the finite number in a text.
pub(super) fn float_from_text(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}
