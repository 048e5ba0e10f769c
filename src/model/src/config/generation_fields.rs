//! The fields of generation_config.json, which holds defaults for generation.
//!
//! No field can change a log-probability. Only `eos_token_id` is read: its tokens end a generated text. All other
//! defaults are ignored, because requests state their sampling parameters, and absent parameters have the defaults of
//! OpenAI's API. (vLLM takes `temperature`, `top_p`, `top_k`, `min_p`, `repetition_penalty` and `max_new_tokens` from
//! this file unless it runs with `--generation-config vllm`.) Unknown fields are defaults too, so they are logged and
//! ignored.

use std::path::Path;

use serde_json::Value;

use crate::error::Error;

/// The file that holds defaults for generation.
const FILE: &str = "generation_config.json";

/// The fields of transformers' `GenerationConfig`, and descriptions that published files have beside them.
const KNOWN: &[&str] = &[
    "_commit_hash",
    "_from_model_config",
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "constraints",
    "continuous_batching_config",
    "decoder_start_token_id",
    "disable_compile",
    "diversity_penalty",
    "do_sample",
    "dola_layers",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "eos_token_id",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "force_words_ids",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "generation_kwargs",
    "guidance_scale",
    "is_assistant",
    "length_penalty",
    "low_memory",
    "max_cache_len",
    "max_length",
    "max_matching_ngram_size",
    "max_new_tokens",
    "max_time",
    "max_window_size",
    "min_length",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "penalty_alpha",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "remove_invalid_values",
    "renormalize_logits",
    "repetition_penalty",
    "return_dict_in_generate",
    "sequence_bias",
    "speculation_type",
    "stop_strings",
    "suppress_tokens",
    "target_lookbehind",
    "temperature",
    "token_healing",
    "top_h",
    "top_k",
    "top_p",
    "transformers_version",
    "trust_remote_code",
    "typical_p",
    "use_cache",
    "use_mtp",
    "watermarking_config",
];

/// Checks a folder's generation_config.json, if there is one, and logs its unknown fields.
///
/// # Errors
///
/// Fails if the file cannot be read, is not a JSON object, or has an `eos_token_id` that is neither a token id nor a
/// list of token ids.
pub(crate) fn check_generation_config(dir: &Path) -> Result<(), Error> {
    let path = dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(&path)(error)),
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| Error::malformed(&path, error))?;
    let object = value.as_object().ok_or_else(|| Error::malformed(&path, "it must be a JSON object"))?;
    if let Some(ids) = object.get("eos_token_id").filter(|ids| !is_token_ids(ids)) {
        let reason = format!("eos_token_id is {ids}; it must be a token id or a list of token ids");
        return Err(Error::malformed(&path, reason));
    }
    let unknown: Vec<&str> = object.keys().map(String::as_str).filter(|name| !KNOWN.contains(name)).collect();
    if !unknown.is_empty() {
        tracing::warn!(fields = unknown.join(", "), "ignoring unknown fields of generation_config.json");
    }
    Ok(())
}

/// Returns whether a value is null, a token id, or a list of token ids.
fn is_token_ids(value: &Value) -> bool {
    let is_id = |value: &Value| value.as_u64().is_some_and(|id| u32::try_from(id).is_ok());
    value.is_null() || is_id(value) || value.as_array().is_some_and(|ids| ids.iter().all(is_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_malformed_end_token_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let check = |text: &str| {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            check_generation_config(dir.path()).map_err(|error| error.to_string())
        };
        assert!(check_generation_config(dir.path()).is_ok());
        for accepted in [
            json!({"eos_token_id": 2, "temperature": 0.6, "top_p": 0.9, "do_sample": true}),
            json!({"eos_token_id": [128001, 128009], "chat_format": "chatml"}),
            json!({"eos_token_id": null, "pad_token_id": -1}),
        ] {
            assert_eq!(check(&accepted.to_string()), Ok(()), "{accepted}");
        }
        for rejected in [json!(-1), json!("</s>"), json!([2, "</s>"]), json!(1u64 << 40), json!(2.5)] {
            let error = check(&json!({"eos_token_id": rejected}).to_string()).unwrap_err();
            assert!(error.contains("generation_config.json: eos_token_id is"), "{error}");
        }
        assert!(check("[]").unwrap_err().contains("it must be a JSON object"));
        assert!(check("{").unwrap_err().contains("generation_config.json"));
    }
}
