"""The checkpoint in transformers, for comparison with the server."""

import math

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

# Largest difference of a log-probability, in nats.
TOLERANCE = 1e-3


class Reference:
    """A model in f32 and its tokenizer. Texts are encoded without special tokens."""

    def __init__(self, model):
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)

    def encode(self, text):
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def distributions(self, ids):
        """Returns the log-probabilities of the whole vocabulary after each token, normalized in f64."""
        with torch.no_grad():
            return torch.log_softmax(self.model(torch.tensor([ids])).logits[0].double(), -1)

    def logprobs(self, context, target):
        """Returns the log-probabilities of the target's tokens after the context."""
        ids = context + target
        table = self.distributions(ids)
        return [table[at - 1, ids[at]].item() for at in range(len(context), len(ids))]

    def complete(self, ids, tokens, stop=True):
        """Returns the ids of a greedy completion of at most so many tokens. Without `stop`, EOS does not end it."""
        ends = {} if stop else {"eos_token_id": self.model.config.vocab_size}
        with torch.no_grad():
            written = self.model.generate(
                torch.tensor([ids]), max_new_tokens=tokens, do_sample=False, pad_token_id=0, **ends
            )
        return written[0, len(ids) :].tolist()


def assert_close(name, found, expected):
    assert math.isclose(found, expected, rel_tol=0, abs_tol=TOLERANCE), (name, found, expected)
