//! The fields of config.json and of the objects in it, by the rule of `known_fields.rs`.
//!
//! The table describes the classes `LlamaForCausalLM`, `MistralForCausalLM`, `Qwen2ForCausalLM` and `Qwen3ForCausalLM`
//! of transformers 5. Fields that only some of these classes have are read by `parse.rs`, which rejects them for the
//! others.

use super::known_fields::{KnownFields, Neutral, Reason};

/// The fields of config.json.
pub(super) const CONFIG: KnownFields = KnownFields {
    read: &[
        "architectures",
        "attention_bias",
        "bos_token_id",
        "eos_token_id",
        "head_dim",
        "hidden_size",
        "intermediate_size",
        "layer_types",
        "max_position_embeddings",
        "max_window_layers",
        "mlp_bias",
        "model_type",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "original_max_position_embeddings",
        "quantization_config",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "sliding_window",
        "tie_word_embeddings",
        "use_sliding_window",
        "vocab_size",
    ],
    irrelevant: &[
        (Reason::Metadata, METADATA),
        (Reason::Training, TRAINING),
        (Reason::Generation, GENERATION),
        (Reason::Implementation, IMPLEMENTATION),
        (Reason::OtherTask, OTHER_TASKS),
        (Reason::Text, TEXT),
    ],
    irrelevant_prefixes: &["unsloth_"],
    neutral: NEUTRAL,
};

/// Descriptions of the model and of the software that wrote the file. The types of the stored tensors decide how
/// weights are read, not `dtype`. transformers runs the code in `auto_map` only if it does not have the architecture
/// itself, or with `trust_remote_code`.
const METADATA: &[&str] = &[
    "_commit_hash",
    "_model_name_or_path",
    "_name_or_path",
    "auto_map",
    "custom_pipelines",
    "dtype",
    "is_llama_config",
    "model_name",
    "name_or_path",
    "paddlenlp_version",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
];

const TRAINING: &[&str] = &[
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_dropout",
    "attn_pdrop",
    "classifier_dropout",
    "dropout",
    "embd_pdrop",
    "embedding_dropout",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "initializer_range",
    "neftune_noise_alpha",
    "resid_dropout",
    "resid_pdrop",
    "residual_dropout",
    "use_recompute",
];

/// Parameters of generation that older versions of transformers stored in config.json.
const GENERATION: &[&str] = &[
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_p",
    "no_repeat_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "suppress_tokens",
    "target_lookbehind",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

/// Choices between implementations. `pretraining_tp` splits matrix products into parts, whose sum is the same; current
/// versions of transformers ignore it.
const IMPLEMENTATION: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_experts_implementation",
    "_experts_implementation_internal",
    "_flash_attn_2_enabled",
    "attn_implementation",
    "chunk_size_feed_forward",
    "experts_implementation",
    "output_attentions",
    "output_hidden_states",
    "pretraining_tp",
    "return_dict",
    "tie_last_hidden_states",
    "torchscript",
    "use_bfloat16",
    "use_cache",
    "use_flash_attention",
    "use_flash_attention_2",
    "use_flash_attn",
    "use_flashattn",
    "use_fused_rms_norm",
    "use_fused_rope",
    "use_sdpa",
];

const OTHER_TASKS: &[&str] =
    &["finetuning_task", "id2label", "is_decoder", "label2id", "num_labels", "problem_type", "task_specific_params"];

/// Special tokens that a decoder does not read, and limits and sides of padding and truncation.
const TEXT: &[&str] = &[
    "cls_token_id",
    "decoder_start_token_id",
    "mask_token_id",
    "max_sequence_length",
    "model_max_length",
    "pad_token_id",
    "padding_side",
    "sep_token_id",
    "tokenizer_class",
    "tokenizer_model_max_length",
    "tokenizer_padding_side",
    "unk_token_id",
];

/// Changes to the computation that no backend supports.
const NEUTRAL: &[(&str, &[Neutral])] = &[
    ("activation_function", SILU),
    ("add_cross_attention", &[Neutral::False]),
    ("alibi", &[Neutral::False]),
    ("attention_chunk_size", &[]),
    ("attention_multiplier", &[]),
    ("attn_logit_softcapping", &[]),
    ("clip_qkv", &[]),
    ("compression_config", &[Neutral::Empty]),
    ("embedding_multiplier", ONE),
    ("final_logit_softcapping", &[]),
    ("hidden_act", SILU),
    ("hidden_activation", SILU),
    ("is_causal", &[Neutral::True]),
    ("is_encoder_decoder", &[Neutral::False]),
    ("logit_scale", ONE),
    ("logit_softcapping", &[]),
    ("logits_scaling", ONE),
    ("no_rope_layers", &[Neutral::Empty, Neutral::Each(1.0)]),
    ("num_experts", &[Neutral::Number(0.0)]),
    ("num_local_experts", &[Neutral::Number(0.0)]),
    ("num_nextn_predict_layers", &[Neutral::Number(0.0)]),
    ("partial_rotary_factor", ONE),
    ("per_layer_config", &[Neutral::Empty]),
    ("position_embedding_type", &[Neutral::Text("rope"), Neutral::Text("rotary")]),
    ("pruned_heads", &[Neutral::Empty]),
    ("residual_multiplier", ONE),
    ("rope_interleave", &[Neutral::False]),
    ("rope_interleaved", &[Neutral::False]),
    ("rope_ratio", ONE),
    ("rope_scaling_factor", ONE),
    ("rope_scaling_type", &[]),
    ("rotary_dim", &[]),
    ("rotary_pct", ONE),
    ("rotary_percent", ONE),
    ("scale_emb", ONE),
    ("tie_encoder_decoder", &[Neutral::False]),
    ("use_qk_norm", &[Neutral::False]),
    ("use_rope", &[Neutral::True]),
];

const ONE: &[Neutral] = &[Neutral::Number(1.0)];

const SILU: &[Neutral] = &[Neutral::Text("silu"), Neutral::Text("swish")];

/// The fields of `rope_parameters` and `rope_scaling`. A field of another rope type has no effect, as in transformers.
pub(super) const ROPE: KnownFields = KnownFields {
    read: &[
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "factor",
        "high_freq_factor",
        "low_freq_factor",
        "mscale",
        "mscale_all_dim",
        "original_max_position_embeddings",
        "rope_theta",
        "rope_type",
        "truncate",
        "type",
    ],
    irrelevant: &[(Reason::Metadata, &["finetuned"])],
    irrelevant_prefixes: &[],
    neutral: &[
        ("attn_factor", ONE),
        ("extrapolation_factor", ONE),
        ("long_factor", &[]),
        ("mrope_section", &[]),
        ("partial_rotary_factor", ONE),
        ("short_factor", &[]),
    ],
};

/// The fields of a `quantization_config` whose `quant_method` is `fbgemm_fp8`.
pub(super) const FBGEMM_FP8: KnownFields = KnownFields {
    read: &["activation_scale_ub", "modules_to_not_convert", "quant_method"],
    irrelevant: &[],
    irrelevant_prefixes: &[],
    neutral: &[],
};

/// The fields of a `quantization_config` whose `quant_method` is `fp8`.
pub(super) const BLOCK_FP8: KnownFields = KnownFields {
    read: &["ignored_layers", "modules_to_not_convert", "quant_method", "weight_block_size"],
    irrelevant: &[(Reason::Implementation, &["dequantize"])],
    irrelevant_prefixes: &[],
    neutral: &[
        ("activation_scheme", &[Neutral::Text("dynamic")]),
        ("expert_dtype", &[Neutral::Text("fp8")]),
        ("fmt", &[Neutral::Text("e4m3")]),
        ("modules_to_convert", &[Neutral::Empty]),
        ("scale_fmt", &[Neutral::Text("float")]),
    ],
};

/// The fields of a `quantization_config` whose `quant_method` is `compressed-tensors`. `kv_cache_scheme` describes an
/// FP8 cache, which other engines use on request; the option `--kv-cache-dtype` chooses the cache here.
pub(super) const COMPRESSED_TENSORS: KnownFields = KnownFields {
    read: &["config_groups", "format", "ignore", "quant_method"],
    irrelevant: &[
        (Reason::Metadata, &["global_compression_ratio", "quantization_status", "version"]),
        (Reason::Implementation, &["dequantize", "kv_cache_scheme", "run_compressed", "use_optimized_inference"]),
    ],
    irrelevant_prefixes: &[],
    neutral: &[("sparsity_config", &[Neutral::Empty]), ("transform_config", &[Neutral::Empty])],
};

/// The fields of one group in `config_groups`. FP8 activations are an approximation that other engines use for speed;
/// here, activations keep their precision.
pub(super) const COMPRESSED_GROUP: KnownFields = KnownFields {
    read: &["weights"],
    irrelevant: &[(Reason::Metadata, &["targets"]), (Reason::Implementation, &["input_activations"])],
    irrelevant_prefixes: &[],
    neutral: &[("format", &[Neutral::Text("float-quantized")]), ("output_activations", &[])],
};

/// The fields of a group's `weights`.
pub(super) const COMPRESSED_WEIGHTS: KnownFields = KnownFields {
    read: &[],
    irrelevant: &[(Reason::Training, &["observer", "observer_kwargs"])],
    irrelevant_prefixes: &[],
    neutral: &[
        ("actorder", &[]),
        ("block_structure", &[]),
        ("dynamic", &[Neutral::False]),
        ("group_size", &[]),
        ("num_bits", &[Neutral::Number(8.0)]),
        ("scale_dtype", &[]),
        ("strategy", &[Neutral::Text("tensor"), Neutral::Text("channel")]),
        ("symmetric", &[Neutral::True]),
        ("type", &[Neutral::Text("float")]),
        ("zp_dtype", &[]),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_listed_once() {
        for table in [CONFIG, ROPE, FBGEMM_FP8, BLOCK_FP8, COMPRESSED_TENSORS, COMPRESSED_GROUP, COMPRESSED_WEIGHTS] {
            let irrelevant = table.irrelevant.iter().flat_map(|(_, names)| names.iter());
            let neutral = table.neutral.iter().map(|(name, _)| name);
            let mut names: Vec<_> = table.read.iter().chain(irrelevant).chain(neutral).collect();
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{names:?}");
        }
    }
}
