"""Sends the requests of load generators, and reads the responses as they do.

Only guidellm is installed. `vllm bench serve` and `python -m sglang.benchmark.serving` need vLLM and SGLang, and aiperf
needs 0.9 GB of packages in versions that other clients exclude. Their requests here are those of vLLM 0.32.0
(`vllm/benchmarks/lib/endpoint_request_func.py`), SGLang 0.5.23 (`python/sglang/benchmark/serving.py`) and aiperf 0.13.0
(`aiperf/endpoints/openai_completions.py`).
"""

import asyncio
import json
from functools import partial

import steps
import tasks
from guidellm.backends.openai.http import OpenAIHTTPBackend
from guidellm.schemas import GenerationRequest, RequestInfo, UsageMetrics
from guidellm.schemas.backends import OpenAIHTTPBackendArgs
from server import post

TOKENS = 12


def events(text):
    """Returns the JSON objects of a stream of server-sent events, which must end with [DONE]."""
    messages = [message for message in text.split("\n\n") if message and not message.startswith(":")]
    assert messages[-1] == "data: [DONE]", f"the stream does not end with [DONE]: {messages[-1]}"
    return [json.loads(message.removeprefix("data: ")) for message in messages[:-1]]


class Case:
    """One prompt with its expected greedy completion, for which EOS is ignored."""

    def __init__(self, url, model, reference):
        self.url, self.model, self.prompt = url, model, tasks.SENTENCES[0]
        ids = reference.encode(self.prompt)
        self.prompt_tokens = len(ids)
        self.text = reference.decode(reference.complete(ids, TOKENS, stop=False))
        self.ids = ids

    def completions(self, body):
        return post(f"{self.url}/v1/completions", {"model": self.model} | body)

    def generate(self, body):
        return post(f"{self.url}/generate", body)

    def expect(self, name, found, expected):
        assert found == expected, f"{name}: {found!r} is not {expected!r}"


def vllm(case):
    """`vllm bench serve`: text and usage of a stream. Sampling flags of its command line add fields to the body."""
    body = {
        "prompt": case.prompt,
        "repetition_penalty": 1.0,
        "max_tokens": TOKENS,
        "logprobs": None,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }
    greedy = {"temperature": 0.0}
    flags = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
    for more in (greedy, greedy | flags, greedy | {"logprobs": 2}, greedy | {"prompt": case.ids}):
        text, usage = "", None
        for data in events(case.completions(body | more)):
            # A message with choices counts as a token; the numbers of tokens come from a message without choices.
            if choices := data.get("choices"):
                text += choices[0].get("text") or ""
            elif data.get("usage"):
                usage = data["usage"]
        case.expect(f"vllm bench serve, {more}: text", text, case.text)
        assert usage, f"vllm bench serve, {more}: no message with usage and without choices"
        case.expect("vllm bench serve: output tokens", usage.get("completion_tokens"), TOKENS)
        case.expect("vllm bench serve: prompt tokens", usage.get("prompt_tokens"), case.prompt_tokens)
    # Without a temperature, the server's default applies.
    assert any(data.get("choices") for data in events(case.completions(body)))


def sglang_oai(case):
    """SGLang's generator with `--backend sglang-oai`, `vllm` and `lmdeploy`. Every message must have a choice."""
    body = {"prompt": case.prompt, "best_of": 1, "max_tokens": TOKENS, "temperature": 0.0, "ignore_eos": True}
    for more in ({"stream": True}, {"stream": True, "logprobs": 2}):
        text = "".join(data["choices"][0]["text"] for data in events(case.completions(body | more)))
        case.expect(f"sglang-oai, {more}: text", text, case.text)
    # `--disable-stream` reads one JSON object.
    data = json.loads(case.completions(body | {"stream": False}))
    case.expect("sglang-oai, --disable-stream: text", data["choices"][0]["text"], case.text)
    case.expect("sglang-oai, --disable-stream: output tokens", data["usage"]["completion_tokens"], TOKENS)
    case.expect("sglang-oai, --disable-stream: prompt tokens", data["usage"]["prompt_tokens"], case.prompt_tokens)


def sglang_native(case):
    """SGLang's generator with `--backend sglang`: the text of each message of `/generate` repeats that of the one before."""
    sampling = {"temperature": 0.0, "max_new_tokens": TOKENS, "ignore_eos": True}
    body = {
        "sampling_params": sampling,
        "lora_path": None,
        "return_logprob": False,
        "return_routed_experts": False,
        "logprob_start_len": -1,
    }
    ways = [
        {"text": case.prompt, "stream": True},
        {"input_ids": case.ids, "stream": True},
        {"text": case.prompt, "stream": True, "return_logprob": True, "top_logprobs_num": 2},
        {"text": case.prompt, "stream": False},
    ]
    for way in ways:
        answer = case.generate(body | way)
        messages = events(answer) if way["stream"] else [json.loads(answer)]
        text, tokens = "", 0
        for data in messages:
            if data.get("text"):
                assert data["text"].startswith(text), f"sglang, {way}: {data['text']!r} does not repeat {text!r}"
                assert data["meta_info"]["completion_tokens"] >= tokens, f"sglang, {way}: fewer tokens than before"
                text, tokens = data["text"], data["meta_info"]["completion_tokens"]
        case.expect(f"sglang, {way}: text", text, case.text)
        case.expect(f"sglang, {way}: output tokens", tokens, TOKENS)
        case.expect(f"sglang, {way}: prompt tokens", messages[-1]["meta_info"]["prompt_tokens"], case.prompt_tokens)


def aiperf(case):
    """aiperf: objects named `text_completion`, and usage with the number of cached tokens."""
    body = {"prompt": case.prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    every_chunk = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    for more in ({"stream": False}, streamed, every_chunk):
        answer = case.completions(body | more)
        messages = events(answer) if more["stream"] else [json.loads(answer)]
        text, usage = "", None
        for data in messages:
            case.expect(f"aiperf, {more}: object", data["object"], "text_completion")
            if data["choices"]:
                text += data["choices"][0].get("text") or ""
                if more is every_chunk:
                    assert data.get("usage"), f"aiperf, {more}: no usage in {data}"
            usage = data.get("usage") or usage
        case.expect(f"aiperf, {more}: text", text, case.text)
        counts = (usage["prompt_tokens"], usage["completion_tokens"])
        case.expect(f"aiperf, {more}: tokens", counts, (case.prompt_tokens, TOKENS))
        details = usage.get("prompt_tokens_details") or {}
        assert isinstance(details.get("cached_tokens"), int), f"aiperf, {more}: no prompt_tokens_details.cached_tokens: {usage}"


async def guidellm_responses(url, model, prompts, stream):
    """Returns guidellm's view of the response to each prompt."""
    # guidellm sends no temperature; the extra field makes the text comparable.
    greedy = {"body": {"temperature": 0}}
    arguments = OpenAIHTTPBackendArgs(
        target=url, model=model, request_format="/v1/completions", stream=stream, extras=greedy
    )
    backend = OpenAIHTTPBackend(arguments)
    await backend.process_startup()
    try:
        await backend.validate()
        return [await last_guidellm_response(backend, prompt) for prompt in prompts]
    finally:
        await backend.process_shutdown()


async def last_guidellm_response(backend, prompt):
    request = GenerationRequest(columns={"text_column": [prompt]}, output_metrics=UsageMetrics(text_tokens=TOKENS))
    response = None
    async for response, _ in backend.resolve(request, RequestInfo()):
        pass
    return response


def guidellm(case):
    """guidellm's own backend. (`guidellm run` starts processes that import torch: half a minute for a few requests.)"""
    prompts = [case.prompt, case.prompt + " Nobody"]
    for stream in (True, False):
        responses = asyncio.run(guidellm_responses(case.url, case.model, prompts, stream))
        for response in responses:
            case.expect(f"guidellm, stream={stream}: output tokens", response.output_metrics.text_tokens, TOKENS)
        case.expect(f"guidellm, stream={stream}: text", responses[0].text, case.text)
        case.expect(f"guidellm, stream={stream}: prompt tokens", responses[0].input_metrics.text_tokens, case.prompt_tokens)


GENERATORS = {"vllm bench serve": vllm, "sglang-oai": sglang_oai, "sglang": sglang_native, "aiperf": aiperf, "guidellm": guidellm}


def check(url, model, reference):
    case = Case(url, model, reference)
    steps.run("load generators", {f"{name} gets what it expects": partial(run, case) for name, run in GENERATORS.items()})
