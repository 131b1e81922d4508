"""score_remote.py, whole: the contract of an evaluation of weights, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import score_remote

from tests.support.judges import JudgeServer, judging, use

from .conftest import write_rows
from .test_score import Page

pytestmark = pytest.mark.usefixtures("account")
ENDPOINT, BASE = "endpoint:fmops-chat", "bedrock:amazon.base-v1:0"
CUSTOMIZATION = {
    "base_model": "amazon.nova-micro-v1:0:128k",
    "hyperparameters": {"epochCount": "2"},
    "training_loss": 0.5,
    "validation_losses": [0.7],
    "seconds": 61.5,
    "training": [{"step": 1, "epoch": 0.5, "loss": 2.0}, {"step": 2, "epoch": 1.0, "loss": 0.5}],
    "validation": [{"step": 2, "epoch": 1.0, "loss": 0.7}],
}


def row(number: int, group: int | None = None) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": f"answer {number}"}]
    return {"messages": messages, **({"group": str(group)} if group is not None else {})}


def says(model: str, messages: list[dict[str, Any]]) -> str:
    """The tuned model is right, the base in every fourth row."""
    number = int(str(messages[-1]["content"]).split()[-1])
    return f"answer {number}" if "base" not in model or number % 4 == 0 else "no idea"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    with judging(lambda *_: "") as found:
        found.answers = says
        use(found, monkeypatch)
        yield found


def words(folder: Path, *more: str) -> list[str]:
    data = write_rows(folder / "test", [row(number, number % 30) for number in range(120)])
    return ["--model", ENDPOINT, "--data", str(data), "--output", str(folder / "out"),
            "--journal", str(folder / "journal"), "--max-rows", "0", *more]  # fmt: skip


def test_the_same_contract_as_an_evaluation_of_weights(server: JudgeServer, tmp_path: Path) -> None:
    training = write_rows(tmp_path / "train", [row(1000 + number) for number in range(40)])
    (tmp_path / "customization.json").write_text(json.dumps(CUSTOMIZATION))
    given = words(
        tmp_path, "--base", BASE, "--train-data", str(training), "--few-shot", "3",
        "--customization", str(tmp_path / "customization.json"),
        "--rule", "exact_match base better_by 0.05 0.95", "--rule", "latency_seconds value not_worse_than 20 0.95",
        "--rule", "exact_match champion not_worse_than 0.05 0.95", "--price-input", "1", "--price-output", "4",
    )  # fmt: skip
    assert score_remote.main(given) == 0
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert evaluation["gate"]["passed"] == 1, evaluation["gate"]["text"]
    found = evaluation["metrics"]["exact_match"]
    assert (found["candidate"]["value"], found["base"]["value"]) == (1.0, 0.25)
    assert "base_few_shot" in found
    assert "validation_loss" not in evaluation["metrics"]
    told = evaluation["served"]["base"]
    assert told["usd"] == round((told["input_tokens"] + 4 * told["output_tokens"]) / 1e6, 6)
    assert 0 < told["latency_p50"] <= told["latency_p90"] <= told["latency_p99"]
    assert evaluation["training"]["history"][1] == {"step": 2, "train_loss": 0.5, "validation_loss": 0.7}
    records = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert records[1]["answers"]["candidate"] == "answer 1"
    assert "loss" not in records[1]["metrics"]["candidate"]
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "Loss during training" in page.text
    # Once more: every answer is in the journal.
    before = len(server.asked)
    assert score_remote.main(given) == 0
    assert len(server.asked) == before
    again = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert again["metrics"]["exact_match"] == found
    assert again["served"]["candidate"]["kept"] == 120


def test_a_model_alone_is_measured_and_compared_with_nothing(server: JudgeServer, tmp_path: Path) -> None:
    assert score_remote.main(words(tmp_path)) == 0
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert set(evaluation["metrics"]["exact_match"]) == {"candidate"}
    assert set(evaluation["models"]) == {"candidate"}
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--rule", "exact_match base better_by 0.05 0.95"], "there is no --base to compare with"),
        (["--rule", "validation_loss value not_worse_than 2 0.95"], "needs losses"),
        (["--host", "on-demand"], "--host needs --execution"),
        (["--base", "chat"], "names no model; allowed"),
        (["--base", "bedrock:arn:aws:bedrock:us-east-1:111122223333:custom-model/a.b/c"], "can't be asked by itself"),
    ],
)
def test_what_does_not_go_together_is_bad_usage(
    tmp_path: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        score_remote.main(words(tmp_path, *more))
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_texts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "test", [{"text": "a text"}] * 3)
    given = ["--model", ENDPOINT, "--data", str(data), "--output", str(tmp_path / "o"), "--journal", str(tmp_path)]
    assert score_remote.main(given) == 1
    assert "texts are measured by their loss" in capsys.readouterr().err
