//! Arrays and objects of a body, which add their part of a fault's path.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use surprisal_api::neutral_fields;

use super::Lax;
use crate::transport::json::coerce::Kind;
use crate::transport::json::fault::{Fault, Found, Segment, State};
use crate::transport::json::neutral;

/// An array that is being read.
pub(super) struct Array<'s, A> {
    inner: A,
    state: &'s State,
    /// Number of elements read.
    length: usize,
    is_finished: bool,
}

impl<'de, 's, A: SeqAccess<'de>> Array<'s, A> {
    pub(super) fn new(inner: A, state: &'s State) -> Self {
        Self { inner, state, length: 0, is_finished: false }
    }

    /// Rejects elements that the visitor has not read, because the type has a fixed length.
    pub(super) fn end(mut self) -> Result<(), Fault> {
        let length = self.length;
        let mut array = &mut self;
        while !array.is_finished {
            array.next_element::<IgnoredAny>()?;
        }
        if self.length == length {
            return Ok(());
        }
        Err(Fault::wrong_type(Found::Array(Some(self.length)), format!("an array of length {length}")))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for &mut Array<'_, A> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let (state, index) = (self.state, self.length);
        let next = self.inner.next_element_seed(Value { seed, state, is_element: true });
        let next = next.map_err(|error| state.take(&error).at(Segment::Index(index)))?;
        self.length += usize::from(next.is_some());
        self.is_finished = next.is_none();
        Ok(next)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// An object that is being read.
pub(super) struct Object<'de, 's, A> {
    inner: A,
    state: &'s State,
    kind: Kind,
    /// Key of the value that comes next.
    key: Cow<'de, str>,
}

impl<'s, A> Object<'_, 's, A> {
    pub(super) fn new(inner: A, state: &'s State, kind: Kind) -> Self {
        Self { inner, state, kind, key: Cow::Borrowed("") }
    }
}

impl<'de, A: MapAccess<'de>> Object<'de, '_, A> {
    fn next_value<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let state = self.state;
        let value = self.inner.next_value_seed(Value { seed, state, is_element: false });
        value.map_err(|error| state.take(&error).at(Segment::Key(self.key.to_string())))
    }

    /// Checks the value of a field that the server does not implement. Returns `false` if the key is no such field.
    fn skip_neutral(&mut self) -> Result<bool, Fault> {
        let Kind::Object { type_name, fields } = self.kind else { return Ok(false) };
        if fields.contains(&self.key.as_ref()) {
            return Ok(false);
        }
        let Some(field) = neutral_fields(type_name).iter().find(|field| field.name == self.key) else {
            return Ok(false);
        };
        let outline = self.next_value(neutral::OutlineSeed)?;
        match neutral::check(field, &outline) {
            Ok(()) => Ok(true),
            Err(fault) => Err(fault.at(Segment::Key(self.key.to_string()))),
        }
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Object<'de, '_, A> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        loop {
            let key = self.inner.next_key_seed(Key).map_err(|error| self.state.take(&error))?;
            let Some(key) = key else { return Ok(None) };
            self.key = key;
            if !self.skip_neutral()? {
                return seed.deserialize(self.key.as_ref().into_deserializer()).map(Some);
            }
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        self.next_value(seed)
    }
}

/// The seed of an element or a member's value, which wraps the deserializer.
struct Value<'s, T> {
    seed: T,
    state: &'s State,
    is_element: bool,
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Value<'_, T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T::Value, D::Error> {
        let state = self.state;
        let lax = if self.is_element { Lax::element(inner, state) } else { Lax::new(inner, state) };
        self.seed.deserialize(lax).map_err(|fault| state.store(fault))
    }
}

/// The seed of a key, which borrows it if it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}
