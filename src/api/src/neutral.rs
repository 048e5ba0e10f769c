//! Fields of other servers' requests that this server does not implement, and their values that change nothing.
//!
//! The server accepts such a value and rejects every other one by name.

use std::fmt;

/// A field that a request may contain with a value that changes nothing. Null always changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct NeutralField {
    /// Name of the field.
    pub name: &'static str,
    /// Values that change nothing, in addition to null.
    pub values: &'static [Neutral],
    /// Reason why no other value is accepted, or why all are.
    pub reason: &'static str,
}

/// A value, or a set of values, that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Neutral {
    /// Every value.
    Any,
    /// A flag.
    Flag(bool),
    /// A number.
    Number(f64),
    /// A string.
    Word(&'static str),
    /// An array that is empty or has only nulls, or an empty object.
    Empty,
    /// An object with only one member that is not null, `"type": "text"`.
    TextFormat,
}

impl NeutralField {
    /// Returns the accepted values in words, such as `0`.
    pub fn expected(&self) -> String {
        let words: Vec<String> = self.values.iter().map(ToString::to_string).collect();
        if words.is_empty() { "null".to_owned() } else { words.join(" or ") }
    }
}

impl fmt::Display for Neutral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Neutral::Any => f.write_str("any value"),
            Neutral::Flag(flag) => flag.fmt(f),
            Neutral::Number(number) => number.fmt(f),
            Neutral::Word(word) => write!(f, "\"{word}\""),
            Neutral::Empty => f.write_str("null or empty"),
            Neutral::TextFormat => f.write_str(r#"{"type": "text"}"#),
        }
    }
}

/// Returns the neutral fields of a request type, by its name.
pub fn neutral_fields(type_name: &str) -> &'static [NeutralField] {
    match type_name {
        "CompletionsRequest" => COMPLETIONS,
        "StreamOptions" => STREAM_OPTIONS,
        "GenerateRequest" => GENERATE,
        "SamplingParams" => SAMPLING_PARAMS,
        "TokenizeRequest" => TOKENIZE,
        _ => &[],
    }
}

const NULL: &[Neutral] = &[];
const ANY: &[Neutral] = &[Neutral::Any];
const ON: &[Neutral] = &[Neutral::Flag(true)];
const OFF: &[Neutral] = &[Neutral::Flag(false)];
const ZERO: &[Neutral] = &[Neutral::Number(0.0)];
const ONE: &[Neutral] = &[Neutral::Number(1.0)];
const MINUS_ONE: &[Neutral] = &[Neutral::Number(-1.0)];
const EMPTY: &[Neutral] = &[Neutral::Empty];
const EMPTY_TEXT: &[Neutral] = &[Neutral::Word("")];
const TEXT_FORMAT: &[Neutral] = &[Neutral::TextFormat];
const DEFAULT_TIER: &[Neutral] = &[Neutral::Word("auto"), Neutral::Word("default")];

const LABEL: &str = "Ignored: the field only labels the request, or advises a router";
const NO_PENALTIES: &str = "penalties are not supported";
const NO_CONSTRAINTS: &str = "constraints on sampled tokens are not supported";
const NO_BEAMS: &str = "beam search is not supported";
const NO_MINIMUM: &str = "minimum lengths are not supported";
const NO_TRUNCATION: &str = "the server never truncates prompts";
const NO_SPECIALS: &str = "the generated text never contains special tokens";
const NO_STOP_TEXT: &str = "the generated text never contains the stop string";
const OTHER_SALT: &str = "send `cache_salt` to separate prefix caches";
const NO_TRANSFER: &str = "disaggregated serving is not supported";
const NO_ADAPTERS: &str = "adapters are not supported";
const NO_MEDIA: &str = "only text and token ids are supported";
const NO_DETAILS: &str = "this detail of the response is not supported";
const NO_EXTENSIONS: &str = "extensions are not supported";
const NO_SESSIONS: &str = "sessions are not supported";
const NO_STORAGE: &str = "the server stores no requests";
const NO_REASONING: &str = "reasoning models are not supported";
const CHAT_ONLY: &str = "Ignored: only chat messages use it";
const NO_EFFECT: &str = "Ignored: the field affects neither the text nor its log-probabilities";

const fn field(name: &'static str, values: &'static [Neutral], reason: &'static str) -> NeutralField {
    NeutralField { name, values, reason }
}

/// Fields of `/tokenize` in vLLM.
const TOKENIZE: &[NeutralField] = &[
    field("add_generation_prompt", ANY, CHAT_ONLY),
    field("continue_final_message", ANY, CHAT_ONLY),
    field("chat_template", ANY, CHAT_ONLY),
    field("chat_template_kwargs", ANY, CHAT_ONLY),
    field("tools", ANY, CHAT_ONLY),
    field("media_io_kwargs", ANY, CHAT_ONLY),
    field("mm_processor_kwargs", ANY, CHAT_ONLY),
];

/// Fields of `/v1/completions` in OpenAI's API, in vLLM and in SGLang.
const COMPLETIONS: &[NeutralField] = &[
    field("presence_penalty", ZERO, NO_PENALTIES),
    field("frequency_penalty", ZERO, NO_PENALTIES),
    field("repetition_penalty", ONE, NO_PENALTIES),
    field("repetition_detection", NULL, NO_PENALTIES),
    field("min_p", ZERO, NO_CONSTRAINTS),
    field("logit_bias", EMPTY, NO_CONSTRAINTS),
    field("allowed_token_ids", NULL, NO_CONSTRAINTS),
    field("bad_words", EMPTY, NO_CONSTRAINTS),
    field("logits_processors", EMPTY, NO_CONSTRAINTS),
    field("custom_logit_processor", NULL, NO_CONSTRAINTS),
    field("watermarking", OFF, NO_CONSTRAINTS),
    field("response_format", TEXT_FORMAT, NO_CONSTRAINTS),
    field("structured_outputs", NULL, NO_CONSTRAINTS),
    field("structural_tag", NULL, NO_CONSTRAINTS),
    field("guided_json", NULL, NO_CONSTRAINTS),
    field("guided_regex", NULL, NO_CONSTRAINTS),
    field("guided_choice", NULL, NO_CONSTRAINTS),
    field("guided_grammar", NULL, NO_CONSTRAINTS),
    field("guided_decoding_backend", NULL, NO_CONSTRAINTS),
    field("guided_whitespace_pattern", NULL, NO_CONSTRAINTS),
    field("json_schema", NULL, NO_CONSTRAINTS),
    field("regex", NULL, NO_CONSTRAINTS),
    field("ebnf", NULL, NO_CONSTRAINTS),
    field("stop_regex", EMPTY, NO_CONSTRAINTS),
    field("use_beam_search", OFF, NO_BEAMS),
    field("early_stopping", OFF, NO_BEAMS),
    field("length_penalty", ANY, "Ignored: only beam search uses it"),
    field("min_tokens", ZERO, NO_MINIMUM),
    field("suffix", EMPTY_TEXT, "insertion of text is not supported"),
    field("truncate_prompt_tokens", NULL, NO_TRUNCATION),
    field("truncation_side", ANY, "Ignored: the server never truncates prompts"),
    field("skip_special_tokens", ON, NO_SPECIALS),
    field("spaces_between_special_tokens", ANY, NO_EFFECT),
    field("include_stop_str_in_output", OFF, NO_STOP_TEXT),
    field("no_stop_trim", OFF, NO_STOP_TEXT),
    field("logprob_token_ids", NULL, NO_DETAILS),
    field("packed_top_logprobs", OFF, NO_DETAILS),
    field("return_token_offsets", OFF, NO_DETAILS),
    field("return_hidden_states", OFF, NO_DETAILS),
    field("return_routed_experts", OFF, NO_DETAILS),
    field("return_weight_versions", OFF, NO_DETAILS),
    field("routed_experts_prompt_start", ZERO, NO_DETAILS),
    field("return_mm_kwargs", ANY, NO_EFFECT),
    field("mm_processor_kwargs", EMPTY, NO_MEDIA),
    field("prompt_embeds", EMPTY, NO_MEDIA),
    field("extra_key", NULL, OTHER_SALT),
    field("kv_transfer_params", NULL, NO_TRANSFER),
    field("ec_transfer_params", NULL, NO_TRANSFER),
    field("data_parallel_rank", NULL, NO_TRANSFER),
    field("vllm_xargs", EMPTY, NO_EXTENSIONS),
    field("custom_params", EMPTY, NO_EXTENSIONS),
    field("lora_path", NULL, NO_ADAPTERS),
    field("session_params", NULL, NO_SESSIONS),
    field("thinking_token_budget", MINUS_ONE, NO_REASONING),
    field("stream_interval", ANY, NO_EFFECT),
    field("store", OFF, NO_STORAGE),
    field("service_tier", DEFAULT_TIER, "there is one service tier"),
    field("user", ANY, LABEL),
    field("metadata", ANY, LABEL),
    field("safety_identifier", ANY, LABEL),
    field("prompt_cache_key", ANY, LABEL),
    field("prompt_cache_retention", ANY, LABEL),
    field("session_id", ANY, LABEL),
    field("rid", ANY, LABEL),
];

/// Fields of `stream_options` in OpenAI's API.
const STREAM_OPTIONS: &[NeutralField] =
    &[field("include_obfuscation", OFF, "the server adds no random text to the events of a stream")];

/// Fields of `/generate` in SGLang.
const GENERATE: &[NeutralField] = &[
    field("input_embeds", NULL, NO_MEDIA),
    field("image_data", EMPTY, NO_MEDIA),
    field("video_data", EMPTY, NO_MEDIA),
    field("audio_data", EMPTY, NO_MEDIA),
    field("modalities", EMPTY, NO_MEDIA),
    field("mm_hashes", EMPTY, NO_MEDIA),
    field("mm_content_hashes", EMPTY, NO_MEDIA),
    field("use_audio_in_video", OFF, NO_MEDIA),
    field("video_config", EMPTY, NO_MEDIA),
    field("images_config", EMPTY, NO_MEDIA),
    field("max_dynamic_patch", NULL, NO_MEDIA),
    field("min_dynamic_patch", NULL, NO_MEDIA),
    field("image_max_dynamic_patch", NULL, NO_MEDIA),
    field("video_max_dynamic_patch", NULL, NO_MEDIA),
    field("positional_embed_overrides", NULL, NO_MEDIA),
    field("return_bytes", OFF, NO_MEDIA),
    field("token_ids_logprob", EMPTY, NO_DETAILS),
    field("return_sampling_mask", OFF, NO_DETAILS),
    field("return_flat_raw_top_logprobs", OFF, NO_DETAILS),
    field("return_flat_raw_top_logprobs_b64", OFF, NO_DETAILS),
    field("return_hidden_states", OFF, NO_DETAILS),
    field("return_routed_experts", OFF, NO_DETAILS),
    field("routed_experts_start_len", ZERO, NO_DETAILS),
    field("return_indexer_topk", OFF, NO_DETAILS),
    field("return_entropy", OFF, NO_DETAILS),
    field("return_prompt_token_ids", OFF, NO_DETAILS),
    field("multi_item_delimiter_indices", EMPTY, NO_DETAILS),
    field("lora_path", EMPTY, NO_ADAPTERS),
    field("lora_id", EMPTY, NO_ADAPTERS),
    field("custom_logit_processor", EMPTY, NO_CONSTRAINTS),
    field("session_params", NULL, NO_SESSIONS),
    field("extra_key", EMPTY_TEXT, OTHER_SALT),
    field("bootstrap_host", EMPTY, NO_TRANSFER),
    field("bootstrap_port", EMPTY, NO_TRANSFER),
    field("bootstrap_room", EMPTY, NO_TRANSFER),
    field("bootstrap_pair_key", EMPTY, NO_TRANSFER),
    field("decode_tp_size", EMPTY, NO_TRANSFER),
    field("routed_dp_rank", NULL, NO_TRANSFER),
    field("data_parallel_rank", NULL, NO_TRANSFER),
    field("disagg_prefill_dp_rank", NULL, NO_TRANSFER),
    field("kv_router_hint", NULL, NO_TRANSFER),
    field("need_wait_for_mm_inputs", OFF, NO_TRANSFER),
    field("num_items_assigned", EMPTY, NO_TRANSFER),
    field("encoder_urls", EMPTY, NO_TRANSFER),
    field("http_worker_ipc", NULL, NO_TRANSFER),
    field("background", OFF, "requests in the background are not supported"),
    field("require_reasoning", OFF, NO_REASONING),
    field("max_thinking_tokens", NULL, NO_REASONING),
    field("no_logs", ANY, "Ignored: the server never logs prompts"),
    field("rid", ANY, LABEL),
    field("session_id", ANY, LABEL),
    field("routing_key", ANY, LABEL),
    field("conversation_id", ANY, LABEL),
    field("log_metrics", ANY, LABEL),
    field("custom_labels", ANY, LABEL),
    field("external_trace_header", ANY, LABEL),
    field("received_time", ANY, LABEL),
];

/// Fields of `sampling_params` in SGLang.
const SAMPLING_PARAMS: &[NeutralField] = &[
    field("n", ONE, "several completions of a prompt are not supported on this route"),
    field("beam_width", ONE, NO_BEAMS),
    field("min_new_tokens", ZERO, NO_MINIMUM),
    field("min_p", ZERO, NO_CONSTRAINTS),
    field("presence_penalty", ZERO, NO_PENALTIES),
    field("frequency_penalty", ZERO, NO_PENALTIES),
    field("repetition_penalty", ONE, NO_PENALTIES),
    field("logit_bias", EMPTY, NO_CONSTRAINTS),
    field("json_schema", NULL, NO_CONSTRAINTS),
    field("regex", NULL, NO_CONSTRAINTS),
    field("ebnf", NULL, NO_CONSTRAINTS),
    field("structural_tag", NULL, NO_CONSTRAINTS),
    field("stop_regex", EMPTY, NO_CONSTRAINTS),
    field("skip_special_tokens", ON, NO_SPECIALS),
    field("spaces_between_special_tokens", ANY, NO_EFFECT),
    field("no_stop_trim", OFF, NO_STOP_TEXT),
    field("custom_params", EMPTY, NO_EXTENSIONS),
    field("stream_interval", ANY, NO_EFFECT),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        for type_name in ["CompletionsRequest", "StreamOptions", "GenerateRequest", "SamplingParams"] {
            let fields = neutral_fields(type_name);
            assert!(!fields.is_empty(), "{type_name}");
            for (at, field) in fields.iter().enumerate() {
                assert!(fields[..at].iter().all(|before| before.name != field.name), "{type_name}.{}", field.name);
            }
        }
    }
}
