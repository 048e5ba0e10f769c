//! Dialects: the formats of requests for log-probabilities, and of their responses, for each kind of server.
//!
//! A [`Dialect`] names a path, writes the body of a [`Request`] for a [`Batch`] of queries, and reads the [`Response`].
//! [`Logprobs::of_target`] finds a target's log-probabilities in a result, and checks that the result belongs to the
//! query and that its values can be log-probabilities. This crate sends nothing. The caller sends the request, reads at
//! most [`Dialect::max_response_bytes`], and checks the number of results.
//!
//! ```
//! use surprisal_dialect::{Batch, Dialect, Logprobs, Query, Request, SglangOptions};
//!
//! let batch = Batch::Queries { queries: vec![Query { context: &[5, 6], target: &[7] }], bos: Some(1) };
//! let request = Request { model: "m", batch: &batch, sglang: SglangOptions::default() };
//! let body = serde_json::to_string(&Dialect::Vllm.body(&request))?;
//! assert!(body.contains(r#""prompt":[[1,5,6,7]],"prompt_logprobs":0"#));
//!
//! let response = br#"{"choices": [{"index": 0, "prompt_logprobs": [null, null, null, {"7": {"logprob": -0.5}}]}]}"#;
//! let response = Dialect::Vllm.read::<f64>(&batch, response)?;
//! assert_eq!(response.results, [Logprobs::Prompt(vec![None, None, None, Some(-0.5)])]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod alignment;
mod batch;
mod check;
mod dialect;
mod request;
mod response;
mod size;

pub use batch::{Batch, Query};
pub use check::{check_logprobs, check_token_ids};
pub use dialect::Dialect;
pub use request::{Request, SglangOptions, SglangStart};
pub use response::{Logprobs, ReadError, Response};
