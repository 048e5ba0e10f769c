"""A burst of ordinary requests, after which the server's caches, pools and threads exist."""

import concurrent.futures
import http.client
import json
import random

import payloads


def requests():
    """Yields the path and body of each request: more tokens than the cache holds, long texts, long answers, samples."""
    generator = random.Random(7)
    for _ in range(4):
        contexts = [[generator.choice(payloads.TOKENS) for _ in range(payloads.LONG)] for _ in range(16)]
        yield "/logprobs", {"queries": [{"context": context, "target": [20, 21]} for context in contexts]}
    for place in range(16):
        yield "/tokenize", {"prompt": payloads.WORDS[place << 10 :][: 100 << 10]}
    for place in range(4):
        target = [generator.choice(payloads.TOKENS) for _ in range(payloads.LONG)]
        body = {"contexts": [[11, place]], "targets": [target], "pairs": [[0, 0]] * 50, "detail": "tokens"}
        yield "/logprobs", body
    yield "/v1/completions", {"prompt": [20, 21], "n": 64, "max_tokens": 40, "ignore_eos": True}


def run(server, key):
    """Sends the burst, eight requests at a time."""

    def post(request):
        path, body = request
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        said = response.read()
        connection.close()
        if response.status not in (200, 429):
            raise SystemExit(f"{path} got {response.status} before any attack: {said.decode()}")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(post, requests()))
