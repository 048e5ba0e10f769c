"""One request of each route, and the judgment of its response."""

import dataclasses
import http.client
import json
import time

import program

# Fields that legitimately differ between two responses to the same request.
VARIABLE = {"id", "created", "rid", "cached_tokens", "computed_tokens", "prompt_tokens_details", "e2e_latency", "usage"}
ATTEMPTS = 3
JSON = "application/json"
QUERIES = [{"context": "A clerk", "target": " counted barrels"}, {"context": "Nobody", "target": " on the quay"}]
PROMPT = "A clerk counted barrels"
GREEDY = {"max_new_tokens": 8, "temperature": 0}


@dataclasses.dataclass(frozen=True)
class Request:
    """A request: its route, its body if it is a POST, and the type of its response."""

    path: str
    body: dict | None = None
    accept: str = JSON

    def __str__(self):
        kind = "" if self.accept == JSON else " as NDJSON"
        return self.path + kind + (" as a stream" if self.body and self.body.get("stream") else "")


REQUESTS = [
    Request("/health"),
    Request("/v1/models"),
    Request("/tokenizer_info"),
    Request("/logprobs", {"queries": QUERIES, "detail": "tokens", "top": 3, "rank": True}),
    Request("/logprobs", {"queries": QUERIES, "detail": "tokens"}, "application/x-ndjson"),
    Request("/tokenize", {"prompt": PROMPT}),
    Request("/detokenize", {"tokens": [40, 41, 42]}),
    Request("/v1/completions", {"prompt": PROMPT, "max_tokens": 8, "temperature": 0, "logprobs": 2}),
    Request("/v1/completions", {"prompt": PROMPT, "max_tokens": 8, "temperature": 0, "stream": True}),
    Request("/generate", {"text": PROMPT, "return_logprob": True, "sampling_params": GREEDY}),
    Request("/openapi.json"),
    Request("/metrics"),
]
# Requests of more than 1 MiB, or with responses of more than that.
LARGE = [
    Request("/logprobs", {"queries": QUERIES * 1000, "detail": "tokens", "top": 4}),
    Request("/logprobs", {"queries": QUERIES * 1000, "detail": "tokens", "top": 4}, "application/x-ndjson"),
    Request("/tokenize", {"prompt": PROMPT * 50_000}),
    Request("/detokenize", {"tokens": [40, 41, 42, 43] * 100_000}),
    Request("/v1/completions", {"prompt": [PROMPT * 8] * 50, "max_tokens": 0, "echo": True, "logprobs": 8}),
]


class Answers:
    """The server's answers, compared with those of a run without faults."""

    def __init__(self, requests, expected=None):
        self.requests = requests
        self.expected = expected
        # The final answers, by request.
        self.found = {}
        # Problems and lost connections, in words.
        self.problems = []

    def send_all(self, port):
        """Sends every request. Returns what is bad, or ""."""
        for number, request in enumerate(self.requests):
            if bad := self.send_until_answered(port, number, request):
                return f"{bad} ({request})"
        return ""

    def send_until_answered(self, port, number, request):
        """Sends a request, again if it fails. Returns what is bad, or ""."""
        self.found.pop(number, None)
        for _ in range(ATTEMPTS):
            try:
                status, head, body = send(port, request)
            except TimeoutError:
                return "hang"
            except (OSError, http.client.HTTPException) as error:
                self.problems.append(f"{request}: connection lost ({type(error).__name__})")
                time.sleep(0.05)
                continue
            try:
                answer, problem = parse(request, status, head, body)
            except (ValueError, KeyError) as error:
                return f"unclear: status {status}, {error}: {body[:200]!r}"
            if problem:
                self.problems.append(f"{request}: {problem}")
                continue
            if self.expected is not None and answer != self.expected.get(number):
                return "wrong"
            self.found[number] = answer
            return ""
        return ""


def send(port, request):
    """Sends a request on a new connection. Returns the status, the content type and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=program.TIMEOUT)
    try:
        if request.body is None:
            connection.request("GET", request.path)
        else:
            fields = {"Content-Type": JSON, "Accept": request.accept}
            connection.request("POST", request.path, json.dumps(request.body), fields)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type", ""), response.read()
    finally:
        connection.close()


def parse(request, status, content_type, body):
    """Returns the answer and, if the request failed, the problem."""
    if request.path in ["/health", "/metrics"]:
        if status == 200 and body:
            return "responded", None
    text = body.decode()
    if status != 200 or "problem+json" in content_type:
        return None, describe(json.loads(text))
    if content_type.startswith("text/event-stream"):
        events = [event.removeprefix("data: ") for event in text.strip().split("\n\n")]
        if events[-1] != "[DONE]":
            raise ValueError("no [DONE]")
        return parse_lines(events[:-1])
    if "ndjson" in content_type:
        lines, problem = parse_lines(text.splitlines())
        if problem is None and "end" not in lines[-1]:
            raise ValueError("no end")
        return sorted(lines, key=json.dumps), problem
    return without_variable(json.loads(text)), None


def parse_lines(lines):
    """Returns the objects of a stream, and the problem that ended it, if any."""
    values = [json.loads(line) for line in lines]
    problems = [value.get("problem", value) for value in values if "problem" in value or "urn:surprisal" in str(value)]
    return without_variable(values), describe(problems[0]) if problems else None


def describe(problem):
    """Describes a problem; fails if it is none."""
    name = problem["type"].removeprefix("urn:surprisal:problem:")
    if not problem["detail"]:
        raise ValueError("no detail")
    return f"{problem['status']} {name}"


def without_variable(value):
    """Returns a copy without the fields that differ between runs."""
    if isinstance(value, dict):
        return {name: without_variable(part) for name, part in value.items() if name not in VARIABLE}
    return [without_variable(part) for part in value] if isinstance(value, list) else value
