"""Task files for lm-evaluation-harness, one of each kind, over the sentences in this file."""

import json

SENTENCES = [
    "The harbour was quiet when the lamps went out.",
    "A clerk counted barrels, then counted them again.",
    "Nobody on the quay had seen the ship arrive, and nobody saw it leave.",
    "Thirty, and one that rattles: 31 in all; café, naïve, 東京.",
    "He paid twice\nand left\n\nwithout a word.",
    "x = [1, 2, 3]  # three numbers",
]

KINDS = ["loglikelihood", "loglikelihood_rolling", "multiple_choice", "generate_until"]

TASK = """task: surprisal_{kind}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: {kind}
test_split: test
{body}
metadata:
  version: 1
"""

BODIES = {
    "loglikelihood": """doc_to_text: "{{context}}"
doc_to_target: "{{rest}}"
target_delimiter: ""
metric_list:
  - metric: perplexity
  - metric: acc""",
    "loglikelihood_rolling": """doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: word_perplexity
  - metric: bits_per_byte""",
    "multiple_choice": """doc_to_text: "{{context}}"
doc_to_choice: "{{choices}}"
doc_to_target: 0
target_delimiter: " "
metric_list:
  - metric: acc
  - metric: acc_norm""",
    "generate_until": """doc_to_text: "{{text}}"
doc_to_target: "{{rest}}"
generation_kwargs:
  until: ["e", "\\n\\n"]
  max_gen_toks: 24
  do_sample: false
metric_list:
  - metric: exact_match""",
}


def write(folder):
    """Writes data and tasks; returns the names of the tasks."""
    rows = []
    for at, text in enumerate(SENTENCES):
        half = len(text) // 2
        others = [SENTENCES[(at + step) % len(SENTENCES)][:12] for step in (1, 2)]
        rows.append({"text": text, "context": text[:half], "rest": text[half:], "choices": [text[half:], *others]})
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for kind in KINDS:
        (folder / f"{kind}.yaml").write_text(TASK.format(kind=kind, data=data, body=BODIES[kind]))
    return [f"surprisal_{kind}" for kind in KINDS]
