//! Visitors that wrap others: they coerce scalars, and store faults on their way through a foreign deserializer.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, Visitor};

use super::Lax;
use super::containers::{Array, Object};
use crate::transport::json::coerce::{self, Kind};
use crate::transport::json::fault::{Fault, State};

/// A visitor of an enum without data, whose variants are strings on the wire.
pub(super) struct WordVisitor<V>(pub(super) V);

impl<'de, V: Visitor<'de>> Visitor<'de> for WordVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<V::Value, E> {
        self.0.visit_enum(StrDeserializer::new(word))
    }
}

/// A visitor that wraps another one.
pub(super) struct Relay<'s, V> {
    pub(super) visitor: V,
    pub(super) kind: Kind,
    pub(super) state: &'s State,
    /// `true` if scalars are not coerced.
    pub(super) is_strict: bool,
}

impl<'de, V: Visitor<'de>> Relay<'_, V> {
    /// Calls the inner visitor, and stores its fault.
    fn call<E: Error>(self, visit: impl FnOnce(V) -> Result<V::Value, Fault>) -> Result<V::Value, E> {
        let Self { visitor, kind, state, .. } = self;
        visit(visitor).map_err(|fault| {
            // The visitor itself describes what it expects, unless it is one of serde's own.
            state.store(if let Kind::Any = kind { fault } else { fault.expecting(&kind.to_string()) })
        })
    }

    fn reject<E: Error>(self, found: Unexpected<'_>) -> Result<V::Value, E> {
        let fault = match self.kind {
            Kind::Any => Fault::invalid_type(found, &self.visitor),
            kind => Fault::wrong_type(found.into(), kind),
        };
        Err(self.state.store(fault))
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Relay<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<V::Value, E> {
        match self.kind {
            Kind::Integer { .. } | Kind::Float if !self.is_strict => {
                self.call(|visitor| visitor.visit_u64(flag.into()))
            }
            _ => self.call(|visitor| visitor.visit_bool(flag)),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<V::Value, E> {
        self.call(|visitor| visitor.visit_i64(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<V::Value, E> {
        match self.kind {
            Kind::Flag if !self.is_strict && number <= 1 => self.call(|visitor| visitor.visit_bool(number == 1)),
            _ => self.call(|visitor| visitor.visit_u64(number)),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<V::Value, E> {
        match (self.kind, coerce::flag_from_number(number), coerce::integer_from_float(number)) {
            _ if self.is_strict => self.call(|visitor| visitor.visit_f64(number)),
            (Kind::Flag, Some(flag), _) => self.call(|visitor| visitor.visit_bool(flag)),
            (Kind::Integer { .. }, _, Some(whole)) => self.call(|visitor| visitor.visit_i64(whole)),
            _ => self.call(|visitor| visitor.visit_f64(number)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        if self.is_strict {
            return self.call(|visitor| visitor.visit_str(text));
        }
        match self.kind {
            Kind::Flag => match coerce::flag_from_word(text) {
                Some(flag) => self.call(|visitor| visitor.visit_bool(flag)),
                None => self.reject(Unexpected::Str(text)),
            },
            Kind::Integer { .. } => match coerce::integer_from_text(text) {
                Some(number) => self.call(|visitor| visitor.visit_i64(number)),
                None => self.reject(Unexpected::Str(text)),
            },
            Kind::Float => match coerce::float_from_text(text) {
                Some(number) => self.call(|visitor| visitor.visit_f64(number)),
                None => self.reject(Unexpected::Str(text)),
            },
            _ => self.call(|visitor| visitor.visit_str(text)),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.call(Visitor::visit_unit)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.call(Visitor::visit_none)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let (state, is_strict) = (self.state, self.is_strict);
        self.call(|visitor| visitor.visit_some(Lax { inner, state, is_strict }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        // Serde's derived visitors accept an object's values in the order of its fields.
        if let Kind::Object { .. } = self.kind {
            return self.reject(Unexpected::Seq);
        }
        let state = self.state;
        self.call(|visitor| {
            let mut array = Array::new(inner, state);
            let value = visitor.visit_seq(&mut array)?;
            array.end()?;
            Ok(value)
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let (state, kind) = (self.state, self.kind);
        self.call(|visitor| visitor.visit_map(Object::new(inner, state, kind)))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<V::Value, A::Error> {
        // JSON has no enums, and `deserialize_any` never asks for one.
        self.reject(Unexpected::Enum)
    }
}
