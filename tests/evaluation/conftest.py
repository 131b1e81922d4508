"""Shared by the evaluation tests: the scripts import each other as siblings; a tiny real model answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_model import make_tiny_model

FOLDER = Path(__file__).resolve().parents[2] / "evaluation"
sys.path.insert(0, str(FOLDER))


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account that nothing leads away from; no pauses for a profile or a machine's metadata."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("ACCESS_KEY_ID", "111122223333"), ("SECRET_ACCESS_KEY", "x"), ("REGION", "eu-central-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


ROOMS = ("kitchen", "attic", "office", "garden")


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Canonical rows with JSON targets; the first room is missing from rows 0 to 9."""
    made = []
    for number in range(start, start + count):
        tool, room = ("LightOn", "LightOff")[number % 2], ROOMS[1 + number % 3] if number < 10 else ROOMS[number % 4]
        call = json.dumps({"name": tool, "arguments": {"area": room, "level": number}}, separators=(",", ":"))
        messages = [
            {"role": "user", "content": f"{tool} in the {room} {number}"},
            {"role": "assistant", "content": call},
        ]
        made.append({"messages": messages, "slice": f"room {room}"})
    return made


def write_rows(directory: Path, made: list[dict[str, Any]]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in made) + "\n", encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [message["content"] for row in rows(30) for message in row["messages"]]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    import torch

    torch.set_num_threads(1)  # more threads than free cores wait for each other: 310 s became 61 s on a busy machine
    return make_tiny_model(tmp_path_factory.mktemp("base") / "model", texts)


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """The tiny model trained to know rows 0 to 9 by heart, with a training report."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = tmp_path_factory.mktemp("tuned") / "model"
    tokenizer, model = (
        AutoTokenizer.from_pretrained(base),
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.98))
    ids, masks = [], []
    for row in rows(10):
        text = tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer = [
            *tokenizer(row["messages"][-1]["content"], add_special_tokens=False)["input_ids"],
            tokenizer.eos_token_id,
        ]
        ids.append(prompt + answer)
        masks.append([-100] * len(prompt) + answer)
    width = max(map(len, ids))
    batch = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in ids])
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in masks])
    history = []
    for step in range(1, 601):
        loss = model(input_ids=batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            history.append({"step": step, "train_loss": loss.item(), "validation_loss": loss.item() * 1.1})
        if loss.item() < 0.01:
            break
    assert history[-1]["train_loss"] < 0.03
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    report = {
        "version": 1,
        "method": "full",
        "base_model": "tiny",
        "steps": step,
        "history": history,
        "hyperparameters": {"lr": 0.004},
    }
    (directory / "training_report.json").write_text(json.dumps(report))
    return directory


def evaluate(model: Path, base: Path, data: Path, training: Path, output: Path, *flags: str) -> int:
    """EvaluateBase and Evaluate, as the pipeline runs them; the exit code of the first that fails, else 0."""
    import reference
    import score

    rows = ["--data", str(data), "--train-data", str(training), "--batch-size", "5"]
    scores, asked = str(output.parent / "base-scores"), [*rows, *flags]
    code = reference.main(["--as", "base", "--model", str(base), "--output", scores, *asked])
    shared, place = [], iter(flags)
    for flag in place:  # score.py has neither examples nor windows of its own
        shared += [] if flag in ("--few-shot", "--max_seq_length") else [flag, next(place)]
        if flag in ("--few-shot", "--max_seq_length"):
            next(place)
    return code or score.main(["--model", str(model), "--base-model", str(base), "--base-scores", scores,
                               "--output", str(output), *rows, *shared])  # fmt: skip
