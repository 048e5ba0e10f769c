//! `Fault`: the reason why a body is not a valid request, and the path of the field.

use std::cell::RefCell;
use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};
use serde_json::Value;

use crate::failure::truncate;

/// The reason why a body is not a valid request.
#[derive(Debug)]
pub(super) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    /// Path of the field, from the inside out.
    path: Vec<Segment>,
    cause: Cause,
}

/// A step of a path.
#[derive(Debug)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

#[derive(Debug)]
pub(super) enum Cause {
    /// The body is not JSON, or a JSON number or string cannot be represented.
    Syntax(String),
    WrongType {
        found: Found,
        expected: String,
    },
    /// A value of a field that is not implemented, which would change something.
    NotNeutral {
        found: Found,
        expected: String,
        reason: &'static str,
    },
    /// The known fields.
    Unknown(&'static [&'static str]),
    Missing,
    Duplicate,
    Other(String),
}

/// A value that a request contains, as far as messages need it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    Scalar(Value),
    Null,
    Array(Option<usize>),
    Object,
    Other(String),
}

impl Fault {
    pub(super) fn new(cause: Cause) -> Self {
        Self(Box::new(Inner { path: Vec::new(), cause }))
    }

    pub(super) fn wrong_type(found: Found, expected: impl Display) -> Self {
        Self::new(Cause::WrongType { found, expected: expected.to_string() })
    }

    /// Converts an error of `serde_json`.
    pub(super) fn from_json(error: &impl Display) -> Self {
        let message = error.to_string();
        // Valid JSON: only the number cannot be represented.
        match message.strip_prefix("number out of range") {
            Some(place) => Self::new(Cause::Other(format!("the number{place} is out of range"))),
            None => Self::new(Cause::Syntax(message)),
        }
    }

    /// Replaces the description of the expected type, which serde's own visitors give in Rust's words.
    pub(super) fn expecting(mut self, words: &str) -> Self {
        match &mut self.0.cause {
            // An array whose length is wrong.
            Cause::WrongType { found: Found::Array(Some(_)), .. } => {}
            Cause::WrongType { expected, .. } if self.0.path.is_empty() => words.clone_into(expected),
            _ => {}
        }
        self
    }

    pub(super) fn at(mut self, segment: Segment) -> Self {
        self.0.path.push(segment);
        self
    }

    /// Returns the path, from the outside in, and the cause.
    pub(super) fn into_parts(self) -> (Vec<Segment>, Cause) {
        let Inner { mut path, cause } = *self.0;
        path.reverse();
        (path, cause)
    }
}

/// The fault that is on its way out through a foreign deserializer, whose errors cannot carry it.
#[derive(Default)]
pub(super) struct State(RefCell<Option<Fault>>);

impl State {
    /// Stores a fault; returns the error to give to the foreign deserializer.
    pub(super) fn store<E: de::Error>(&self, fault: Fault) -> E {
        *self.0.borrow_mut() = Some(fault);
        E::custom("")
    }

    /// Returns the stored fault. If there is none, the foreign deserializer itself has failed.
    pub(super) fn take<E: de::Error>(&self, error: &E) -> Fault {
        self.0.borrow_mut().take().unwrap_or_else(|| Fault::from_json(error))
    }
}

/// Returns a path as problems write it, such as `queries[3].target`.
pub(super) fn join(path: &[Segment]) -> String {
    let mut joined = String::new();
    for segment in path {
        match segment {
            Segment::Key(key) if joined.is_empty() => joined.push_str(key),
            Segment::Key(key) => joined.extend([".", key]),
            Segment::Index(index) => joined.push_str(&format!("[{index}]")),
        }
    }
    joined
}

/// Returns the maximum in words such as "an integer from 0 to 64".
pub(super) fn maximum(expected: &str) -> Option<u64> {
    expected.strip_prefix("an integer from ")?.split_once(" to ")?.1.parse().ok()
}

impl Found {
    /// Returns the value in words, for a message.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Scalar(Value::String(text)) => {
                let start = truncate(text);
                let ellipsis = if start.len() < text.len() { "..." } else { "" };
                format!("{}{ellipsis}", Value::String(start))
            }
            Self::Scalar(value) => value.to_string(),
            Self::Null => "null".to_owned(),
            Self::Array(None) => "an array".to_owned(),
            Self::Array(Some(length)) => format!("an array of length {length}"),
            Self::Object => "an object".to_owned(),
            Self::Other(words) => words.clone(),
        }
    }

    pub(super) fn into_value(self) -> Option<Value> {
        if let Self::Scalar(value) = self { Some(value) } else { None }
    }
}

impl From<Unexpected<'_>> for Found {
    fn from(unexpected: Unexpected<'_>) -> Self {
        match unexpected {
            Unexpected::Bool(flag) => Self::Scalar(flag.into()),
            Unexpected::Unsigned(number) => Self::Scalar(number.into()),
            Unexpected::Signed(number) => Self::Scalar(number.into()),
            Unexpected::Float(number) => Self::Scalar(number.into()),
            Unexpected::Str(text) => Self::Scalar(text.into()),
            Unexpected::Unit | Unexpected::Option => Self::Null,
            Unexpected::Seq => Self::Array(None),
            Unexpected::Map => Self::Object,
            other => Self::Other(other.to_string()),
        }
    }
}

/// Returns names as alternatives, such as `"sum" or "tokens"`.
pub(super) fn alternatives(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    quoted.join(" or ")
}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(Cause::Other(message.to_string()))
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::wrong_type(unexpected.into(), expected)
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::wrong_type(unexpected.into(), expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::wrong_type(Found::Array(Some(length)), expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::wrong_type(Found::Scalar(variant.into()), alternatives(expected))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Cause::Unknown(expected)).at(Segment::Key(field.to_owned()))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Cause::Missing).at(Segment::Key(field.to_owned()))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(Cause::Duplicate).at(Segment::Key(field.to_owned()))
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Fault {}
