//! Encoding of a request's texts as token ids, and the checks that several routes share.
//!
//! Start with `encode`. A check that only one route needs is in that route's module.

pub(crate) mod encode;
pub(crate) mod validate;
