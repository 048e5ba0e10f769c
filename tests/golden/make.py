#!/usr/bin/env python3
"""Writes the tiny checkpoints of this folder, and their log-probabilities from transformers in float64.

    python3 tests/golden/make.py            # needs torch and transformers; last run with torch 2.15.0, transformers 5.23.0

Each fixture is a folder with config.json, the weights, and expected.json. The latter has token sequences that begin
with BOS (0), and `logprobs[i] = ln p(tokens[i + 1] | tokens[..i + 1])`. The model runs in float64; rotary frequencies
and angles stay in float32, as transformers computes them. This script quantizes FP8 fixtures itself, and their
reference uses weight times scale.
"""

import json
import math
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

HERE = Path(__file__).parent
SMALL = dict(vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=32, max_position_embeddings=4096, rms_norm_eps=1e-5, bos_token_id=0,
             eos_token_id=1, initializer_range=0.02)
LENGTHS = (512, 2048)


def rope(kind: str, **parameters) -> dict:
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=10000.0, **parameters))


FIXTURES = {
    "llama-default": LlamaConfig(**SMALL, **rope("default")),
    "llama-tied": LlamaConfig(**SMALL | dict(num_key_value_heads=1, head_dim=64, tie_word_embeddings=True), **rope("default")),
    "llama-headdim-256": LlamaConfig(**SMALL | dict(num_attention_heads=2, num_key_value_heads=1, head_dim=256, num_hidden_layers=1),
                                     **rope("default")),
    "llama-linear": LlamaConfig(**SMALL, **rope("linear", factor=4.0)),
    "llama-dynamic": LlamaConfig(**SMALL, **rope("dynamic", factor=4.0)),
    "llama-llama3": LlamaConfig(**SMALL, **rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                               original_max_position_embeddings=256)),
    "llama-yarn": LlamaConfig(**SMALL, **rope("yarn", factor=4.0, original_max_position_embeddings=512)),
    "llama-bias": LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True, **rope("default")),
    "mistral-window": MistralConfig(**SMALL, sliding_window=96, **rope("default")),
    "mistral-plain": MistralConfig(**SMALL, sliding_window=None, **rope("default")),
    "qwen2": Qwen2Config(**{k: v for k, v in SMALL.items() if k != "head_dim"}, tie_word_embeddings=True, **rope("default")),
    "qwen3": Qwen3Config(**SMALL | dict(head_dim=48), **rope("default")),
    "llama-bf16": LlamaConfig(**SMALL, dtype="bfloat16", **rope("default")),
    "llama-f16": LlamaConfig(**SMALL, dtype="float16", **rope("default")),
    "llama-sharded": LlamaConfig(**SMALL, **rope("default")),
}


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Sets random weights for which attention is uneven and predictions are far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("norm.weight"):
                weight.copy_(1.0 + 0.1 * noise)
            elif weight.dim() == 1:
                weight.copy_(0.3 * noise)
            else:
                weight.copy_(noise * (1.3 / math.sqrt(weight.shape[1])))


def logprobs(model: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    ids = torch.tensor([tokens])
    with torch.inference_mode():
        rows = torch.log_softmax(model(ids).logits[0, :-1].double(), -1)
    return rows.gather(-1, ids[0, 1:, None])[:, 0]


def expected(model: torch.nn.Module, seed: int) -> dict:
    """Returns log-probabilities in float64, and the error of transformers' own float32."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for length in LENGTHS:
        tokens = [0] + torch.randint(2, 128, (length - 1,), generator=generator).tolist()
        single = logprobs(model.float(), tokens)
        double = logprobs(model.double(), tokens)
        error = (single - double).abs().max().item()
        cases.append({"tokens": tokens, "transformers_f32_error": float(f"{error:.2e}"),
                      "logprobs": [float(f"{x:.9g}") for x in double.tolist()]})
    return {"transformers": transformers.__version__, "cases": cases}


def write(name: str, seed: int, config) -> torch.nn.Module:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    randomise(model, seed)
    stored = getattr(config, "dtype", None) or torch.float32
    model.to(stored).save_pretrained(folder, max_shard_size="200KB" if name.endswith("sharded") else "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    # Read the model back: casting a model to 16 bits also casts its rotary frequencies, but loading one does not.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    (folder / "expected.json").write_text(json.dumps(expected(model, seed), separators=(",", ":")))
    return model


def quantise(weight: torch.Tensor, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns FP8 values, one scale per block, and the dequantized weight."""
    out, width = weight.shape
    scales = torch.zeros(math.ceil(out / rows), math.ceil(width / columns))
    values = torch.zeros_like(weight, dtype=torch.float8_e4m3fn)
    restored = torch.zeros_like(weight)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            block = slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns)
            scales[i, j] = weight[block].abs().max() / 448.0
            values[block] = (weight[block] / scales[i, j]).to(torch.float8_e4m3fn)
            restored[block] = values[block].float() * scales[i, j]
    return values, scales, restored


def write_fp8(name: str, seed: int, quantization: dict, block: tuple[int, int], suffix: str, kept: tuple[str, ...], shape=None) -> None:
    model = write(name, seed, LlamaConfig(**SMALL, **rope("default")))
    tensors = {}
    for key, weight in model.float().state_dict().items():
        if weight.dim() < 2 or key.startswith(("model.embed", "lm_head")) or key.startswith(kept):
            tensors[key] = weight.contiguous()
            continue
        rows, columns = (size or full for size, full in zip(block, weight.shape))
        values, scales, restored = quantise(weight, rows, columns)
        tensors[key], tensors[key + suffix] = values, scales.reshape(shape) if shape else scales
        weight.copy_(restored)
    save_file(tensors, HERE / name / "model.safetensors")
    path = HERE / name / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": quantization}, indent=2))
    (HERE / name / "expected.json").write_text(json.dumps(expected(model, seed), separators=(",", ":")))


def main() -> None:
    for seed, (name, config) in enumerate(FIXTURES.items(), 1):
        write(name, seed, config)
    kept = [f"model.layers.0.self_attn.{part}_proj" for part in "qkvo"] + ["lm_head"]
    write_fp8("llama-fp8-fbgemm", 101, {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0,
              "modules_to_not_convert": kept}, (1, 0), "_scale", tuple(kept))
    groups = {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}
    compressed = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": groups, "ignore": ["lm_head"]}
    write_fp8("llama-fp8-compressed", 102, compressed, (1, 0), "_scale", ())
    write_fp8("llama-fp8-tensor", 103, compressed, (0, 0), "_scale", (), shape=(1,))
    write_fp8("llama-fp8-block", 104, {"quant_method": "fp8", "weight_block_size": [40, 32]}, (40, 32), "_scale_inv", ())


if __name__ == "__main__":
    main()
