"""The well-behaved client: it asks short questions at a steady rate on one connection."""

import collections
import http.client
import json
import random
import time

# Seconds between two questions.
PERIOD = 0.05
# Seconds after which a question counts as lost.
TIMEOUT = 120
# Tokens of a question's context and target: together, as many as the server's token budget.
CONTEXT, TARGET = 48, 16


def make_questions(count):
    """Returns the bodies of different questions."""
    generator = random.Random(13)
    questions = []
    for _ in range(count):
        tokens = [generator.randrange(10, 380) for _ in range(CONTEXT + TARGET)]
        query = {"context": tokens[:CONTEXT], "target": tokens[CONTEXT:]}
        questions.append(json.dumps({"queries": [query], "detail": "tokens"}).encode())
    return questions


class Phase:
    """The answers of one phase, and the seconds that they took."""

    def __init__(self):
        # Seconds from the time at which each question was due to its answer.
        self.latencies = []
        # Numbers of questions, with their log-probabilities.
        self.answers = []
        self.lost = 0
        # Rejections, reconnections and failures of attempts.
        self.retries = collections.Counter()

    def percentile(self, share):
        """Returns a percentile of the latencies, in milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")

    def __str__(self):
        shares = [("p50", 0.5), ("p99", 0.99), ("max", 1)]
        values = [f"{name} {self.percentile(share):.1f} ms" for name, share in shares]
        retries = ", ".join(f"{count} x {name}" for name, count in self.retries.items()) or "none"
        return f"{len(self.answers)} answers, {self.lost} lost, {', '.join(values)}, retries: {retries}"


class Asker:
    """The client, with one connection that it opens again only if it breaks."""

    def __init__(self, server, key):
        self.server = server
        self.headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)

    def run(self, questions, numbers):
        """Asks the questions with these numbers, each at its time even if others are late."""
        phase = Phase()
        start = time.monotonic()
        for place, number in enumerate(numbers):
            due = start + place * PERIOD
            time.sleep(max(0, due - time.monotonic()))
            answer = self.ask(questions[number], due, phase)
            if answer is None:
                phase.lost += 1
                if not self.server.is_alive():
                    phase.lost += len(numbers) - place - 1
                    break
                continue
            phase.latencies.append(time.monotonic() - due)
            phase.answers.append((number, answer))
        return phase

    def ask(self, question, due, phase):
        """Asks until there is an answer. Returns its log-probabilities, or None after `TIMEOUT`."""
        while time.monotonic() < due + TIMEOUT and self.server.is_alive():
            try:
                self.connection.request("POST", "/logprobs", question, self.headers)
                response = self.connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                phase.retries[type(error).__name__] += 1
                self.connection.close()
                time.sleep(PERIOD)
                continue
            if response.status == 200:
                result = json.loads(body)["results"][0]
                return [result["sum"], *result["logprobs"]]
            phase.retries[str(response.status)] += 1
            time.sleep(float(response.headers.get("retry-after", 1)))
        return None
