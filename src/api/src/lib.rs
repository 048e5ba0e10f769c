//! Wire types shared by server and client: requests, responses and problems.
//!
//! Start with `logprobs`, the types of `/logprobs`. Each route has a file with its request and its response. Everything here is
//! plain data: the server validates a request, and a client only has to build it:
//!
//! ```
//! use surprisal_api::{Detail, LogprobsRequest, QuerySpec, Text};
//!
//! let request = LogprobsRequest {
//!     queries: Some(vec![QuerySpec::new(Text::from("It was"), Text::from(" a dark night"))]),
//!     detail: Detail::Tokens,
//!     ..LogprobsRequest::default()
//! };
//! let json = serde_json::to_value(&request)?;
//! assert_eq!(json["queries"][0]["target"], " a dark night");
//! assert_eq!(json["detail"], "tokens");
//! # Ok::<(), serde_json::Error>(())
//! ```

mod completions;
mod generate;
mod logprobs;
mod model;
mod problem;
mod prompts;
mod text;
#[cfg(feature = "schemas")]
mod tuples;

pub use completions::{
    Choice, ChoiceLogprobs, CompletionsRequest, CompletionsResponse, CompletionsUsage, PromptLogprob, StreamOptions,
};
pub use generate::{
    FinishReason, GenerateMeta, GenerateRequest, GenerateResponse, GenerateResponses, Matched, SamplingParams,
    TokenLogprob,
};
pub use logprobs::{
    ARROW_STREAM, Bos, Detail, LogprobsRequest, LogprobsResponse, NDJSON, Pairs, QueryResult, QuerySpec, StreamLine,
    Usage,
};
pub use model::{
    DetokenizeRequest, DetokenizeResponse, ModelInfo, ModelList, TokenizeRequest, TokenizeResponse, TokenizerInfo,
};
pub use problem::{PROBLEM_JSON, Problem};
pub use prompts::{Prompts, Stops};
pub use text::Text;
