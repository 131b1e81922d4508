"""What cannot be trained ends with exit code 1, one sentence and no model."""

from __future__ import annotations

import errno
import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.training_job import TrainingJob, chat, lamp_rows, write_rows

NewJob = Callable[..., TrainingJob]


def fails(job: TrainingJob, said: str, **hyperparameters: Any) -> None:
    assert job.run(**{"max_steps": 2, **hyperparameters}) == 1
    lines = job.err.splitlines()
    assert lines[-1].startswith("train.py: error: ")
    assert "Traceback" not in job.err
    assert said in job.failure()
    assert job.failure().count("\n") == 1
    left = list(job.model_dir.iterdir()) if job.model_dir.exists() else []
    assert left == [], "nothing that looks like a model"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the file is empty"),
        ("\n  \n", "the file is empty"),
        ('{"messages": [', "train.jsonl, line 1: not JSON"),
        (
            json.dumps(chat("a", "b")) + '\n{"prompt": "a"}\n',
            'train.jsonl, line 2: not a canonical row: no "messages" list',
        ),
        ('{"messages": [{"role": "user", "content": "hi"}]}', "the last message must be the assistant's"),
        ('{"messages": [{"role": "assistant", "content": "hi"}]}', "nothing before the assistant's message"),
        ('{"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": "x"}]}', 'a text "content"'),
        (json.dumps(chat("a", "")), "not empty"),
    ],
)
def test_rows(new_job: NewJob, content: str, said: str) -> None:
    fails(new_job(train=content), said)


def test_not_utf8(new_job: NewJob) -> None:
    job = new_job()
    file = Path(job.environment["SM_CHANNEL_TRAIN"]) / "train.jsonl"
    file.write_bytes(json.dumps(chat("a", "b")).encode() + b"\n\xff\xfe\n")
    fails(job, "not UTF-8")


def test_byte_order_mark_and_windows_lines_are_read(new_job: NewJob) -> None:
    job = new_job(validation=None)
    file = Path(job.environment["SM_CHANNEL_TRAIN"]) / "train.jsonl"
    file.write_bytes("\ufeff".encode() + file.read_bytes().replace(b"\n", b"\r\n"))
    assert job.run(max_steps=1) == 0, job.err
    assert job.report()["train_rows"] == 48


def test_every_row_too_long(new_job: NewJob) -> None:
    fails(new_job(), "all 48 rows in", max_seq_length=16)


def test_channels(new_job: NewJob, tmp_path: Path) -> None:
    job = new_job()
    shutil.rmtree(job.environment["SM_CHANNEL_TRAIN"])
    fails(job, "does not exist")
    empty = new_job("empty")
    Path(empty.environment["SM_CHANNEL_TRAIN"], "train.jsonl").unlink()
    fails(empty, "no .jsonl file in")
    fails(new_job("none", base=None), "no base model: give a model channel")
    fails(new_job("alone", validation=None), "needs a validation channel", early_stopping_patience=2)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors", "has no weights"),
        ("config.json", "no config.json"),
    ],
)
def test_model_directory(new_job: NewJob, base: Path, tmp_path: Path, missing: str, said: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    (broken / missing).unlink()
    fails(new_job(base=broken), said)


def test_damaged_weights(new_job: NewJob, base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    fails(new_job(base=broken), "it isn't whole, and must be copied again")


def test_unknown_hyperparameter(new_job: NewJob) -> None:
    fails(new_job(), "unknown hyperparameter --learning-rate 1; allowed: method,", **{"learning-rate": 1})


def test_unknown_target_modules(new_job: NewJob) -> None:
    fails(new_job(), "allowed: all-linear or some of down_proj, gate_proj,", lora_target_modules="query")


def test_loss_that_is_not_a_number(new_job: NewJob, base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    poisoned = tmp_path / "poisoned"
    shutil.copytree(base, poisoned)
    weights = load_file(poisoned / "model.safetensors")
    weights["model.norm.weight"] *= float("nan")
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})
    job = new_job(base=poisoned)
    fails(job, "the loss is nan at step 1")
    assert not list(job.checkpoints.glob("*/checkpoint-*")), "no checkpoint of broken weights"


def test_disk_too_small_is_noticed_before_training(new_job: NewJob, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    job = new_job()
    fails(job, "no disk space")
    assert "[train]" not in job.out


def test_disk_full_while_saving_leaves_no_model(new_job: NewJob, monkeypatch: pytest.MonkeyPatch) -> None:
    import saving

    def full(draft: Path, model_dir: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(draft))

    monkeypatch.setattr(saving, "_move", full)
    fails(new_job(), "no disk space left")


def test_validation_rows_are_checked_too(new_job: NewJob, tmp_path: Path) -> None:
    job = new_job(train=lamp_rows(4))
    write_rows(Path(job.environment["SM_CHANNEL_VALIDATION"]), "{}\n")
    fails(job, "validation.jsonl, line 1")
