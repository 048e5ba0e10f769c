//! The server over a real socket: its responses, its problems, and its behavior under overload and at shutdown.

#![allow(clippy::unwrap_used)]

#[cfg(feature = "arrow")]
mod arrow;
mod auth;
mod bodies;
mod completions;
mod connections;
mod cors;
mod disconnects;
mod fairness;
mod generate;
mod generation;
mod isolation;
mod leniency;
mod limits_reference;
mod logprobs;
mod openapi;
mod overload;
mod page;
mod problems;
mod reference;
mod requests;
mod routes;
mod sglang;
mod shutdown;
#[cfg(feature = "otlp")]
mod spans;
mod streaming;
mod support;
mod telemetry;
mod texts;
mod tls;
mod unread;
mod vllm_format;
mod vllm_requests;
mod window;
