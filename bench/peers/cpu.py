#!/usr/bin/env python3
"""Compares surprisal with transformers, llama.cpp and vLLM on one random Llama, in turns, on this machine's CPU.

    cargo build --release -p surprisal && cargo run --release -p surprisal-bench --bin random_llama -- /tmp/random-llama
    python3 bench/peers/cpu.py target/release/surprisal /tmp/random-llama --out /tmp/peers

Makes a virtual environment in --out and installs torch, transformers, llama-cpp-python, gguf and matplotlib there
(--here uses the packages of this Python instead). vLLM's CPU build needs a different torch: it is timed if --vllm names
its program, with the libraries of --vllm-preload (in the format of LD_PRELOAD: tcmalloc, Intel's OpenMP). The
checkpoint is exported to each engine in each weight type. Before each timing, all engines must agree. Every round
scores fresh random tokens with each engine in turn, so no cache helps and no engine has a quieter machine. Peers run in
their best configuration: SDPA or flash attention, all cores, log-probabilities without a copy of the logits.
"""

import argparse
import collections
import ctypes
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

PACKAGES = ["torch", "transformers", "llama-cpp-python", "gguf", "matplotlib", "safetensors", "numpy"]
# The largest allowed difference of a log-probability between engines. llama.cpp keeps keys and values in f16; bf16
# rounds activations, and int8 also weights.
TOLERANCE = {"f32": 3e-2, "bf16": 0.5, "int8": 1.5}
# Pause before each measurement, in seconds: OpenMP threads of the previous engine may spin for a fifth of a second.
REST = 0.5


class Process:
    """A server process that runs until `close`."""

    def close(self):
        self.process.terminate()
        self.process.wait()


class Surprisal(Process):
    """A surprisal server, accessed over HTTP."""

    name = "surprisal"
    FLAGS = {"f32": ["--dtype", "f32"], "bf16": ["--dtype", "bf16", "--activations", "bf16"],
             "int8": ["--dtype", "int8", "--activations", "bf16"]}

    def __init__(self, binary: str, folder: Path, kind: str, _out: Path, more=("--cache-mib", "4096")):
        serve = [binary, "serve", "--model", str(folder), "--port", "0", *self.FLAGS[kind], *more]
        self.process = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True)
        self.url = next(found[0] for line in self.process.stderr if (found := re.search(r"http://[\d.]+:\d+", line)))
        # Drain stderr, so that the server does not block on its log.
        threading.Thread(target=collections.deque, args=(self.process.stderr, 0), daemon=True).start()

    def score(self, batch):
        queries = [{"context": row[:1], "target": row[1:]} for row in batch]
        body = json.dumps({"queries": queries, "detail": "tokens", "bos": "none"}).encode()
        request = urllib.request.Request(self.url + "/logprobs", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as response:
            return [result["logprobs"] for result in json.load(response)["results"]]


class Transformers:
    """The model in transformers. It runs one batch at a time, and converts logits to log-probabilities row by row."""

    name = "transformers"

    def __init__(self, _binary: str, folder: Path, kind: str, _out: Path):
        import torch
        from transformers import AutoModelForCausalLM
        if kind == "int8":
            raise LookupError("no int8 on the CPU")
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[kind]
        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()

    def score(self, batch):
        torch = self.torch
        with torch.inference_mode():
            ids = torch.tensor(batch)
            out = []
            for logits, row in zip(self.model(ids).logits, ids):
                for first in range(0, len(row) - 1, 512):
                    part = logits[first:min(first + 512, len(row) - 1)].float()
                    targets = row[first + 1:first + 1 + len(part), None]
                    out.append(part.gather(-1, targets)[:, 0] - part.logsumexp(-1))
            return torch.cat(out).view(len(batch), -1).tolist()

    def close(self):
        del self.model


class LlamaCpp:
    """llama.cpp through its C interface. PyTorch converts the logits of a micro-batch to log-probabilities."""

    name = "llama.cpp"
    MICRO_BATCH = 512

    def __init__(self, _binary: str, folder: Path, kind: str, out: Path):
        import llama_cpp
        import torch
        self.api, self.torch = llama_cpp, torch
        path = out / f"{kind}.gguf"
        if not path.exists():
            write_gguf(folder, path, kind)
        llama_cpp.llama_log_set(QUIET, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        self.vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
        self.context, self.size = None, 0

    def prepare(self, tokens: int, sequences: int):
        """Makes a context for this many tokens and sequences, unless the current one has the same size."""
        if self.size == (tokens, sequences):
            return
        if self.context:
            self.api.llama_free(self.context)
        params = self.api.llama_context_default_params()
        params.n_ctx, params.n_seq_max = tokens, sequences
        params.n_batch = params.n_ubatch = self.MICRO_BATCH
        params.n_threads = params.n_threads_batch = os.cpu_count()
        params.kv_unified = True
        params.n_outputs_max = params.n_outputs_max_per_seq = self.MICRO_BATCH
        self.context = self.api.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp cannot make a context of {tokens} tokens")
        self.size = (tokens, sequences)

    def score(self, batch):
        import numpy as np
        torch, api = self.torch, self.api
        length = len(batch[0])
        self.prepare(length * len(batch), len(batch))
        api.llama_memory_clear(api.llama_get_memory(self.context), True)
        tokens = np.array(batch, dtype=np.int32).reshape(-1)
        positions = np.tile(np.arange(length, dtype=np.int32), len(batch))
        sequences = np.repeat(np.arange(len(batch), dtype=np.int32), length)
        targets = torch.tensor(batch).reshape(-1).roll(-1)
        out = torch.empty(len(tokens))
        for first in range(0, len(tokens), self.MICRO_BATCH):
            last = min(first + self.MICRO_BATCH, len(tokens))
            part = api.llama_batch_init(last - first, 0, 1)
            for i in range(last - first):
                part.token[i], part.pos[i], part.logits[i] = tokens[first + i], positions[first + i], 1
                part.n_seq_id[i], part.seq_id[i][0] = 1, sequences[first + i]
            part.n_tokens = last - first
            if api.llama_decode(self.context, part) != 0:
                raise RuntimeError("llama_decode failed")
            pointer = ctypes.cast(api.llama_get_logits(self.context), ctypes.POINTER(ctypes.c_float))
            logits = torch.from_numpy(np.ctypeslib.as_array(pointer, (last - first, self.vocab)))
            out[first:last] = logits.gather(-1, targets[first:last, None])[:, 0] - logits.logsumexp(-1)
            api.llama_batch_free(part)
        return out.view(len(batch), length)[:, :-1].tolist()

    def close(self):
        if self.context:
            self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)


class Vllm(Process):
    """vLLM's server. Every core computes and none is reserved for HTTP; compilation ends before any timing."""

    name = "vllm"
    PORT = 8089
    url = f"http://127.0.0.1:{PORT}"
    DTYPES = {"f32": "float32", "bf16": "bfloat16"}
    cores = os.cpu_count()
    ENVIRONMENT = {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "VLLM_CPU_OMP_THREADS_BIND": f"0-{cores - 1}", "OMP_NUM_THREADS": str(cores),
                   "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"}
    program, preload, longest = None, None, 8193

    def __init__(self, _binary: str, folder: Path, kind: str, out: Path):
        if not self.program:
            raise LookupError("no program (--vllm)")
        if kind not in self.DTYPES:
            raise LookupError(f"no {kind} on the CPU")
        self.model = str(folder)
        command = [self.program, "serve", self.model, "--dtype", self.DTYPES[kind], "--port", str(self.PORT), "--max-model-len", str(self.longest)]
        preload = {"LD_PRELOAD": self.preload} if self.preload else {}
        with (out / "vllm.log").open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | self.ENVIRONMENT | preload)
        wait(self.process, self.url + "/health")

    def score(self, batch):
        asked = {"model": self.model, "prompt": batch, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        request = urllib.request.Request(self.url + "/v1/completions", json.dumps(asked).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request) as response:
            choices = sorted(json.load(response)["choices"], key=lambda choice: choice["index"])
        return [[place[str(token)]["logprob"] for token, place in zip(row[1:], choice["prompt_logprobs"][1:])]
                for row, choice in zip(batch, choices)]


def wait(process: subprocess.Popen, url: str) -> None:
    """Waits until the server answers at `url`."""
    while process.poll() is None:
        try:
            return urllib.request.urlopen(url).close()
        except urllib.error.URLError:
            time.sleep(0.2)
    raise SystemExit(f"{process.args[0]} exited with status {process.returncode}")


def quiet():
    import llama_cpp
    return llama_cpp.llama_log_callback(lambda *_: None)


def write_gguf(folder: Path, path: Path, kind: str, vocabulary: bool = False) -> None:
    """Writes the checkpoint as GGUF: interleaved rotated heads, matrices in the weight type, optional vocabulary."""
    import gguf
    import torch
    from safetensors.torch import load_file
    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("rwkv" if vocabulary else "none")
    if vocabulary:
        writer.add_token_list([f"t{i} " for i in range(config["vocab_size"])])
        writer.add_token_types([gguf.TokenType.NORMAL] * config["vocab_size"])
        writer.add_eos_token_id(1)
    matrix = {"f32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.BF16,
              "int8": gguf.GGMLQuantizationType.Q8_0}[kind]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        tensor = tensor.to(torch.float32)
        for part, count in (("q_proj", heads), ("k_proj", kv_heads)):
            if part in name:
                tensor = tensor.view(count, 2, -1, tensor.shape[-1]).transpose(1, 2).reshape(tensor.shape)
        data, as_type = tensor.numpy(), gguf.GGMLQuantizationType.F32
        if tensor.dim() == 2:
            data, as_type = gguf.quants.quantize(data, matrix), matrix
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), data, raw_dtype=as_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokens(vocab: int, rows: int, length: int) -> list[list[int]]:
    import torch
    batch = torch.randint(3, vocab, (rows, length))
    batch[:, 0] = 0
    return batch.tolist()


def difference(one, other) -> float:
    import torch
    return (torch.tensor(one) - torch.tensor(other)).abs().max().item()


def compare(engines: list, vocab: int, kind: str, shapes: list, rounds: int) -> list[dict]:
    """Checks that the engines agree, then times them in turn."""
    rows = []
    for length, size in shapes:
        batch = tokens(vocab, size, length)
        answers = [engine.score(batch) for engine in engines]
        worst = max(difference(answers[0], answer) for answer in answers)
        if worst > TOLERANCE[kind]:
            raise SystemExit(f"{kind}, T = {length}: the engines differ by {worst:.2g} nats")
        rates = [[] for _ in engines]
        for _ in range(rounds):
            batch = tokens(vocab, size, length)
            for engine, rate in zip(engines, rates):
                time.sleep(REST)
                start = time.perf_counter()
                engine.score(batch)
                rate.append(length * size / (time.perf_counter() - start))
        row = {"kind": kind, "length": length, "batch": size, "difference": worst,
               "rates": {engine.name: statistics.median(rate) for engine, rate in zip(engines, rates)}}
        row["ratios"] = {engine.name: sorted(ours / theirs for ours, theirs in zip(rates[0], rate))
                         for engine, rate in zip(engines[1:], rates[1:])}
        rows.append(row)
        cells = [f"{kind:<5}{length:>6}{size:>4}   ours {row['rates']['surprisal']:>6.0f}"]
        for name, ratios in row["ratios"].items():
            cells.append(f"{name} {row['rates'][name]:>6.0f}, ratio {statistics.median(ratios):.2f} "
                         f"({ratios[0]:.2f} to {ratios[-1]:.2f})")
        print(" | ".join(cells) + f" | differ by {worst:.1e}", flush=True)
    return rows


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    kinds = sorted({row["kind"] for row in rows}, key=["f32", "bf16", "int8"].index)
    figure, axes = pyplot.subplots(1, len(kinds), figsize=(4.5 * len(kinds), 3.5), sharey=True, squeeze=False)
    for axis, kind in zip(axes[0], kinds):
        chosen = [row for row in rows if row["kind"] == kind and row["batch"] == 1]
        for name in dict.fromkeys(name for row in chosen for name in row["rates"]):
            axis.plot([row["length"] for row in chosen], [row["rates"][name] for row in chosen], "o-", label=name)
        axis.set(title=kind, xlabel="tokens per text", xscale="log")
        axis.set_xticks([row["length"] for row in chosen], [str(row["length"]) for row in chosen])
        axis.grid(alpha=0.3)
    axes[0][0].set(ylabel="tokens scored per second", ylim=(0, None))
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=Path("peers"))
    parser.add_argument("--here", action="store_true", help="Use the packages of this Python")
    parser.add_argument("--vllm", help="Path of vLLM's program")
    parser.add_argument("--vllm-preload", help="Libraries to preload for vLLM (LD_PRELOAD)")
    parser.add_argument("--types", default="f32,bf16,int8")
    parser.add_argument("--lengths", default="128,512,2048,8192")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=int, default=16384, help="Most tokens per request; larger shapes are omitted")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.here:
        python = args.out / "venv" / "bin" / "python"
        if not python.exists():
            venv.create(args.out / "venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        os.execv(python, [str(python), __file__, *sys.argv[1:], "--here"])

    import torch
    from importlib.metadata import version
    global QUIET
    QUIET = quiet()
    Vllm.program, Vllm.preload = args.vllm, args.vllm_preload
    vocab = json.loads((args.model / "config.json").read_text())["vocab_size"]
    shapes = [(length, size) for length in map(int, args.lengths.split(",")) for size in map(int, args.batches.split(","))]
    shapes = [(length, size) for length, size in shapes if length * size <= args.most]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "llama-cpp-python"))
    print(f"{versions}; {torch.get_num_threads()} threads; {args.rounds} rounds; tokens per second, medians; ratios with their range")
    rows = []
    for kind in args.types.split(","):
        engines = []
        for make in (Surprisal, Transformers, LlamaCpp, Vllm):
            try:
                engines.append(make(args.binary, args.model, kind, args.out))
            except LookupError as error:
                print(f"{kind}: {make.name} skipped: {error}")
        rows += compare(engines, vocab, kind, shapes, args.rounds)
        for engine in engines:
            engine.close()
    (args.out / "peers.json").write_text(json.dumps(rows, indent=1))
    plot(rows, args.out / "peers.svg")


if __name__ == "__main__":
    main()
