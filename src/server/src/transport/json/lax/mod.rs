//! `Lax`: a deserializer that wraps another one, coerces scalars, and describes errors.
//!
//! `relay` wraps visitors; `containers` wraps arrays and objects.

mod containers;
mod relay;

use serde::de::{Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use self::relay::{Relay, WordVisitor};
use super::coerce::Kind;
use super::fault::{Fault, State};

/// A deserializer that wraps another one.
pub(super) struct Lax<'s, D> {
    inner: D,
    state: &'s State,
    /// `true` if scalars are not coerced: in arrays.
    is_strict: bool,
}

impl<'s, D> Lax<'s, D> {
    pub(super) fn new(inner: D, state: &'s State) -> Self {
        Self { inner, state, is_strict: false }
    }

    /// Wraps the deserializer of an element of an array.
    pub(super) fn element(inner: D, state: &'s State) -> Self {
        Self { inner, state, is_strict: true }
    }
}

impl<'de, D: Deserializer<'de>> Lax<'_, D> {
    fn read<V: Visitor<'de>>(self, visitor: V, kind: Kind) -> Result<V::Value, Fault> {
        let Self { inner, state, is_strict } = self;
        let relay = Relay { visitor, kind, state, is_strict };
        inner.deserialize_any(relay).map_err(|error| state.take(&error))
    }
}

/// Implements the methods for integers.
macro_rules! integers {
    ($($method:ident $min:expr, $max:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.read(visitor, Kind::Integer { min: $min, max: $max })
        })*
    };
}

/// Implements the methods for types that need no arguments.
macro_rules! kinds {
    ($($method:ident $kind:expr),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.read(visitor, $kind)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Lax<'_, D> {
    type Error = Fault;

    integers! {
        deserialize_u8 0, u8::MAX.into();
        deserialize_u16 0, u16::MAX.into();
        deserialize_u32 0, u32::MAX.into();
        deserialize_u64 0, u64::MAX;
        deserialize_i8 i8::MIN.into(), i8::MAX as u64;
        deserialize_i16 i16::MIN.into(), i16::MAX as u64;
        deserialize_i32 i32::MIN.into(), i32::MAX as u64;
        deserialize_i64 i64::MIN, i64::MAX as u64;
    }

    kinds! {
        deserialize_any Kind::Any, deserialize_bool Kind::Flag, deserialize_f32 Kind::Float,
        deserialize_f64 Kind::Float, deserialize_str Kind::String, deserialize_string Kind::String,
        deserialize_seq Kind::Array
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Self { inner, state, is_strict } = self;
        let relay = Relay { visitor, kind: Kind::Any, state, is_strict };
        inner.deserialize_option(relay).map_err(|error| state.take(&error))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.read(visitor, Kind::Array)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        type_name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.read(visitor, Kind::Object { type_name, fields })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.read(WordVisitor(visitor), Kind::Word(variants))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Self { inner, state, .. } = self;
        let relay = Relay { visitor, kind: Kind::Any, state, is_strict: true };
        inner.deserialize_ignored_any(relay).map_err(|error| state.take(&error))
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple_struct map identifier
    }
}
