//! Tests of the scheduler and the cache with a backend whose answers are hashes of all tokens that it can see.
//!
//! `hash_backend.rs` is that backend, `driver.rs` the loop around the scheduler; the tests are in `scoring.rs`,
//! `reuse.rs`, `namespaces.rs`, `generation.rs` and `full_cache.rs`.

#![allow(clippy::unwrap_used)]

mod driver;
mod full_cache;
mod generation;
mod hash_backend;
mod namespaces;
mod reuse;
mod scoring;
mod strategies;
