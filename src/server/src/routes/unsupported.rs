//! Routes of OpenAI, vLLM, SGLang and others that this server does not have, and advice for their
//! clients.

/// Advice for clients of chat routes.
const CHAT: &str = "chat is not supported: apply the model's chat template, and send the text to /v1/completions with \
    \"add_special_tokens\": false";

/// Advice for clients of routes for embeddings, classes or scores.
const POOLING: &str =
    "the model has no embeddings, classes or reward scores; for log-probabilities of texts, use /logprobs";

/// Advice for clients that reset the cache.
const CACHE: &str = "the prefix cache cannot be reset: it changes no result, only latency";

/// Advice for clients that tokenize.
const TOKENIZER: &str = "use /tokenize, /detokenize and /tokenizer_info";

/// Advice for clients that change the served model.
const FIXED_MODEL: &str = "the served model cannot be changed; restart the server with another model";

/// Unsupported routes by the beginning of their path, and the advice for each.
const ROUTES: [(&str, &str); 31] = [
    ("/v1/chat/", CHAT),
    ("/v1/responses", CHAT),
    ("/v1/messages", CHAT),
    ("/v1/assistants", CHAT),
    ("/v1/threads", CHAT),
    ("/api/chat", CHAT),
    ("/chat/completions", CHAT),
    ("/inference/v1/generate", "use /v1/completions or /generate"),
    ("/api/generate", "use /v1/completions or /generate"),
    ("/generate_stream", "use /generate with \"stream\": true"),
    ("/completions", "use /v1/completions"),
    ("/completion", "use /v1/completions"),
    ("/models", "use /v1/models"),
    ("/api/", "Ollama's API is not supported; use /v1/completions"),
    ("/generative_scoring", "use /logprobs with `subset`, or with one target per label"),
    ("/v1/score", "for log-probabilities of texts, use /logprobs"),
    ("/score", "for log-probabilities of texts, use /logprobs"),
    ("/v1/embeddings", POOLING),
    ("/v1/rerank", POOLING),
    ("/v1/classify", POOLING),
    ("/rerank", POOLING),
    ("/pooling", POOLING),
    ("/classify", POOLING),
    ("/encode", POOLING),
    ("/invocations", "use /v1/completions"),
    ("/v1/tokenize", TOKENIZER),
    ("/v1/detokenize", TOKENIZER),
    ("/flush_cache", CACHE),
    ("/reset_prefix_cache", CACHE),
    ("/v1/load_lora_adapter", FIXED_MODEL),
    ("/update_weights", FIXED_MODEL),
];

/// Returns advice for the client of an unknown route.
pub(super) fn advice(path: &str) -> &'static str {
    let known = ROUTES.iter().find(|(prefix, _)| path.starts_with(prefix));
    known.map_or("see /openapi.json", |&(_, advice)| advice)
}
