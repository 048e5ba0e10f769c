//! Wire types shared by server and client: requests, responses and problems.
//!
//! Everything here is plain data. A request is validated by the server; a client only has to build it:
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
mod problem;
mod request;
mod response;
#[cfg(feature = "schemas")]
mod schemas;
mod text;

pub use completions::{
    Choice, ChoiceLogprobs, CompletionsRequest, CompletionsResponse, CompletionsUsage, PromptLogprob, Prompts, Stops,
    StreamOptions,
};
pub use generate::{
    FinishReason, GenerateMeta, GenerateRequest, GenerateResponse, GenerateResponses, Matched, SamplingParams,
    TokenLogprob,
};
pub use problem::{PROBLEM_JSON, Problem};
pub use request::{Bos, Detail, LogprobsRequest, Pairs, QuerySpec};
pub use response::{
    ARROW_STREAM, DetokenizeRequest, DetokenizeResponse, LogprobsResponse, ModelInfo, ModelList, NDJSON, QueryResult,
    StreamLine, TokenizeRequest, TokenizeResponse, TokenizerInfo, Usage,
};
pub use text::Text;
