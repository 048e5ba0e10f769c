#!/usr/bin/env python3
"""Measures PyTorch for comparison: Llama-3.1-8B's shape with random weights, scored as transformers scores it.

    python3 bench/gpu/pytorch.py OUT [--log LOG] [--device cuda:0] [--size 8b|tiny] [--lengths 2048 8192] [--repeats 10]

Prints, and writes into OUT/pytorch.json: milliseconds of prefill and log_softmax at the targets (transformers with SDPA
if it is installed, else modules of the same shape), of only the products, and of only attention; and the error of bf16
log-probabilities, compared with the float64 ones of tests/golden. Also prints surprisal's own numbers from OUT/gpu.json
and from LOG, the output of the tests of whole models, if bench/gpu/run has written these files.
"""

import argparse
import json
import re
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

try:
    import transformers
except ImportError:
    transformers = None

ROOT = Path(__file__).resolve().parents[2]
SIZES = {
    "8b": dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
               num_key_value_heads=8, head_dim=128, vocab_size=128256),
    "tiny": dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, head_dim=16, vocab_size=504),
}


class Layer(torch.nn.Module):
    """A decoder layer of Llama, used if transformers is not installed."""

    def __init__(self, size: dict):
        super().__init__()
        hidden, mlp, self.head = size["hidden_size"], size["intermediate_size"], size["head_dim"]
        self.heads, self.kv_heads = size["num_attention_heads"], size["num_key_value_heads"]
        linear = lambda inputs, outputs: torch.nn.Linear(inputs, outputs, bias=False)
        self.norms = torch.nn.ModuleList(torch.nn.RMSNorm(hidden, eps=1e-5) for _ in range(2))
        self.q, self.o = linear(hidden, self.heads * self.head), linear(self.heads * self.head, hidden)
        self.k, self.v = (linear(hidden, self.kv_heads * self.head) for _ in range(2))
        self.gate, self.up, self.down = linear(hidden, mlp), linear(hidden, mlp), linear(mlp, hidden)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        y = self.norms[0](x)
        heads = lambda t, count: t.view(t.shape[0], t.shape[1], count, self.head).transpose(1, 2)
        turn = lambda t: t * cos + torch.cat((-t[..., self.head // 2:], t[..., :self.head // 2]), -1) * sin
        q, k, v = heads(self.q(y), self.heads), heads(self.k(y), self.kv_heads), heads(self.v(y), self.kv_heads)
        y = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = self.norms[1](x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Plain(torch.nn.Module):
    """A whole Llama, used if transformers is not installed."""

    def __init__(self, size: dict):
        super().__init__()
        self.embedding = torch.nn.Embedding(size["vocab_size"], size["hidden_size"])
        self.layers = torch.nn.ModuleList(Layer(size) for _ in range(size["num_hidden_layers"]))
        self.norm = torch.nn.RMSNorm(size["hidden_size"], eps=1e-5)
        self.head = torch.nn.Linear(size["hidden_size"], size["vocab_size"], bias=False)
        self.half = size["head_dim"] // 2

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device, dtype=torch.float32)
        turns = positions[:, None] * 5e5 ** (-torch.arange(self.half, device=ids.device) / self.half)
        x = self.embedding(ids)
        cos, sin = (torch.cat((t, t), -1).to(x.dtype) for t in (turns.cos(), turns.sin()))
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.head(self.norm(x))


def model_of(size: dict, device: str) -> tuple[str, torch.nn.Module]:
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        if transformers is None:
            model, name = Plain(size), "modules of the same shape with SDPA"
        else:
            config = transformers.LlamaConfig(**size, rms_norm_eps=1e-5, max_position_embeddings=131072)
            config._attn_implementation = "sdpa"
            model = transformers.LlamaForCausalLM(config)
            name = f"transformers {transformers.__version__} with SDPA"
    torch.set_default_dtype(torch.float32)
    return name, model.eval()


def logits_of(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return model(ids) if isinstance(model, Plain) else model(ids, use_cache=False).logits


def milliseconds(device: str, repeats: int, work) -> float:
    """Returns the median time of `work` in milliseconds, measured with CUDA events on a GPU."""
    times = []
    for _ in range(repeats + 2):
        if device.startswith("cuda"):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        else:
            start = time.perf_counter()
            work()
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[2:])


def products(size: dict, tokens: int, device: str, repeats: int) -> float:
    """Returns the time of only the products of a pass: that of each on random values, times its number of uses."""
    hidden, mlp, layers = size["hidden_size"], size["intermediate_size"], size["num_hidden_layers"]
    queries, keys = (size[f"num_{kind}_heads"] * size["head_dim"] for kind in ("attention", "key_value"))
    shapes = [(queries, hidden, layers), (keys, hidden, 2 * layers), (hidden, queries, layers), (mlp, hidden, 2 * layers),
              (hidden, mlp, layers), (size["vocab_size"], hidden, 1)]
    total = 0.0
    for outputs, inputs, count in shapes:
        x = torch.randn(tokens, inputs, dtype=torch.bfloat16, device=device)
        weight = torch.randn(outputs, inputs, dtype=torch.bfloat16, device=device)
        total += count * milliseconds(device, repeats, lambda: F.linear(x, weight))
    return total


def attention(size: dict, tokens: int, device: str, repeats: int) -> float:
    def random(kind: str) -> torch.Tensor:
        return torch.randn(1, size[f"num_{kind}_heads"], tokens, size["head_dim"], dtype=torch.bfloat16, device=device)

    q, k, v = random("attention"), random("key_value"), random("key_value")
    run = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return milliseconds(device, repeats, run)


def timings(size: dict, lengths: list[int], device: str, repeats: int) -> dict:
    name, model = model_of(size, device)
    found = {"model": name, "prefill": []}
    for tokens in lengths:
        ids = torch.randint(size["vocab_size"], (1, tokens), device=device)

        def score() -> torch.Tensor:
            rows = torch.log_softmax(logits_of(model, ids)[0, :-1].float(), -1)
            return rows.gather(-1, ids[0, 1:, None])

        found["prefill"].append({"tokens": tokens, "milliseconds": milliseconds(device, repeats, score)})
    del model
    for row in found["prefill"]:
        row["products"] = products(size, row["tokens"], device, repeats)
        row["attention"] = attention(size, row["tokens"], device, repeats)
    return found


def error(folder: Path, device: str) -> dict:
    """Returns the error of bf16 on a golden checkpoint, against the log-probabilities of transformers in float64."""
    case = json.loads((folder / "expected.json").read_text())["cases"][0]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa")
    ids = torch.tensor([case["tokens"]], device=device)
    logits = logits_of(loaded.to(device).eval(), ids)[0, :-1].double()
    got = torch.log_softmax(logits, -1).gather(-1, ids[0, 1:, None])[:, 0].cpu()
    off = (got - torch.tensor(case["logprobs"], dtype=torch.float64)).abs()
    return {"fixture": folder.name, "mean": off.mean().item(), "worst": off.max().item()}


def errors(device: str) -> list[dict]:
    """Returns the error of each golden checkpoint, or the failure if this transformers does not support it."""
    found = []
    for folder in sorted(ROOT.glob("tests/golden/*/")):
        if transformers is None or "fp8" in folder.name:
            continue
        try:
            found.append(error(folder, device))
        except Exception as failure:
            found.append({"fixture": folder.name, "failure": f"{type(failure).__name__}: {failure}"})
    return found


def ours(out: Path, log: Path) -> tuple[dict, dict]:
    """Returns surprisal's times by length, and its errors by fixture."""
    report = out / "gpu.json"
    rows = json.loads(report.read_text()).get("prefill", []) if report.exists() else []
    times = {row["tokens"]: row["milliseconds"] for row in rows if row.get("weights", "bf16") == "bf16"}
    text = log.read_text() if log.exists() else ""
    lines = re.findall(r"^(\S+) +bf16: mean error (\S+), maximal (\S+)$", text, re.MULTILINE)
    return times, {fixture: (float(mean), float(worst)) for fixture, mean, worst in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--log", type=Path, default=Path("whole-model.log"))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--size", choices=SIZES, default="8b")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    times, our_errors = ours(args.out, args.log)
    with torch.inference_mode():
        found = timings(SIZES[args.size], args.lengths, args.device, args.repeats)
    name = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else args.device
    found |= {"torch": torch.__version__, "device": name}
    written = args.out / "pytorch.json"
    written.write_text(json.dumps(found, indent=2))
    print(f"{name}, torch {found['torch']}, {found['model']}")
    for row in found["prefill"]:
        tokens, whole = row["tokens"], row["milliseconds"]
        print(f"{tokens} tokens: {whole:.2f} ms, {1e3 * tokens / whole:.0f} tokens/s; products {row['products']:.2f} ms, "
              f"attention {row['attention']:.3f} ms per layer")
        if tokens in times:
            print(f"  surprisal: {times[tokens]:.2f} ms, {whole / times[tokens]:.2f} times as fast; "
                  f"{100 * row['products'] / times[tokens]:.0f} % of the rate of these products alone")
    # The times are already written if the errors fail.
    sys.stdout.flush()
    with torch.inference_mode():
        found["errors"] = errors(args.device)
    written.write_text(json.dumps(found, indent=2))
    for row in found["errors"]:
        if "failure" in row:
            print(f"{row['fixture']:<20} {row['failure']}")
            continue
        mean, worst = our_errors.get(row["fixture"], (float("nan"), float("nan")))
        print(f"{row['fixture']:<20} bf16 against float64: mean {row['mean']:.1e}, maximal {row['worst']:.1e}; "
              f"surprisal {mean:.1e}, {worst:.1e}")


if __name__ == "__main__":
    main()
