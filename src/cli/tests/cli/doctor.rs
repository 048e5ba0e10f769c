//! `surprisal doctor`: plans hardware for models from config.json only.

use serde_json::Value;

use crate::support::{run, stderr};

/// The 405B model in FP8 needs eight H100 GPUs.
#[test]
fn a_model_is_planned_from_its_config() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let kept: Vec<String> = (0..126).map(|layer| format!("model.layers.{layer}.self_attn")).collect();
    let json = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 16384, "intermediate_size": 53248,
        "num_hidden_layers": 126, "num_attention_heads": 128, "num_key_value_heads": 8, "torch_dtype": "bfloat16",
        "max_position_embeddings": 131072,
        "quantization_config": {"quant_method": "fbgemm_fp8", "modules_to_not_convert": kept},
    });
    std::fs::write(&config, json.to_string()).unwrap();
    let planned = run(dir.path(), &["doctor", "--model", config.to_str().unwrap(), "--json"]);
    assert!(planned.status.success(), "{}", stderr(&planned));
    let report: Value = serde_json::from_slice(&planned.stdout).unwrap();
    let gpus = report["model"]["gpus"].as_array().unwrap();
    let h100 = gpus.iter().find(|gpu| gpu["kind"] == "H100 80 GB").unwrap();
    assert_eq!(h100["count"], 8);
    assert!(run(dir.path(), &["doctor"]).status.success());
}

/// Llama 3.1 405B in FP8, with its published config.json, divided among eight H100 GPUs.
#[test]
fn llama_3_1_405b_is_planned_per_rank() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let kept: Vec<String> = (0..126)
        .flat_map(|layer| ["q", "k", "v", "o"].map(|part| format!("model.layers.{layer}.self_attn.{part}_proj")))
        .chain(["lm_head".to_owned()])
        .collect();
    let json = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 128000, "eos_token_id": 128001,
        "hidden_act": "silu", "hidden_size": 16384, "intermediate_size": 53248, "max_position_embeddings": 131072,
        "mlp_bias": false, "model_type": "llama", "num_attention_heads": 128, "num_hidden_layers": 126,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "vocab_size": 128256,
        "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3",
            "original_max_position_embeddings": 8192},
        "quantization_config": {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": kept},
    });
    std::fs::write(&config, json.to_string()).unwrap();
    let args = ["doctor", "--model", config.to_str().unwrap(), "--tensor-parallel-size", "8"];
    let planned = run(dir.path(), &[&args[..], &["--json"]].concat());
    assert!(planned.status.success(), "{}", stderr(&planned));
    let report: Value = serde_json::from_slice(&planned.stdout).unwrap();
    let model = &report["model"];
    assert_eq!(model["parameters"], 405_853_388_800_u64);
    let gpu = |kind: &str| model["gpus"].as_array().unwrap().iter().find(|gpu| gpu["kind"] == kind).unwrap();
    let of = |gpu: &Value, field: &str| gpu[field].as_u64().unwrap();
    // The MLPs are in FP8 with a four-byte scale per output channel; everything else is in bf16.
    let mlp = 126 * 3 * 16384 * 53248;
    let weights = mlp + 126 * 4 * (2 * 53248 + 16384) + 2 * (405_853_388_800 - mlp);
    // Each rank has one of eight key-value heads: keys and values of 128 numbers in bf16, in each layer.
    let token = 126 * 2 * 128 * 2;
    let h100 = gpu("H100 80 GB");
    assert_eq!((of(h100, "count"), of(h100, "weight_bytes")), (8, weights / 8));
    assert_eq!(of(h100, "cache_tokens"), (72_000_000_000 - weights / 8) / token);
    assert!(of(h100, "cache_tokens") > 131_072);
    // Two operations per weight in a matrix multiplication; in attention, four per dimension of each query head and
    // earlier token.
    let operations = 2 * (405_853_388_800 - 128_256 * 16384 - 253 * 16384) + 4 * 126 * 16384 * 1024;
    let peak = u128::from(8 * 989_u64) * 1_000_000_000_000 / operations;
    assert_eq!(u128::from(of(h100, "peak_tokens_per_second")), peak);
    assert!(gpu("A100 40 GB").get("cache_tokens").is_none_or(Value::is_null));
    let plan_text = String::from_utf8(run(dir.path(), &args).stdout).unwrap();
    let line = plan_text.lines().find(|line| line.contains("H100")).unwrap();
    assert!(line.trim_start().starts_with("8 x H100 80 GB") && line.contains("tokens of cache"), "{plan_text}");
    assert!(plan_text.lines().any(|line| line.contains("A100 40 GB") && line.contains("does not fit")), "{plan_text}");
}

/// The presets use enough H100 GPUs for the model, with memory left for hundreds of thousands of tokens.
#[test]
fn the_plan_agrees_with_the_multi_gpu_presets() {
    let kept: Vec<String> =
        (0..126).map(|layer| format!("model.layers.{layer}.self_attn")).chain(["lm_head".into()]).collect();
    let fp8 = serde_json::json!({"quant_method": "fbgemm_fp8", "modules_to_not_convert": kept});
    for (preset, [hidden, mlp, layers, heads], quantization, gigabytes, tokens) in [
        ("llama-3.1-70b-4h100", [8192, 28672, 80, 64], Value::Null, 35, 440_000),
        ("llama-3.1-405b-fp8-8h100", [16384, 53248, 126, 128], fp8, 60, 170_000),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(format!("../../configs/{preset}.toml")).unwrap();
        let ranks = text.parse::<toml::Table>().unwrap()["tensor_parallel_size"].as_integer().unwrap();
        let config = dir.path().join("config.json");
        let mut json = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": hidden,
            "intermediate_size": mlp, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": 8, "torch_dtype": "bfloat16", "max_position_embeddings": 131072,
        });
        if !quantization.is_null() {
            json["quantization_config"] = quantization;
        }
        std::fs::write(&config, json.to_string()).unwrap();
        let (config, size) = (config.to_str().unwrap(), ranks.to_string());
        let planned = run(dir.path(), &["doctor", "--model", config, "--tensor-parallel-size", &size, "--json"]);
        assert!(planned.status.success(), "{}", stderr(&planned));
        let report: Value = serde_json::from_slice(&planned.stdout).unwrap();
        let gpus = report["model"]["gpus"].as_array().unwrap();
        let h100 = gpus.iter().find(|gpu| gpu["kind"] == "H100 80 GB").unwrap();
        let weights = h100["weight_bytes"].as_u64().unwrap() / 1_000_000_000;
        assert_eq!((h100["count"].as_i64(), weights), (Some(ranks), gigabytes), "{preset}: {h100}");
        assert!(h100["cache_tokens"].as_u64().unwrap() > tokens, "{preset}: {h100}");
    }
}
