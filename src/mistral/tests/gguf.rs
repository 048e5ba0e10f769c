//! Tests that a Llama in a GGUF file scores like the same weights in the native engine.

#![cfg(feature = "mistralrs")]
#![allow(clippy::unwrap_used)]

use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use surprisal_engine::{CpuBackend, CpuConfig, Engine, Query, SchedulerConfig, Scorer};
use surprisal_mistral::{LoadError, MistralScorer, Source};
use surprisal_model::Checkpoint;
use surprisal_tests::tiny::{Tensors, TinyLlama, decode_bytes, random_tokens};

const ALIGNMENT: usize = 32;

/// A metadata value, of one of the types that this test writes.
#[derive(Clone, Copy)]
enum Meta {
    U32(u32),
    F32(f32),
    Text(&'static str),
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn meta(out: &mut Vec<u8>, key: &str, value: Meta) {
    text(out, key);
    match value {
        Meta::U32(x) => out.extend([4u32.to_le_bytes(), x.to_le_bytes()].concat()),
        Meta::F32(x) => out.extend([6u32.to_le_bytes(), x.to_le_bytes()].concat()),
        Meta::Text(x) => {
            out.extend(8u32.to_le_bytes());
            text(out, x);
        }
    }
}

/// Returns a tensor's name in GGUF, and the number of heads whose rows are to be interleaved; `None` if the rows keep
/// their order.
fn renamed(model: &TinyLlama, name: &str) -> (String, Option<usize>) {
    let top = [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];
    if let Some((_, short)) = top.iter().find(|(long, _)| name == format!("{long}.weight")) {
        return (format!("{short}.weight"), None);
    }
    let (layer, part) = name.strip_prefix("model.layers.").unwrap().split_once('.').unwrap();
    let (part, heads) = match part.strip_suffix(".weight").unwrap() {
        "input_layernorm" => ("attn_norm", None),
        "post_attention_layernorm" => ("ffn_norm", None),
        "self_attn.q_proj" => ("attn_q", Some(model.heads)),
        "self_attn.k_proj" => ("attn_k", Some(model.kv_heads)),
        "self_attn.v_proj" => ("attn_v", None),
        "self_attn.o_proj" => ("attn_output", None),
        "mlp.gate_proj" => ("ffn_gate", None),
        "mlp.up_proj" => ("ffn_up", None),
        "mlp.down_proj" => ("ffn_down", None),
        other => unreachable!("{other}"),
    };
    (format!("blk.{layer}.{part}.weight"), heads)
}

/// Returns each head's rows in GGUF's order, in which two dimensions that are rotated together are adjacent.
fn interleaved(values: &[f32], heads: usize, columns: usize) -> Vec<f32> {
    let size = values.len() / columns / heads;
    let rows = (0..heads).flat_map(|head| (0..size).map(move |i| head * size + i / 2 + (i % 2) * (size / 2)));
    rows.flat_map(|row| values[row * columns..][..columns].to_vec()).collect()
}

/// Writes a GGUF file, version 3, with all tensors in f32.
fn write_gguf(path: &Path, model: &TinyLlama, tensors: &Tensors) {
    let entries = [
        ("general.architecture", Meta::Text("llama")),
        ("llama.context_length", Meta::U32(model.max_positions as u32)),
        ("llama.embedding_length", Meta::U32(model.hidden as u32)),
        ("llama.block_count", Meta::U32(model.layers as u32)),
        ("llama.feed_forward_length", Meta::U32(model.intermediate as u32)),
        ("llama.attention.head_count", Meta::U32(model.heads as u32)),
        ("llama.attention.head_count_kv", Meta::U32(model.kv_heads as u32)),
        ("llama.attention.key_length", Meta::U32(model.head_dim as u32)),
        ("llama.attention.value_length", Meta::U32(model.head_dim as u32)),
        ("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5)),
        ("llama.rope.dimension_count", Meta::U32(model.head_dim as u32)),
        ("llama.rope.freq_base", Meta::F32(10_000.0)),
    ];
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        meta(&mut out, key, value);
    }
    let mut data: Vec<u8> = Vec::new();
    for (name, (shape, values)) in tensors {
        let (name, heads) = renamed(model, name);
        text(&mut out, &name);
        out.extend((shape.len() as u32).to_le_bytes());
        for &size in shape.iter().rev() {
            out.extend((size as u64).to_le_bytes());
        }
        out.extend(0u32.to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        let values = heads.map_or(values.clone(), |heads| interleaved(values, heads, shape[1]));
        data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out.extend(data);
    std::fs::write(path, out).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gguf_file_scores_like_the_native_engine() {
    let (native_dir, gguf_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = TinyLlama::default();
    let tensors = model.write(native_dir.path(), 5);
    decode_bytes(native_dir.path());
    std::fs::copy(native_dir.path().join("tokenizer.json"), gguf_dir.path().join("tokenizer.json")).unwrap();
    let source = Source { path: gguf_dir.path().join("tiny.gguf"), isq: None };
    write_gguf(&source.path, &model, &tensors);
    let scorer = MistralScorer::load("tiny".into(), &source, None).await.unwrap();
    let card = scorer.describe();
    assert_eq!((card.vocab_size, card.max_length), (model.vocab, model.max_positions));

    let backend = CpuBackend::load(&Checkpoint::open(native_dir.path()).unwrap(), CpuConfig::default()).unwrap();
    let native =
        Engine::start("native".into(), String::new(), String::new(), backend, SchedulerConfig::default()).unwrap();
    let tokens = random_tokens(&mut ChaCha8Rng::seed_from_u64(6), model.vocab, 700);
    let query = Query::new(tokens, 1);
    let (got, want) = (scorer.score(query.clone()).await.unwrap(), native.score(query).await.unwrap());
    let worst = got.logprobs.iter().zip(&want.logprobs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("GGUF in f32, 700 tokens: largest difference {worst:.1e}");
    assert_eq!(got.logprobs.len(), want.logprobs.len());
    assert!(worst < 5e-4, "{worst:e}");

    let twice = Source { isq: Some("q8_0".into()), ..source };
    let error = MistralScorer::load("tiny".into(), &twice, None).await.err().unwrap();
    assert!(matches!(&error, LoadError::Isq(isq, _) if isq == "q8_0"), "{error}");
}
