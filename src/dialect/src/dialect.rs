//! The dialects, their names and paths.

/// The API in which a server is asked for log-probabilities. Every dialect sends token ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `POST /logprobs` of a surprisal server.
    #[default]
    Surprisal,
    /// `POST /v1/completions` with vLLM's `prompt_logprobs`.
    Vllm,
    /// `POST /generate` of SGLang with `return_logprob`.
    Sglang,
    /// `POST /v1/completions` with `echo` and `logprobs`, as OpenAI's first servers had it and many others have.
    OpenAi,
    /// `POST /completion` of llama.cpp's server. It has no log-probabilities of a prompt: the texts go through the model and the
    /// answer has none, so the server does less work than the others.
    LlamaCpp,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 5] = [Self::Surprisal, Self::Vllm, Self::Sglang, Self::OpenAi, Self::LlamaCpp];

    /// Returns the name by which users choose the dialect.
    pub fn name(self) -> &'static str {
        match self {
            Self::Surprisal => "surprisal",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::OpenAi => "openai",
            Self::LlamaCpp => "llamacpp",
        }
    }

    /// Returns the path of requests.
    pub fn path(self) -> &'static str {
        match self {
            Self::Surprisal => "/logprobs",
            Self::Vllm | Self::OpenAi => "/v1/completions",
            Self::Sglang => "/generate",
            Self::LlamaCpp => "/completion",
        }
    }
}
