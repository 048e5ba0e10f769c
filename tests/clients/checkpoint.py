"""Tiny random Llamas in the Hugging Face layout, which differ in their tokenizers."""

import json

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = """The harbour was quiet when the lamps went out. A clerk counted barrels, then counted them again, for the number
would not stay the same. Nobody on the quay had seen the ship arrive, and nobody saw it leave. "Thirty-one," said the
clerk at last. "Thirty, and one that rattles." Café tables stood empty; naïve gulls walked between them as if they paid.
"""

# Special tokens of each kind: first those of the vocabulary in the order of their ids, then the names that
# tokenizer_config.json gives them, the token that the tokenizer puts before every text, and the ids in config.json.
KINDS = {
    # The tokenizer adds no BOS, but names one. (The harness treats a remote BOS with id 0 as none.)
    "plain": {"specials": ["<pad>", "<s>", "</s>"], "names": {"bos_token": "<s>", "eos_token": "</s>"}},
    # Like Qwen: no BOS at all.
    "no-bos": {"specials": ["<|end|>", "<pad>"], "names": {"eos_token": "<|end|>"}},
    # Like Llama 3: byte-level, and a template adds BOS.
    "template": {"specials": ["<s>", "</s>"], "names": {"bos_token": "<s>", "eos_token": "</s>"}, "first": "<s>"},
    # Like an instruction-tuned Llama 3: the tokenizer's EOS ends a turn, config.json has other ids for both tokens, and
    # the chat template writes BOS.
    "other-eos": {
        "specials": ["<pad>", "<s>", "</s>", "<|turn|>"],
        "names": {"bos_token": "<s>", "eos_token": "<|turn|>"},
        "first": "<s>",
        "config": {"bos_token_id": 0, "eos_token_id": 2},
        "chat_template": "{{ bos_token }}{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}",
    },
    # Like Llama 2: SentencePiece pieces with a space before each text, byte fallback, and BOS by template.
    "metaspace": {
        "specials": ["<unk>", "<s>", "</s>"],
        "names": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        "first": "<s>",
    },
}


def write(folder, kind="plain", width=64):
    """Writes the checkpoint, whose hidden states have `width` elements. Its weights are large enough that probabilities
    differ by orders of magnitude."""
    facts = KINDS[kind]
    tokenizer = metaspace(facts["specials"]) if kind == "metaspace" else byte_level(facts["specials"])
    if first := facts.get("first"):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", pair=f"{first} $A {first} $B", special_tokens=[(first, tokenizer.token_to_id(first))]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **facts["names"])
    fast.chat_template = facts.get("chat_template")
    fast.save_pretrained(folder)
    torch.manual_seed(11)
    ids = {"bos_token_id": fast.bos_token_id, "eos_token_id": fast.eos_token_id} | facts.get("config", {})
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=width,
        intermediate_size=width * 5 // 2,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.25,
        tie_word_embeddings=False,
        **ids,
    )
    model = LlamaForCausalLM(config).float()
    # Servers and decoders show bytes that are not UTF-8 differently, so that greedy completions must not have any: the
    # logits of their tokens are 0, far below the largest.
    broken = [token for token in range(len(fast)) if "\ufffd" in fast.decode([token])]
    with torch.no_grad():
        model.lm_head.weight[broken] = 0
    model.save_pretrained(folder)


def byte_level(specials):
    """Returns a byte-level BPE, trained on the text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


def metaspace(specials):
    """Returns a BPE over pieces in which "▁" stands for a space, with a token for each byte."""
    tokenizer = Tokenizer(models.BPE(unk_token=specials[0], byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=448, special_tokens=[*specials, *byte_tokens], show_progress=False)
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    # As in Llama 2's file, no pre-tokenizer remains, and the tokens of the bytes are not matched in texts.
    saved = json.loads(tokenizer.to_str())
    saved["pre_tokenizer"] = None
    saved["added_tokens"] = [token for token in saved["added_tokens"] if token["content"] in specials]
    return Tokenizer.from_str(json.dumps(saved))
