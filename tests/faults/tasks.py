"""The tasks to run with faults: a server with one request of each route, an estimate, and a merge."""

import gzip
import json
import os
import pathlib
import shutil

import library
import program
from routes import Answers

ESTIMATE = ["estimate", "experiment.toml", "--out", "out", "--json"]


class Task:
    """A command that runs in a folder of its own, which begins as a copy of `template`."""

    def __init__(self, subject, template):
        self.subject = subject
        # The files that each run starts with.
        self.template = pathlib.Path(template)
        self.expected = None

    def run(self, folder, fault):
        """Runs in a new folder. Returns the outcome, in words; program.is_bad tells whether it is bad."""
        shutil.copytree(self.template, folder, copy_function=os.link)
        outcome = self.attempt(folder, fault)
        if fault.point and library.read_log(folder)[2] == 0:
            return outcome if program.is_bad(outcome) else "not reached"
        return outcome


class Serving(Task):
    """A server, from loading its model to SIGTERM. After the fault, every request must succeed."""

    name = "serve"

    def __init__(self, subject, template, requests):
        super().__init__(subject, template)
        self.requests = requests
        self.arguments = ["--cache-mib", "16", "--threads", "2"]

    def attempt(self, folder, fault):
        process, port = self.subject.serve(folder, fault, *self.arguments)
        is_ready = program.wait_until_ready(process, port)
        answers = Answers(self.requests, self.expected)
        bad = answers.send_all(port) if is_ready else ""
        status = program.stop(process)
        text = pathlib.Path(folder, "server").read_text(errors="replace")
        end = program.judge_end(status, text, fault)
        if program.is_bad(end) or not is_ready:
            return end or "unclear: ended while loading, without an error"
        missing = [str(request) for number, request in enumerate(self.requests) if number not in answers.found]
        if bad or end:
            return bad or f"lost: {end}"
        if self.expected is None:
            self.expected = answers.found
        if missing and fault.times == 1:
            return f"lost: {missing[0]}: {answers.problems[-1]}"
        return "; ".join(sorted(set(answers.problems))) or "same result"


class Estimate(Task):
    """An estimate. After a failure, the same command without faults must give the same report."""

    name = "estimate"

    def attempt(self, folder, fault):
        report, outcome = self.estimate(folder, fault)
        if outcome:
            if program.is_bad(outcome):
                return outcome
            report, failed = self.estimate(folder, None)
            if failed:
                return f"lost: {failed} (after {outcome})"
        if self.expected is None:
            self.expected = report
        if differences := [name for name in self.expected if report.get(name) != self.expected[name]]:
            return f"wrong {', '.join(differences)} {f'after {outcome}' if outcome else ''}"
        return f"{outcome}; resumed" if outcome else "same result"

    def estimate(self, folder, fault):
        """Runs the estimate. Returns the report's files by name, and how the run failed."""
        status, out, error = self.subject.run(folder, fault, *ESTIMATE)
        if outcome := program.judge_end(status, error, fault):
            return {}, outcome
        return {"stdout": out.encode()} | contents(folder / "out"), ""


class Merge(Task):
    """A merge of two shards. After a failure, the same command without faults must give the same files."""

    name = "merge"

    def attempt(self, folder, fault):
        outcome = ""
        for this_fault in [fault, None]:
            status, _, error = self.subject.run(folder, this_fault, "merge", "1", "2", "--out", "out")
            failed = program.judge_end(status, error, this_fault)
            if program.is_bad(failed):
                return failed
            if not failed:
                break
            outcome = failed
        else:
            return f"lost: {failed}"
        merged = contents(folder / "out")
        if self.expected is None:
            self.expected = merged
        if merged != self.expected:
            return f"wrong files after {outcome}"
        return f"{outcome}; merged again" if outcome else "same result"


def contents(folder):
    """Returns the files below a folder by name. Temporary files must not remain."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write_experiment(folder, url):
    """Writes an experiment on text files."""
    sentence = "A clerk counted barrels, then counted them again, for the number would not stay the same.\n"
    (folder / "novel.txt").write_text("".join(f"{number}. {sentence}" for number in range(400)))
    lines = (json.dumps({"text": f"{number} {sentence}" * 8}) + "\n" for number in range(40))
    (folder / "lines.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
    (folder / "experiment.toml").write_text(
        f"""
        seed = 3
        [model]
        url = "{url}"
        [corpus]
        kind = "text"
        files = ["novel.txt", "lines.jsonl.gz"]
        windows = 4
        [measure]
        splits = [2, 4]
        ratios = [2]
        resamples = 10
        """
    )
