"""Scores of lm-evaluation-harness (written against lm_eval 0.4.13 with transformers 5) through `kindling serve`, beside those of `kindling eval`.

`cargo xtask check lm-eval` runs it: ADDRESS MODEL KEY FOLDER, where FOLDER has tokenizer.json, text.txt, rows.jsonl, and what `kindling eval --json`
says of both in text.json and rows.json.
"""

import json
import os
import sys
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OPENAI_API_KEY=sys.argv[3])

import lm_eval
from lm_eval.tasks import TaskManager

address, model, _, folder = sys.argv[1:5]
folder = Path(folder)
special = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
(folder / "tokenizer_config.json").write_text(json.dumps(special))
(folder / "text.jsonl").write_text(json.dumps({"text": (folder / "text.txt").read_text()}) + "\n")


def scores(name, config, tokenized):
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(config.pop("file"))}}, "test_split": "test"}
    client = {
        "model": model,
        "base_url": f"{address}/v1/completions",
        "tokenizer": str(folder),
        "tokenizer_backend": "huggingface",
        "tokenized_requests": tokenized,
        "max_length": 10_000,
        "num_concurrent": 4,
    }
    task = {"task": name, **data, **config}
    found = lm_eval.simple_evaluate("local-completions", model_args=client, tasks=[task], task_manager=TaskManager(), bootstrap_iters=0)
    return found["results"][name]


def beside(what, theirs, ours):
    if abs(theirs - ours) > 1e-4 * max(1, abs(ours)):
        sys.exit(f"not equal: {what}, {theirs} by lm_eval, {ours} by kindling eval")
    print(f"ok  {what}: {theirs:.6f} by lm_eval, {ours:.6f} by kindling eval")


metrics = [{"metric": "bits_per_byte"}]
text = scores(
    "text",
    {"file": folder / "text.jsonl", "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}", "metric_list": metrics},
    True,
)
ours = json.loads((folder / "text.json").read_text())
beside("bits per byte of a text", text["bits_per_byte,none"], ours["bits_per_byte"])

metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
rows = scores(
    "rows",
    {
        "file": folder / "rows.jsonl",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{choices.index(answer)}}",
        "metric_list": metrics,
    },
    False,
)
report = json.loads((folder / "rows.json").read_text())
accuracy = next(score for score in report["systems"][0]["scores"] if score["name"] == "accuracy")
beside("accuracy by likelihood a byte", rows["acc_norm,none"], accuracy["value"])
