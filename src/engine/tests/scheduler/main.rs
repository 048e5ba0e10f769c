//! Tests of the scheduler and the cache with a backend whose answers are hashes of all tokens that it can see.
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
