"""Compares the tokens of random texts with those of transformers, for a checkpoint with a tokenizer of each kind."""

import json
import random

import checkpoint
from server import Server, post
from transformers import AutoTokenizer

# Random texts for each kind of checkpoint, 5,000 in all.
TEXTS = 1000

# Pieces of random texts: words, spaces, emoji, Chinese, Japanese, combining marks, control characters, line ends.
PARTS = (
    ["The", " harbour", " was", "un", "rattles", "clerk", " ", "  ", "\n", "\r\n", "\t", "\x01", "\x7f", "\xa0", "\u3000"]
    + [".", ", ", "1", "23", "456", "e\u0301", "\u0301", "é", "naïve", "東京", "今日は", "我们", "😀", "👍🏽", "\ufffd", "it's"]
)

# Texts in one request.
BATCH = 250


def check(binary, folder):
    for kind in checkpoint.KINDS:
        model = folder / kind
        checkpoint.write(model, kind)
        with Server(binary, model) as url:
            check_kind(url, kind, AutoTokenizer.from_pretrained(model))


def check_kind(url, kind, tokenizer):
    generator = random.Random(kind)
    texts = ["".join(generator.choices(PARTS, k=generator.randint(1, 12))) for _ in range(TEXTS)]
    for start in range(0, TEXTS, BATCH):
        prompts = texts[start : start + BATCH]
        body = {"prompt": prompts, "max_tokens": 0, "echo": True, "logprobs": 0, "return_token_ids": True}
        choices = json.loads(post(f"{url}/v1/completions", body))["choices"]
        for prompt, choice in zip(prompts, choices, strict=True):
            expected = tokenizer(prompt)["input_ids"]
            assert choice["prompt_token_ids"] == expected, (kind, prompt, choice["prompt_token_ids"], expected)
            added = len(expected) - len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
            lists = choice["logprobs"]
            assert "".join(lists["tokens"][added:]) == prompt, (kind, prompt, lists["tokens"])
            offsets = [len("".join(lists["tokens"][:index])) for index in range(len(lists["tokens"]))]
            assert lists["text_offset"] == offsets, (kind, prompt, lists)
    print(f"tokenization: {kind}: the tokens of {TEXTS} texts are those of transformers, and their texts join")
