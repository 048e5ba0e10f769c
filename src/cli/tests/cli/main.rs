//! Tests of the binary as a user runs it, one module per purpose.

#![allow(clippy::unwrap_used)]

mod bench;
mod doctor;
mod operation;
mod report;
mod serve;
mod settings;
#[path = "../support/mod.rs"]
mod support;
mod usage;
