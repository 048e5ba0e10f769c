"""Checks multi-provider frameworks: litellm, langchain and inspect-ai."""

import math
import os

import tasks
from inspect_ai import Task, eval as run_evaluation
from inspect_ai.dataset import Sample
from inspect_ai.scorer import perplexity, target_perplexity
from inspect_ai.solver import generate
from langchain_openai import OpenAI
from reference import assert_close

# Without this, litellm downloads its list of prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm  # noqa: E402

litellm.suppress_debug_info = True
litellm.telemetry = False


def check_litellm(url, model, reference):
    prompt = tasks.SENTENCES[0]
    written = reference.complete(reference.encode(prompt), 20)
    # The prefix selects `/v1/completions`.
    call = {"model": f"text-completion-openai/{model}", "api_base": f"{url}/v1", "api_key": "none", "max_retries": 0}
    answer = litellm.text_completion(**call, prompt=prompt, max_tokens=20, temperature=0)
    assert answer.choices[0].text == reference.decode(written), answer
    pieces = list(litellm.text_completion(**call, prompt=prompt, max_tokens=20, temperature=0, stream=True))
    text = "".join(piece.choices[0].text or "" for piece in pieces if piece.choices)
    assert text == reference.decode(written), text
    echoed = litellm.text_completion(**call, prompt=prompt, max_tokens=1, temperature=0, echo=True, logprobs=1)
    assert echoed.choices[0].text.startswith(prompt), echoed
    try:
        litellm.text_completion(**call, prompt=prompt * 60, max_tokens=1)
    except litellm.ContextWindowExceededError:
        pass
    except litellm.BadRequestError as error:
        raise AssertionError(
            "litellm does not recognize the error of an overlong prompt as ContextWindowExceededError; it looks for "
            f"\"this model's maximum context length is\" in: {error}"
        ) from None
    else:
        raise AssertionError("an overlong prompt was not rejected")
    print("litellm: completions, streams, echo and ContextWindowExceededError are as the client expects")


def check_langchain(url, model, reference):
    """Checks langchain's class for `/v1/completions`."""
    prompts = tasks.SENTENCES[:2]
    expected = [reference.decode(reference.complete(reference.encode(prompt), 16)) for prompt in prompts]
    llm = OpenAI(model=model, base_url=f"{url}/v1", api_key="none", temperature=0, max_tokens=16, max_retries=0)
    assert llm.batch(prompts) == expected, llm.batch(prompts)
    assert "".join(llm.stream(prompts[0])) == expected[0]
    print("langchain: batches and streams are as the client expects")


def evaluate(url, model, folder, samples, scorer, prompt_logprobs):
    """Returns the scores of a task, in the order of the samples."""
    task = Task(dataset=samples, solver=generate(max_tokens=1, prompt_logprobs=prompt_logprobs), scorer=scorer)
    address = {"model": f"vllm-completions/{model}", "model_base_url": f"{url}/v1"}
    [log] = run_evaluation(task, **address, log_dir=str(folder / "inspect"), display="none")
    assert log.status == "success", log.error
    by_sample = sorted(log.samples, key=lambda sample: sample.id)
    return [next(iter(sample.scores.values())) for sample in by_sample]


def check_inspect(url, model, reference, folder):
    """Compares the perplexities of the `vllm-completions` provider with the definition."""
    texts = tasks.SENTENCES
    whole = [Sample(id=at, input=text) for at, text in enumerate(texts)]
    # With more than one log-probability a token, the provider takes the first entry of each object.
    for count in (1, 5):
        scores = evaluate(url, model, folder, whole, perplexity(), count)
        for text, score in zip(texts, scores, strict=True):
            ids = reference.encode(text)
            expected = -sum(reference.logprobs(ids[:1], ids[1:])) / (len(ids) - 1)
            name = f"inspect-ai: perplexity of {text!r} with prompt_logprobs={count}"
            assert_close(name, score.metadata["perplexity"] / math.exp(expected), 1)
            assert score.metadata["num_tokens"] == len(ids) - 1, (name, score.metadata)

    # The provider asks the server for the number of the target's tokens.
    targets = [text[len(text) // 2 :] for text in texts]
    halves = [Sample(id=at, input=text, metadata={"target_text": targets[at]}) for at, text in enumerate(texts)]
    for text, target, score in zip(texts, targets, evaluate(url, model, folder, halves, target_perplexity(), 5), strict=True):
        ids, count = reference.encode(text), len(reference.encode(target))
        expected = -sum(reference.logprobs(ids[:-count], ids[-count:])) / count
        assert_close(f"inspect-ai: target perplexity of {target!r}", score.value, expected)
    print(f"inspect-ai: {3 * len(texts)} perplexities equal the definition")
