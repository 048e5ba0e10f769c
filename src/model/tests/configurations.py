#!/usr/bin/env python3
"""Adds what transformers reads from each accepted configuration of configurations.json, as its field `expected`.

    python src/model/tests/configurations.py

The configurations are written after published ones. An entry has the fields of the entry that it is `like`, except
those listed in `without`, and its own `fields`. `rejected` is the field that surprisal rejects.
"""

import json
import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import transformers  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

transformers.logging.set_verbosity_error()
FILE = Path(__file__).with_name("configurations.json")


def fields_of(entry: dict, entries: dict) -> dict:
    """Returns the fields of config.json."""
    inherited = fields_of(entries[entry["like"]], entries) if "like" in entry else {}
    kept = {name: value for name, value in inherited.items() if name not in entry.get("without", [])}
    return kept | entry.get("fields", {})


def expected(fields: dict) -> dict:
    """Returns what transformers reads from config.json."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(fields))
        config = AutoConfig.from_pretrained(folder)
    model_class = AutoModelForCausalLM._model_mapping[type(config)]
    assert model_class.__name__ == fields["architectures"][0], model_class
    module = __import__(model_class.__module__, fromlist=["*"])
    rotary = getattr(module, model_class.__name__.replace("ForCausalLM", "RotaryEmbedding"))(config)
    frequencies = rotary.inv_freq.tolist()
    count = len(frequencies)
    layers = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    has_window = "sliding_attention" in layers if layers else config.model_type == "mistral"
    eos = config.eos_token_id
    return {
        "theta": config.rope_parameters["rope_theta"],
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "max_positions": config.max_position_embeddings,
        "window": window if has_window else None,
        "tied": config.tie_word_embeddings,
        "eos": eos[0] if isinstance(eos, list) else eos,
        "attention_factor": float(rotary.attention_scaling),
        "frequencies": {i: float(f"{frequencies[i]:.9g}") for i in (0, count // 4, count // 2, count - 1)},
    }


def main() -> None:
    entries = {entry["name"]: entry for entry in json.loads(FILE.read_text())}
    compared = 0
    for entry in entries.values():
        if "rejected" not in entry:
            entry["expected"] = expected(fields_of(entry, entries))
            compared += 1
    lines = ",\n".join("  " + json.dumps(entry) for entry in entries.values())
    FILE.write_text(f"[\n{lines}\n]\n")
    print(f"transformers {transformers.__version__} read {compared} of {len(entries)} configurations")


if __name__ == "__main__":
    main()
