//! Names, shapes and kinds of the tensors that config.json implies.

use super::LlamaConfig;

/// The name of the embedding's tensor.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";

/// The name of the output head's tensor.
pub(crate) const HEAD: &str = "lm_head.weight";

/// The name and shape of a tensor that a checkpoint must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorSpec {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    /// `true` for the matrix of a linear layer, which FP8 checkpoints store in FP8.
    pub(crate) is_linear: bool,
}

/// Lists a model's tensors in the Hugging Face layout.
pub(crate) fn expected_tensors(config: &LlamaConfig) -> impl Iterator<Item = TensorSpec> {
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let mut outside_layers = vec![spec(EMBEDDING, &[vocab, hidden]), spec("model.norm.weight", &[hidden])];
    if !config.tie_word_embeddings {
        outside_layers.push(TensorSpec { is_linear: true, ..spec(HEAD, &[vocab, hidden]) });
    }
    let one_layer = layer_tensors(config);
    let in_layer = move |index: usize| {
        let named = |tensor: &TensorSpec| TensorSpec {
            name: format!("model.layers.{index}.{}", tensor.name),
            ..tensor.clone()
        };
        one_layer.iter().map(named).collect::<Vec<_>>()
    };
    outside_layers.into_iter().chain((0..config.layers).flat_map(in_layer))
}

/// The ends of the names of scales that other engines use to quantize activations, and cached keys and values, for
/// speed. Here, these keep their precision.
const RUNTIME_SCALES: [&str; 6] =
    [".input_scale", ".input_scale_ub", ".output_scale", ".q_scale", ".k_scale", ".v_scale"];

/// Returns whether an unexpected tensor is known and harmless: rotary frequencies, a head in a model whose embedding is
/// also the head, or, in a quantized model, the scales of activations and of cached keys and values.
pub(crate) fn is_known_extra(name: &str, config: &LlamaConfig) -> bool {
    name.ends_with("rotary_emb.inv_freq")
        || (config.tie_word_embeddings && name == HEAD)
        || (config.quantization.is_some() && RUNTIME_SCALES.iter().any(|suffix| name.ends_with(suffix)))
}

fn spec(name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), shape: shape.to_vec(), is_linear: false }
}

/// Lists the tensors of one layer, with names that omit the layer's prefix.
fn layer_tensors(config: &LlamaConfig) -> Vec<TensorSpec> {
    let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let mut tensors =
        vec![spec("input_layernorm.weight", &[hidden]), spec("post_attention_layernorm.weight", &[hidden])];
    for (module, outputs, inputs, has_bias) in [
        ("self_attn.q_proj", queries, hidden, config.qkv_bias),
        ("self_attn.k_proj", keys, hidden, config.qkv_bias),
        ("self_attn.v_proj", keys, hidden, config.qkv_bias),
        ("self_attn.o_proj", hidden, queries, config.output_bias),
        ("mlp.gate_proj", mlp, hidden, config.mlp_bias),
        ("mlp.up_proj", mlp, hidden, config.mlp_bias),
        ("mlp.down_proj", hidden, mlp, config.mlp_bias),
    ] {
        tensors.push(TensorSpec { is_linear: true, ..spec(&format!("{module}.weight"), &[outputs, inputs]) });
        if has_bias {
            tensors.push(spec(&format!("{module}.bias"), &[outputs]));
        }
    }
    if config.qk_norm {
        let norm = |module: &str| spec(&format!("self_attn.{module}.weight"), &[config.head_dim]);
        tensors.extend([norm("q_norm"), norm("k_norm")]);
    }
    tensors
}
