"""With the base model, or its outline, Prepare says whether it can be trained on the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prepare import main

from tests.support.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base") / "model", ["turn on the light"])


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"light {n}", "completion": "on"}) + "\n" for n in range(120)))
    return file


def prepared(rows: Path, *options: Any) -> tuple[int, dict[str, Any], str]:
    """Exit code, model_check.json, and the reason of a failure."""
    out, message = rows.parent / "out", rows.parent / "message"
    code = main(["--input", str(rows), "--output", str(out), "--message-file", str(message), *map(str, options)])
    check = out / "report" / "model_check.json"
    reason = message.read_text() if message.exists() else ""
    return code, json.loads(check.read_text()) if check.exists() else {}, reason


def test_what_was_found_lies_beside_the_report(rows: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, check, _ = prepared(rows, "--base-model", base)
    assert code == 0
    assert check["refusals"] == []
    assert [warning["about"] for warning in check["warnings"]] == ["licence"]
    assert check["facts"]["rows"]["value"]["rows"] == 120
    assert "[prepare] base model: warning: licence: none is named" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--lora_target_modules", "q_proj,nope"), "llama has no layer nope that could get an adapter"),
        (("--max_seq_length", "2048"), "training.max_seq_length is 2048, but the model has 1024 positions"),
    ],
)
def test_a_refusal_ends_the_step_with_its_reason(rows: Path, base: Path, options: tuple[str, ...], said: str) -> None:
    code, check, reason = prepared(rows, "--base-model", base, *options)
    assert code == 1
    assert said in reason
    assert reason.count("\n") == 1
    assert said in check["refusals"][0]["message"]
    assert (rows.parent / "out" / "report" / "data_report.json").exists()


def test_messages_do_not_name_the_containers_folders(rows: Path, base: Path, tmp_path: Path) -> None:
    import shutil

    changed = Path(shutil.copytree(base, tmp_path / "changed"))
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    code, _, reason = prepared(rows, "--base-model", changed)
    assert code == 1
    assert "prepare.py: error: " not in reason
    assert reason.startswith("the base model: weights that a model of the type 'llama' has are not in the files: ")


def test_without_a_base_model_nothing_is_said_of_one(rows: Path) -> None:
    assert prepared(rows)[:2] == (0, {})
