//! The server over a real socket: what it answers, what it refuses, and how it behaves when it is full or told to stop.

#![allow(clippy::unwrap_used)]

mod answers;
#[cfg(feature = "arrow")]
mod arrow;
mod auth;
mod bulk;
mod completions;
mod generate;
mod killed;
mod load;
mod openapi;
mod outside;
mod page;
mod problems;
#[cfg(feature = "otlp")]
mod spans;
mod stepped;
mod support;
mod turns;
mod writing;
