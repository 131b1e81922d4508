"""Models behind an API, over HTTP: every row once, whatever is refused or killed; what is measured; what it costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import score_remote
from journal import Journal
from patience import Patience
from remote import RemoteError, remote_of
from remote_pass import answer_limit, run_remote_pass

from common.failure import JobError
from tests.support.bundles import bundled
from tests.support.remote_models import ModelServer, serving
from tests.support.waiting import until

from .conftest import write_rows
from .test_score import Page

BEDROCK, ENDPOINT = "bedrock:amazon.nova-micro-v1:0", "endpoint:fmops-chat"
QUICK = Patience(attempts=40, first=0.0005, longest=0.002)


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("ACCESS_KEY_ID", "111122223333"), ("SECRET_ACCESS_KEY", "x"), ("REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def use(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)


def row(number: int, group: int | None = None) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": f"answer {number}"}]
    return {"messages": messages, **({"group": str(group)} if group is not None else {})}


def echo(model: str, question: str) -> str:
    """The tuned model is right, the base in every fourth row."""
    number = int(question.split()[-1])
    return f"answer {number}" if "base" not in model or number % 4 == 0 else "no idea"


@pytest.mark.parametrize("where", [BEDROCK, ENDPOINT])
def test_every_row_is_scored_once_under_throttling_and_errors(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases: Any = [row(number) for number in range(500)]
    with serving(echo, throttled=0.3, broken=0.1) as server, Journal(tmp_path) as journal:
        use(server, monkeypatch)
        asked = run_remote_pass("m", remote_of(where, 16), cases, 32, journal, 16, QUICK)
        assert set(server.answered.values()) == {1}
        assert len(server.answered) == 500
        assert 200 < server.refused < 500
        assert asked.attempts == 500 + server.refused
        assert 1 < server.at_once <= 16
    assert asked.done.answers == [f"answer {number}" for number in range(500)]
    assert (asked.input_tokens, asked.output_tokens, asked.kept) == (5000, 1000, 0)
    assert len(asked.done.latencies) == 500


def test_one_at_a_time_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: Any = [row(number % 20) for number in range(60)]  # each question three times: all are asked
    found = []
    for at_once in (1, 8):
        with serving(echo, throttled=0.2) as server, Journal(tmp_path / str(at_once)) as journal:
            use(server, monkeypatch)
            found.append(run_remote_pass("m", remote_of(BEDROCK, at_once), cases, 32, journal, at_once, QUICK).done)
            assert set(server.answered.values()) == {3}
            assert server.at_once <= at_once
    assert found[0].answers == found[1].answers


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import score_remote
score_remote.main(sys.argv[2:])
"""


def test_a_kill_in_the_middle_asks_no_answered_row_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_rows(tmp_path / "test", [row(number, number % 25) for number in range(200)])
    words = ["--model", ENDPOINT, "--data", str(data), "--output", str(tmp_path / "out"), "--journal",
             str(tmp_path / "journal"), "--at-once", "4", "--max-new-tokens", "32", "--max-rows", "0"]  # fmt: skip
    with serving(echo) as server:
        use(server, monkeypatch)
        server.seconds = 0.01
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(bundled("evaluation")), *words], stdout=subprocess.DEVNULL
        )
        until(lambda: sum(server.answered.values()), lambda count: count > 60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        until(lambda: server.busy, lambda busy: busy == 0)
        kept = (tmp_path / "journal" / "answers.jsonl").read_bytes().count(b"\n")
        with (tmp_path / "journal" / "answers.jsonl").open("ab") as torn:
            torn.write(b'{"key": "torn')
        assert 50 < kept < 200
        before = sum(server.answered.values())
        assert score_remote.main(words) == 0
        # What was on its way at the kill is asked again: it was answered, but nobody heard it.
        assert sum(server.answered.values()) == before + 200 - kept
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert evaluation["metrics"]["exact_match"]["candidate"]["value"] == 1.0
    assert evaluation["settings"]["remote"]["candidate"]["answered_before"] == kept


def test_what_does_not_pass_ends_at_once_and_what_stays_unanswered_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases: Any = [row(number) for number in range(40)]
    with serving(echo) as server, Journal(tmp_path / "a") as journal:
        use(server, monkeypatch)
        with pytest.raises(JobError, match="The provided model identifier is invalid"):
            run_remote_pass("m", remote_of("bedrock:absent", 4), cases, 32, journal, 4, QUICK)
    with serving(echo, throttled=1.0) as server, Journal(tmp_path / "b") as journal:
        use(server, monkeypatch)
        with pytest.raises(JobError, match="left 40 of 40 rows unanswered, first row 0: not answered in 2 attempts"):
            run_remote_pass("m", remote_of(ENDPOINT, 4), cases, 32, journal, 4, Patience(2, 0.001, 0.001))
    calls: Any = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": [{}]}
    ]
    with Journal(tmp_path / "c") as journal, pytest.raises(JobError, match="test row 0 can't be asked: Converse"):
        run_remote_pass("m", remote_of(BEDROCK, 1), calls, 32, journal, 1, QUICK)
    with pytest.raises(JobError, match="names no model; allowed"):
        remote_of("chat", 1)
    with pytest.raises(RemoteError) as refused:
        remote_of("endpoint:nobody-listens", 1).answer([{"role": "user", "content": "a"}], (), 8)
    assert refused.value.passing, "nobody listens there now, which may pass"


def test_the_same_contract_as_an_evaluation_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_rows(tmp_path / "test", [row(number, number % 30) for number in range(120)])
    training = write_rows(tmp_path / "train", [row(1000 + number) for number in range(40)])
    customization = tmp_path / "customization.json"
    customization.write_text(
        json.dumps(
            {
                "base_model": "amazon.nova-micro-v1:0:128k",
                "hyperparameters": {"epochCount": "2"},
                "training_loss": 0.5,
                "validation_losses": [0.7],
                "seconds": 61.5,
                "training": [{"step": 1, "epoch": 0.5, "loss": 2.0}, {"step": 2, "epoch": 1.0, "loss": 0.5}],
                "validation": [{"step": 2, "epoch": 1.0, "loss": 0.7}],
            }
        )
    )
    words = [
        "--model", ENDPOINT, "--base", "bedrock:amazon.base-v1:0", "--data", str(data), "--train-data", str(training),
        "--output", str(tmp_path / "out"), "--journal", str(tmp_path / "journal"), "--few-shot", "3", "--max-rows", "0",
        "--customization", str(customization), "--rule", "exact_match base better_by 0.05 0.95",
        "--rule", "latency_seconds value not_worse_than 20 0.95",
        "--rule", "exact_match champion not_worse_than 0.05 0.95",
    ]  # fmt: skip
    with serving(echo) as server:
        use(server, monkeypatch)
        assert score_remote.main(words) == 0
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert evaluation["gate"]["passed"] == 1, evaluation["gate"]["text"]
    found = evaluation["metrics"]["exact_match"]
    assert (found["candidate"]["value"], found["base"]["value"]) == (1.0, 0.25)
    assert "base_few_shot" in found
    assert "validation_loss" not in evaluation["metrics"]
    told = evaluation["settings"]["remote"]["base"]
    assert told["input_tokens"] == 1200
    assert 0 < told["latency"]["p50"] <= told["latency"]["p90"] <= told["latency"]["p99"]
    assert evaluation["training"]["history"][1] == {"step": 2, "train_loss": 0.5, "validation_loss": 0.7}
    records = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert records[1]["answers"]["candidate"] == "answer 1"
    assert "loss" not in records[1]["metrics"]["candidate"]
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "p99" in page.text
    assert "Loss during training" in page.text


def test_texts_and_preferences_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "test", [{"text": "a text"}] * 3)
    words = [
        "--model",
        ENDPOINT,
        "--data",
        str(data),
        "--output",
        str(tmp_path / "o"),
        "--journal",
        str(tmp_path / "j"),
    ]
    assert score_remote.main(words) == 1
    assert "no API tells them" in capsys.readouterr().err


@pytest.mark.parametrize(("targets", "asked", "limit"), [(["ab", "x" * 100], 0, 66), (["a"], 0, 16), (["a"], 7, 7)])
def test_an_answer_may_be_longer_than_the_longest_target(targets: list[str], asked: int, limit: int) -> None:
    assert answer_limit(targets, asked) == limit
