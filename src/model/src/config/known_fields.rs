//! The rule for the fields of a model's JSON files: each field is read, has no effect, or is rejected by name.
//!
//! - A field that has a parser is read, and its parser rejects the values that are not supported.
//! - A field that cannot change log-probabilities is accepted with any value; the tables give the [`Reason`].
//! - A field that would change them is accepted only with [neutral](Neutral) values, which change nothing.
//! - Any other field is rejected, because it may describe a computation that this program does not do. Only a value
//!   that switches nothing on is accepted: null, false, or an empty string, list or object.
//!
//! transformers ignores fields that a model's class does not have, so an accepted field has its value there too.

use serde_json::{Map, Value};

/// A reason why a field cannot change log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A name, version or other description of the model or of the software that wrote the file.
    Metadata,
    /// Only training or the initialization of weights uses the field.
    Training,
    /// A default for generation. Requests to this server state their own sampling parameters.
    Generation,
    /// A choice between implementations of the same function.
    Implementation,
    /// Only other tasks use the field, such as classification.
    OtherTask,
    /// A description of text processing, which the tokenizer's files decide.
    Text,
}

/// A value that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Neutral {
    /// `false`.
    False,
    /// `true`.
    True,
    /// A number.
    Number(f64),
    /// A string.
    Text(&'static str),
    /// An empty string, list or object.
    Empty,
    /// A list whose elements are all this number.
    Each(f64),
}

impl Neutral {
    fn matches(self, value: &Value) -> bool {
        match self {
            Self::False => *value == Value::Bool(false),
            Self::True => *value == Value::Bool(true),
            Self::Number(number) => value.as_f64() == Some(number),
            Self::Text(text) => value.as_str() == Some(text),
            Self::Empty => is_empty(value),
            Self::Each(number) => {
                value.as_array().is_some_and(|list| list.iter().all(|value| value.as_f64() == Some(number)))
            }
        }
    }

    fn describe(self) -> String {
        match self {
            Self::False => "false".to_owned(),
            Self::True => "true".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.to_owned(),
            Self::Empty => "an empty value".to_owned(),
            Self::Each(number) => format!("a list whose elements are all {number}"),
        }
    }
}

/// The known fields of a JSON object.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownFields {
    /// Fields that have a parser.
    pub(super) read: &'static [&'static str],
    /// Fields that cannot change log-probabilities.
    pub(super) irrelevant: &'static [(Reason, &'static [&'static str])],
    /// Beginnings of the names of fields that cannot change log-probabilities.
    pub(super) irrelevant_prefixes: &'static [&'static str],
    /// Fields that would change log-probabilities, with their neutral values. Null is always neutral.
    pub(super) neutral: &'static [(&'static str, &'static [Neutral])],
}

/// A field that must be rejected.
#[derive(Debug, PartialEq)]
pub(super) struct RejectedField<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a Value,
    /// The supported values, and what to do.
    pub(super) expected: String,
}

impl KnownFields {
    /// Returns the first field of an object that must be rejected; `None` if there is none.
    pub(super) fn rejected<'a>(&self, object: &'a Map<String, Value>) -> Option<RejectedField<'a>> {
        object.iter().find_map(|(name, value)| {
            let expected = self.expected(name, value)?;
            Some(RejectedField { name, value, expected })
        })
    }

    /// Returns the reason why a field is irrelevant; `None` if it is not in the table of irrelevant fields.
    fn reason(&self, name: &str) -> Option<Reason> {
        let by_prefix = self.irrelevant_prefixes.iter().any(|prefix| name.starts_with(prefix));
        let listed = self.irrelevant.iter().find(|(_, names)| names.contains(&name)).map(|&(reason, _)| reason);
        listed.or(by_prefix.then_some(Reason::Metadata))
    }

    /// Returns the expectation that a field fails to meet; `None` if the field is accepted.
    fn expected(&self, name: &str, value: &Value) -> Option<String> {
        if value.is_null() || self.read.contains(&name) || self.reason(name).is_some() {
            return None;
        }
        match self.neutral.iter().find(|(field, _)| *field == name) {
            Some((_, values)) if values.iter().any(|neutral| neutral.matches(value)) => None,
            Some((_, [])) => Some("only null is supported".to_owned()),
            Some((_, values)) => {
                let values: Vec<String> = values.iter().map(|value| value.describe()).collect();
                Some(format!("only {} is supported", values.join(" or ")))
            }
            None if *value == Value::Bool(false) || is_empty(value) => None,
            None => Some(
                "this field is unknown and may change the model; remove it if the model is the same without it"
                    .to_owned(),
            ),
        }
    }
}

/// Returns whether a value is an empty string, list or object.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FIELDS: KnownFields = KnownFields {
        read: &["size"],
        irrelevant: &[(Reason::Metadata, &["version"]), (Reason::Training, &["dropout"])],
        irrelevant_prefixes: &["tool_"],
        neutral: &[
            ("causal", &[Neutral::True]),
            ("scale", &[Neutral::Number(1.0), Neutral::Each(1.0)]),
            ("kind", &[Neutral::Text("plain"), Neutral::Empty]),
            ("future", &[]),
        ],
    };

    fn expected(name: &str, value: Value) -> Option<String> {
        let object = json!({ name: value });
        FIELDS.rejected(object.as_object().unwrap()).map(|field| field.expected)
    }

    #[test]
    fn each_field_is_read_irrelevant_neutral_or_rejected() {
        for (name, value) in [
            ("size", json!("any")),
            ("version", json!({"a": 1})),
            ("dropout", json!(0.5)),
            ("tool_name", json!(3)),
            ("causal", json!(true)),
            ("causal", Value::Null),
            ("scale", json!(1)),
            ("scale", json!([1, 1.0])),
            ("kind", json!("plain")),
            ("kind", json!({})),
            ("future", Value::Null),
            ("unknown", Value::Null),
            ("unknown", json!(false)),
            ("unknown", json!([])),
            ("unknown", json!("")),
        ] {
            assert_eq!(expected(name, value.clone()), None, "{name} {value}");
        }
        for (name, value, message) in [
            ("causal", json!(false), "only true is supported"),
            ("scale", json!(1.5), "only 1 or a list whose elements are all 1 is supported"),
            ("scale", json!([1, 2]), "only 1 or a list whose elements are all 1 is supported"),
            ("kind", json!("odd"), "only plain or an empty value is supported"),
            ("future", json!(false), "only null is supported"),
            ("unknown", json!(true), "this field is unknown"),
            ("unknown", json!(0), "this field is unknown"),
            ("unknown", json!({"a": null}), "this field is unknown"),
        ] {
            let expected = expected(name, value.clone());
            assert!(
                expected.as_ref().is_some_and(|expected| expected.contains(message)),
                "{name} {value} {expected:?}"
            );
        }
    }

    #[test]
    fn reasons_come_from_the_table() {
        let reasons = ["version", "dropout", "tool_x", "size"].map(|name| FIELDS.reason(name));
        assert_eq!(reasons, [Some(Reason::Metadata), Some(Reason::Training), Some(Reason::Metadata), None]);
    }
}
