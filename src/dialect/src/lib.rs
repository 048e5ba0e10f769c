//! Dialects: how each kind of server takes a request for log-probabilities, and what its answer looks like.
//!
//! A [`Dialect`] names a path, writes the body of a [`Request`] for a [`Batch`] of queries, and reads the [`Answer`]. Nothing here
//! sends anything. Whoever sends a request checks its answer: the number of results, and the log-probabilities in them.
//!
//! ```
//! use surprisal_dialect::{Batch, Dialect, Logprobs, Query, Request, SglangOptions};
//!
//! let batch = Batch::Queries { queries: vec![Query { context: &[5, 6], target: &[7] }], bos: Some(1) };
//! let request = Request { model: "m", batch: &batch, sglang: SglangOptions::default() };
//! let body = serde_json::to_string(&Dialect::Vllm.body(&request))?;
//! assert!(body.contains(r#""prompt":[[1,5,6,7]],"prompt_logprobs":0"#));
//!
//! let answer = br#"{"choices": [{"index": 0, "prompt_logprobs": [null, null, null, {"7": {"logprob": -0.5}}]}]}"#;
//! let answer = Dialect::Vllm.read::<f64>(&batch, answer)?;
//! assert_eq!(answer.results, [Logprobs::Prompt(vec![None, None, None, Some(-0.5)])]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod batch;
mod dialect;
mod request;

pub use answer::{Answer, Logprobs, ReadError};
pub use batch::{Batch, Query};
pub use dialect::Dialect;
pub use request::{Request, SglangOptions, SglangStart};
