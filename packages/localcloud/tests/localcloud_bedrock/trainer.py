"""A trainer as LOCALCLOUD_BEDROCK names one: it trains a tiny model in earnest, in seconds.

learningRateWarmupSteps says what else it does: 97 writes no history, 98 fails, 99 leaves its process id in
`waiting` and waits to be stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any


def text_of(row: dict[str, Any]) -> list[dict[str, str]]:
    """A row of any family as the chat template's messages."""
    if "prompt" in row:
        return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]

    def plain(content: Any) -> str:
        return content if isinstance(content, str) else " ".join(block["text"] for block in content)

    system = [{"role": "system", "content": plain(row["system"])}] if row.get("system") else []
    return system + [{"role": m["role"], "content": plain(m["content"])} for m in row["messages"]]


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("model", "train", "validation", "family", "hyperparameters", "kind", "output"):
        parser.add_argument(f"--{name}")
    given = parser.parse_args()
    hyperparameters = json.loads(Path(given.hyperparameters).read_text())
    mode = hyperparameters.get("learningRateWarmupSteps")
    output = Path(given.output)
    rows = [json.loads(line) for line in Path(given.train).read_text().splitlines()]
    if mode == "99":
        mark = output.parents[2] / "waiting"
        mark.with_suffix(".part").write_text(str(os.getpid()))
        mark.with_suffix(".part").replace(mark)
        while True:
            time.sleep(0.05)
    if mode == "98":
        print("Traceback ...\nValueError: the loss is not a number", file=sys.stderr)
        return 1
    if mode == "97":
        shutil.copytree(given.model, output / "model")
        return 0

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model)
    end = tokenizer.eos_token
    texts = [tokenizer.apply_chat_template(text_of(row), tokenize=False) + end for row in rows]
    batch = tokenizer(texts[0], return_tensors="pt", add_special_tokens=False)["input_ids"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    history: dict[str, list[dict[str, float]]] = {"training": [], "validation": []}
    epochs = int(hyperparameters["epochCount"])
    for step in range(1, 61):
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        history["training"].append({"step": step, "epoch": epochs * step / 60, "loss": loss.item()})
    if given.validation:
        history["validation"].append({"step": 60, "epoch": float(epochs), "loss": loss.item()})
    model.save_pretrained(output / "model")
    tokenizer.save_pretrained(output / "model")
    (output / "history.json").write_text(json.dumps(history))
    return 0


if __name__ == "__main__":
    sys.exit(main())
