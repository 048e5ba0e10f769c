"""Checks the official Python and npm clients of OpenAI."""

import asyncio
import json
import os
import pathlib
import subprocess
import sys

import steps
import tasks
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from reference import assert_close

HERE = pathlib.Path(__file__).parent
ENVIRONMENT = pathlib.Path(sys.prefix)

# Values that change nothing. The client sends None as null.
NEUTRAL = {
    "best_of": 1,
    "echo": None,
    "frequency_penalty": 0,
    "logit_bias": {},
    "logprobs": None,
    "n": None,
    "presence_penalty": None,
    "seed": None,
    "stop": None,
    "stream": None,
    "stream_options": None,
    "suffix": None,
    "top_p": None,
    "user": "someone",
}
# The same for fields of vLLM's API.
NEUTRAL_EXTENSIONS = {
    "add_special_tokens": None,
    "ignore_eos": None,
    "min_p": 0,
    "priority": None,
    "repetition_penalty": 1.0,
    "skip_special_tokens": True,
    "top_k": -1,
}


def check_python(url, model, reference):
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    assert [served.id for served in client.models.list()] == [model]
    prompt = tasks.SENTENCES[0]
    ids = reference.encode(prompt)
    greedy = {"model": model, "prompt": ids, "max_tokens": 20, "temperature": 0}
    drawn = {"model": model, "prompt": prompt, "max_tokens": 12, "temperature": 1, "top_p": 0.95}
    written = reference.complete(ids, 20)
    text = reference.decode(written)
    steps.run(
        "openai for Python",
        {
            "echoed log-probabilities equal those of transformers": lambda: check_echo(client, greedy, reference, written),
            "alternatives start with the token itself, then descend": lambda: check_order(client, greedy),
            "texts, streams and stop strings are right": lambda: check_text(client, greedy, text, len(written)),
            "values that change nothing pass": lambda: check_neutral(client, greedy, text),
            "seeds determine completions": lambda: check_sampling(client, drawn),
            "exceptions show the server's text": lambda: check_errors(client, greedy),
            "concurrent requests get the same text": lambda: asyncio.run(check_concurrent(url, greedy, text)),
        },
    )


def check_echo(client, greedy, reference, written):
    """Compares the log-probabilities of prompt and completion with the reference, and the tokens with the text."""
    whole = greedy["prompt"] + written
    answer = client.completions.create(**greedy, echo=True, logprobs=3)
    choice, lists = answer.choices[0], answer.choices[0].logprobs
    assert choice.text == reference.decode(whole), choice.text
    assert answer.usage.completion_tokens == len(written)
    assert lists.token_logprobs[0] is None and len(lists.token_logprobs) == len(whole)
    assert "".join(lists.tokens) == choice.text, lists.tokens
    offsets = [len("".join(lists.tokens[:at])) for at in range(len(whole))]
    assert lists.text_offset == offsets, (lists.text_offset, offsets)
    logprobs = reference.distributions(whole)
    for at in range(1, len(whole)):
        assert_close(f"token {at}", lists.token_logprobs[at], logprobs[at - 1, whole[at]].item())
        assert_close(f"best token {at}", max(lists.top_logprobs[at].values()), logprobs[at - 1].max().item())


def check_order(client, greedy):
    """Checks the order within the objects of alternatives, which is vLLM's."""
    lists = client.completions.create(**greedy, echo=True, logprobs=3).choices[0].logprobs
    for token, alternatives in list(zip(lists.tokens, lists.top_logprobs, strict=True))[1:]:
        values = list(alternatives.values())
        assert next(iter(alternatives)) == token, f"{alternatives} does not start with {token!r}"
        assert values[1:] == sorted(values[1:], reverse=True), f"{alternatives} does not descend after its first entry"


def check_text(client, greedy, expected, tokens):
    """Compares the completion streamed and stopped with the reference."""
    pieces = list(client.completions.create(**greedy, stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].text for piece in pieces if piece.choices)
    assert text == expected, text
    assert pieces[-1].usage.completion_tokens == tokens
    stop = text[5:8]
    assert client.completions.create(**greedy, stop=stop).choices[0].text == text[: text.index(stop)]


def check_neutral(client, greedy, expected):
    """Sends each neutral value alone, and lists those that the server rejects."""
    rejected = []
    for name, value in (NEUTRAL | NEUTRAL_EXTENSIONS).items():
        more = {name: value} if name in NEUTRAL else {"extra_body": {name: value}}
        try:
            assert client.completions.create(**greedy, **more).choices[0].text == expected, name
        except BadRequestError:
            rejected.append(f"{name}={value!r}")
    assert not rejected, f"the server rejects {', '.join(rejected)}"


def check_sampling(client, drawn):
    def draw(seed):
        return [choice.text for choice in client.completions.create(**drawn, seed=seed, n=3).choices]

    assert draw(1) == draw(1) and draw(1) != draw(9) and len(set(draw(1))) > 1
    assert draw(1)[1] == draw(2)[0], "completion i of n must use the seed plus i"


def check_errors(client, greedy):
    """Checks that exceptions show the server's text, and not only a status."""
    try:
        client.completions.create(**{**greedy, "max_tokens": 1000})
    except BadRequestError as error:
        assert error.param == "max_tokens", f"the exception does not name the field: {error.body}"
        assert "maximum context length is 512 tokens" in error.message, f"the exception's text lacks the limit: {error}"
    else:
        raise AssertionError("a completion that does not fit was not rejected")
    try:
        client.completions.create(**{**greedy, "model": "someone/else"})
    except NotFoundError as error:
        assert "someone/else" in error.message, f"the exception's text does not name the model: {error}"
        assert error.body.get("message") and error.body.get("type"), f"no error object as OpenAI's: {error.body}"
    else:
        raise AssertionError("an unknown model was not rejected")


async def check_concurrent(url, greedy, expected):
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answers = await asyncio.gather(*(client.completions.create(**greedy) for _ in range(8)))
    texts = [answer.choices[0].text for answer in answers]
    assert texts == [expected] * len(texts), texts


def check_node(url, model, reference):
    """Runs the npm client in the Node of this environment."""
    ids = reference.encode(tasks.SENTENCES[0])
    written = reference.complete(ids, 20)
    expected = {
        "model": model,
        "ids": ids,
        "tokens": len(written),
        "text": reference.decode(written),
        "logprobs": reference.logprobs(ids[:1], (ids + written)[1:]),
    }
    command = [ENVIRONMENT / "bin/node", HERE / "openai_sdk.cjs", url, json.dumps(expected)]
    # `run` installs the npm packages in the environment's folder.
    env = os.environ | {"NODE_PATH": str(ENVIRONMENT / "npm/node_modules")}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    print(ran.stdout, end="")
