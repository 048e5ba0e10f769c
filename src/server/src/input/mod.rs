//! From a parsed request to token ids: the encoding of texts, and the checks that several routes share.
//!
//! Start with `encode`. Checks of one route alone stand with the route.

pub(crate) mod encode;
pub(crate) mod validate;
