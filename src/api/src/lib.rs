//! Wire types shared by the server and its clients: requests, responses and problems.
//!
//! Start with `logprobs`, the types of `/logprobs`. The other modules contain the types of the other routes, and types
//! that several routes share. Everything here is plain data: a client builds a request, and the server validates it.
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
mod lenient;
mod logprobs;
mod model;
mod neutral;
mod ordered;
mod problem;
mod prompts;
mod text;
mod token_options;
#[cfg(feature = "schemas")]
mod tuples;

pub use completions::{
    Choice, ChoiceLogprobs, CompletionsRequest, CompletionsResponse, CompletionsUsage, PromptLogprob,
    PromptTokensDetails, StreamOptions,
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
    ChatMessages, DetokenizeRequest, DetokenizeResponse, ModelInfo, ModelList, ServerLoad, SglangEngineState,
    SglangModelInfo, SglangServerInfo, TokenizeRequest, TokenizeResponse, TokenizerInfo, VersionInfo,
};
pub use neutral::{Neutral, NeutralField, neutral_fields};
pub use ordered::OrderedMap;
pub use problem::{ErrorObject, PROBLEM_JSON, Problem};
pub use prompts::{Prompts, Stops};
pub use text::Text;
pub use token_options::{Boundary, OffsetUnit, TokenText};
