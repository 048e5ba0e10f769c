//! Small random Llamas in the Hugging Face layout.

use std::collections::BTreeMap;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use surprisal_engine::Query;

/// The shape of a random Llama.
#[derive(Clone, Copy, Debug)]
pub struct TinyLlama {
    /// Number of token ids; BOS is 0.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Size of one head.
    pub head_dim: usize,
    /// `true` if the embedding is also used as the head.
    pub tied: bool,
    /// The longest sequence.
    pub max_positions: usize,
}

impl Default for TinyLlama {
    fn default() -> Self {
        Self {
            vocab: 515,
            hidden: 96,
            intermediate: 200,
            layers: 3,
            heads: 4,
            kv_heads: 2,
            head_dim: 32,
            tied: false,
            max_positions: 1024,
        }
    }
}

/// Tensors by name: shape and row-major values.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

impl TinyLlama {
    /// Returns random weights, large enough that attention is far from uniform and probabilities far from equal.
    pub fn tensors(&self, seed: u64) -> Tensors {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut tensors = Tensors::new();
        let mut add = |name: String, shape: &[usize], centre: f32, spread: f32| {
            let len = shape.iter().product();
            let values = (0..len).map(|_| centre + spread * rng.random_range(-1.0..1.0f32)).collect();
            tensors.insert(name, (shape.to_vec(), values));
        };
        let (h, q, kv, mlp) =
            (self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim, self.intermediate);
        let spread = |columns: usize| 2.5 / (columns as f32).sqrt();
        add("model.embed_tokens.weight".into(), &[self.vocab, h], 0.0, if self.tied { spread(h) } else { 1.0 });
        add("model.norm.weight".into(), &[h], 1.0, 0.2);
        if !self.tied {
            add("lm_head.weight".into(), &[self.vocab, h], 0.0, spread(h));
        }
        for i in 0..self.layers {
            let name = |tensor: &str| format!("model.layers.{i}.{tensor}.weight");
            add(name("input_layernorm"), &[h], 1.0, 0.2);
            add(name("post_attention_layernorm"), &[h], 1.0, 0.2);
            add(name("self_attn.q_proj"), &[q, h], 0.0, spread(h));
            add(name("self_attn.k_proj"), &[kv, h], 0.0, spread(h));
            add(name("self_attn.v_proj"), &[kv, h], 0.0, spread(h));
            add(name("self_attn.o_proj"), &[h, q], 0.0, spread(q));
            add(name("mlp.gate_proj"), &[mlp, h], 0.0, spread(h));
            add(name("mlp.up_proj"), &[mlp, h], 0.0, spread(h));
            add(name("mlp.down_proj"), &[h, mlp], 0.0, spread(mlp));
        }
        tensors
    }

    /// Writes config.json, model.safetensors, tokenizer_config.json and a word-level tokenizer.json, in which the word
    /// `t7` is token 7. Returns the tensors.
    ///
    /// # Panics
    ///
    /// If the folder cannot be written.
    pub fn write(&self, dir: &Path, seed: u64) -> Tensors {
        let tensors = self.tensors(seed);
        write_tensors(dir, &tensors);
        let write =
            |name: &str, contents: &[u8]| std::fs::write(dir.join(name), contents).expect("the folder is writable");
        write("config.json", self.config().to_string().as_bytes());
        write("tokenizer.json", self.tokenizer().to_string().as_bytes());
        write("tokenizer_config.json", json!({"bos_token": "t0"}).to_string().as_bytes());
        tensors
    }

    fn config(&self) -> serde_json::Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "vocab_size": self.vocab, "hidden_size": self.hidden, "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
            "max_position_embeddings": self.max_positions, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": self.tied, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32",
        })
    }

    /// Returns config.json with some fields added or replaced.
    pub(crate) fn config_with(&self, more: serde_json::Value) -> serde_json::Value {
        let mut config = self.config();
        for (field, value) in more.as_object().into_iter().flatten() {
            config[field] = value.clone();
        }
        config
    }

    fn tokenizer(&self) -> serde_json::Value {
        let vocab: serde_json::Map<String, serde_json::Value> =
            (0..self.vocab).map(|id| (format!("t{id}"), json!(id))).collect();
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": null,
            "post_processor": {
                "type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
                "single": [{"SpecialToken": {"id": "t0", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"t0": {"id": "t0", "ids": [0], "tokens": ["t0"]}},
            },
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t2"},
        })
    }
}

/// Writes model.safetensors, in f32.
///
/// # Panics
///
/// If the folder cannot be written.
pub fn write_tensors(dir: &Path, tensors: &Tensors) {
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let views = tensors.iter().map(|(name, (shape, _))| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).expect("shapes and values agree"))
    });
    let file = safetensors::serialize(views, None).expect("the tensors serialize");
    std::fs::write(dir.join("model.safetensors"), file).expect("the folder is writable");
}

/// Adds a byte decoder to a folder's tokenizer; mistralrs rejects a tokenizer without a decoder.
///
/// # Panics
///
/// If the folder has no tokenizer.json or cannot be written.
pub fn decode_bytes(dir: &Path) {
    set_in_tokenizer(dir, "decoder", json!({"type": "ByteFallback"}));
}

/// Changes a folder's tokenizer so that it adds no BOS.
///
/// # Panics
///
/// If the folder has no tokenizer.json or cannot be written.
pub fn add_no_bos(dir: &Path) {
    set_in_tokenizer(dir, "post_processor", serde_json::Value::Null);
}

fn set_in_tokenizer(dir: &Path, part: &str, value: serde_json::Value) {
    let path = dir.join("tokenizer.json");
    let text = std::fs::read_to_string(&path).expect("the folder has a tokenizer");
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).expect("tokenizer.json is JSON");
    tokenizer[part] = value;
    std::fs::write(&path, tokenizer.to_string()).expect("the folder is writable");
}

/// Returns `len` token ids: BOS, then random ids.
pub fn random_tokens(rng: &mut impl rand::Rng, vocab: usize, len: usize) -> Vec<u32> {
    std::iter::once(0).chain((1..len).map(|_| rng.random_range(0..vocab as u32))).collect()
}

/// Returns `count` random queries over a vocabulary of 300 tokens. Many queries share a prefix, of fewer than `longest`
/// tokens.
pub fn random_queries(seed: u64, count: usize, longest: usize) -> Vec<Query> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let texts: Vec<Vec<u32>> = (0..3).map(|_| random_tokens(&mut rng, 300, longest)).collect();
    let mut queries = Vec::with_capacity(count);
    for _ in 0..count {
        let mut tokens = texts[rng.random_range(0..texts.len())][..rng.random_range(2..longest)].to_vec();
        let tail = rng.random_range(0..30);
        tokens.extend(random_tokens(&mut rng, 300, tail + 1).into_iter().skip(1));
        let score_from = rng.random_range(1..tokens.len());
        queries.push(Query::new(tokens, score_from));
    }
    queries
}
