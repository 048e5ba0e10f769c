//! The binary as a person uses it, one module for each purpose.

#![allow(clippy::unwrap_used)]

mod bench;
mod doctor;
mod report;
mod serve;
mod settings;
#[path = "../support/mod.rs"]
mod support;
mod usage;
