//! The dialects, with their names and paths.

/// A server's API for log-probabilities. Every dialect sends token ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `POST /logprobs` of a surprisal server.
    #[default]
    Surprisal,
    /// `POST /v1/completions` with vLLM's `prompt_logprobs`.
    Vllm,
    /// `POST /generate` of SGLang with `return_logprob`.
    Sglang,
    /// `POST /v1/completions` with `echo` and `logprobs`, as in OpenAI's original API and many other servers.
    OpenAi,
    /// `POST /completion` of llama.cpp's server. This API cannot return log-probabilities of a prompt: the prompt
    /// goes through the model, but the response has no log-probabilities, so this server does less work than others.
    LlamaCpp,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 5] = [Self::Surprisal, Self::Vllm, Self::Sglang, Self::OpenAi, Self::LlamaCpp];

    /// Returns the name by which users select the dialect.
    pub fn name(self) -> &'static str {
        match self {
            Self::Surprisal => "surprisal",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::OpenAi => "openai",
            Self::LlamaCpp => "llamacpp",
        }
    }

    /// Returns the URL path that requests are sent to.
    pub fn path(self) -> &'static str {
        match self {
            Self::Surprisal => "/logprobs",
            Self::Vllm | Self::OpenAi => "/v1/completions",
            Self::Sglang => "/generate",
            Self::LlamaCpp => "/completion",
        }
    }
}
