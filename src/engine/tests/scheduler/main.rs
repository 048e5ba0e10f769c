//! The scheduler and the cache, against a backend whose every answer is a hash of all tokens it can see.
//!
//! `hash_backend.rs` is that backend, `driver.rs` the loop around the scheduler; the tests are in `scoring.rs`,
//! `reuse.rs` and `generation.rs`.

#![allow(clippy::unwrap_used)]

mod driver;
mod generation;
mod hash_backend;
mod reuse;
mod scoring;
mod strategies;
