"""Models behind an API, over HTTP: forms, what is asked again, each row once, kills, bounds."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import score_remote
from journal import FILE, Journal
from patience import GaveUp, Patience, patiently
from remote import Answer, RemoteError, passes, region_of, remote_of
from remote_pass import Asking, longest_answer, quantiles, remote_pass

from common.failure import JobError
from tests.support.judges import Faults, Hold, JudgeServer, judging, use

from .conftest import FOLDER, rows, write_rows

pytestmark = pytest.mark.usefixtures("account")
QUICK = Patience(60, 0.001, 0.01)
SHORT = Patience(3, 0.001)
MODELS = ("bedrock:eu.amazon.nova-lite-v1:0", "endpoint:fmops-endpoint")
SYSTEM: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]


def echo(_: str, messages: list[dict[str, Any]]) -> str:
    """Says the right thing to every other row of `rows`."""
    words = messages[-1]["content"].split()
    call = {"name": words[0], "arguments": {"area": words[3], "level": int(words[4])}}
    return json.dumps(call, separators=(",", ":")) if int(words[4]) % 2 else "none"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    with judging(lambda *_: "") as made:
        made.answers = echo
        use(made, monkeypatch)
        yield made


@pytest.mark.parametrize("where", MODELS)
def test_both_services_are_asked_the_same(server: JudgeServer, where: str) -> None:
    heard: list[Any] = []
    server.answers = lambda _, messages: heard.append(messages) or "hi"  # type: ignore[func-returns-value]
    answer = remote_of(where, 1).answer([*SYSTEM, {"role": "assistant", "content": "yes?"}, SYSTEM[1]], (), 20)
    assert heard == [[*SYSTEM, {"role": "assistant", "content": "yes?"}, SYSTEM[1]]]
    assert (answer.text, answer.input_tokens > 0, answer.output_tokens > 0) == ("hi", True, True)
    assert answer.seconds > 0
    assert server.asked == [(where.partition(":")[2], "hello")]


def test_an_inference_component_is_named(server: JudgeServer) -> None:
    server.answers = lambda *_: "hi"
    remote_of("endpoint:shared/my-adapter", 1).answer(SYSTEM, (), 20)
    assert server.asked == [("shared/my-adapter", "hello")]


TOOL: Any = {"type": "function", "function": {"name": "f"}}
CALL: Any = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}


@pytest.mark.parametrize(
    ("where", "messages", "tools", "words"),
    [
        (MODELS[0], SYSTEM, [TOOL], "rows with tools"),
        (MODELS[0], [SYSTEM[1], CALL], [], "tool calls"),
        (MODELS[0], SYSTEM[:1], [], "needs a user's message"),
        (MODELS[1], [SYSTEM[1], CALL], [], "no tool calls"),
        (MODELS[1], SYSTEM, [TOOL], ""),
    ],
)
def test_what_an_api_does_not_take_is_said(
    server: JudgeServer, where: str, messages: list[Any], tools: list[Any], words: str
) -> None:
    server.answers = lambda *_: "hi"
    remote = remote_of(where, 1)
    assert words in remote.refusal(messages, tools)
    assert bool(words) == bool(remote.refusal(messages, tools))
    if words:
        with pytest.raises(RemoteError, match=words):
            remote.answer(messages, tools, 20)
        assert server.requests == 0
    else:
        assert remote.answer(messages, tools, 20).text == "hi"


def response(code: str, status: int, **more: Any) -> dict[str, Any]:
    return {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}, **more}


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (response("ThrottlingException", 429), True),
        (response("ThrottlingException", 400), True),
        (response("TooManyRequestsException", 429), True),
        (response("ServiceUnavailable", 503), True),
        (response("ModelNotReadyException", 429), True),
        (response("ModelTimeoutException", 408), True),
        (response("Whatever", 502), True),
        (response("ModelError", 424, OriginalStatusCode=500), True),
        (response("ModelError", 424, OriginalStatusCode=400), False),
        (response("ModelError", 424, OriginalStatusCode=424), False),
        (response("ModelErrorException", 424, originalStatusCode=503), True),
        (response("AccessDeniedException", 403), False),
        (response("ValidationException", 400), False),
        (response("ValidationError", 400), False),
        (response("ResourceNotFoundException", 404), False),
        (response("ExpiredTokenException", 403), False),
        (response("ServiceQuotaExceededException", 400), False),
    ],
)
def test_which_errors_pass(error: dict[str, Any], passing: bool) -> None:
    assert passes(error) is passing


@pytest.mark.parametrize("where", MODELS)
def test_every_failure_that_passes_is_asked_again_and_counted_once(server: JudgeServer, where: str) -> None:
    """botocore's own retries would hide attempts: requests that arrive are attempts that are counted."""
    server.faults = Faults(failed=0.5, dice=random.Random(3))
    server.answers = lambda *_: "hi"
    remote, counted = remote_of(where, 1), 0
    for _ in range(20):
        counted += patiently(lambda: remote.answer(SYSTEM, (), 20), QUICK)[1]
    assert counted == server.requests > 30
    assert len(server.asked) == 20


def test_pauses_are_drawn_up_to_lengths_that_double_to_a_limit() -> None:
    patience = Patience(first=1.0, longest=5.0)
    drawn = {failed: [patience.pause(failed) for _ in range(300)] for failed in (1, 2, 3, 4, 50, 5000)}
    tops = {failed: max(pauses) for failed, pauses in drawn.items()}
    for failed, most in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (50, 5.0), (5000, 5.0)):
        assert 0.9 * most < tops[failed] <= most
        assert min(drawn[failed]) < 0.1 * most, "full jitter: from nothing on"


def test_a_request_is_given_up_and_says_why() -> None:
    waits: list[float] = []

    def refuse() -> Answer:
        raise RemoteError("too many requests", passing=True)

    with pytest.raises(GaveUp, match="not answered in 4 attempts: too many requests"):
        patiently(refuse, Patience(4, 1.0), waits.append)
    assert len(waits) == 3


def asked(server: JudgeServer, folder: Path, at_once: int, count: int = 500, where: str = MODELS[0]) -> Any:
    with Journal(folder) as journal:
        asking = Asking(journal, at_once, QUICK)
        return remote_pass(asking, "candidate", remote_of(where, at_once), where, rows(count), 64)


@pytest.mark.parametrize("where", MODELS)
def test_with_30_percent_throttled_and_10_percent_5xx_each_of_500_rows_is_scored_once(
    server: JudgeServer, tmp_path: Path, where: str
) -> None:
    server.faults = Faults(0.3, 0.1, random.Random(7))
    done, served = asked(server, tmp_path / "j", 32, where=where)
    questions = [row["messages"][0]["content"] for row in rows(500)]
    assert Counter(question for _, question in server.asked) == Counter(questions)
    assert done.answers == [echo("", row["messages"][:-1]) for row in rows(500)]
    assert served["attempts"] == server.requests
    assert 500 / 0.7 < server.requests < 500 / 0.5
    assert (len(done.latencies), done.losses, served["kept"]) == (500, [], 0)
    assert served["input_tokens"] == sum(done.lengths) == (100 if where == MODELS[0] else 50) * 500
    assert len((tmp_path / "j" / FILE).read_text().splitlines()) == 500
    # Again: nothing is asked.
    again, served = asked(server, tmp_path / "j", 32, where=where)
    assert (again.answers, again.latencies, served["kept"]) == (done.answers, done.latencies, 500)
    assert len(server.asked) == 500


def test_as_many_are_asked_at_once_as_allowed_with_the_same_results(server: JudgeServer, tmp_path: Path) -> None:
    server.gate = threading.Barrier(5)  # five come together, or none goes on
    many, _ = asked(server, tmp_path / "many", 5, 100)
    assert server.at_once == 5
    server.gate, server.at_once = None, 0
    one, _ = asked(server, tmp_path / "one", 1, 100)
    assert server.at_once == 1
    assert one.answers == many.answers


def test_rows_that_ask_the_same_are_asked_each(server: JudgeServer, tmp_path: Path) -> None:
    row = rows(1)[0]
    with Journal(tmp_path) as journal:
        asking = Asking(journal, 2, QUICK)
        for expected in (3, 3):
            remote_pass(asking, "base", remote_of(MODELS[0], 2), MODELS[0], [row] * 3, 64)
            assert len(server.asked) == expected
        # Another limit, another model: other answers.
        remote_pass(asking, "base", remote_of(MODELS[0], 2), MODELS[0], [row] * 3, 65)
        remote_pass(asking, "base", remote_of(MODELS[1], 2), MODELS[1], [row] * 3, 64)
    assert len(server.asked) == 9


def test_what_is_torn_or_broken_is_asked_again(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(server, tmp_path, 4, 10)
    file = tmp_path / FILE
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:4], b"{broken\n", *lines[5:9], lines[9][:30]]))
    done, served = asked(server, tmp_path, 4, 10)
    assert (len(server.asked), served["kept"]) == (12, 8)
    assert done.answers == [echo("", row["messages"][:-1]) for row in rows(10)]
    assert "a line of answers.jsonl can't be read" in capsys.readouterr().out
    assert asked(server, tmp_path, 4, 10)[1]["kept"] == 10, "the torn line did not swallow the next"


def test_an_earlier_attempts_journal_is_read_from_where_it_lies(server: JudgeServer, tmp_path: Path) -> None:
    asked(server, tmp_path / "first", 4, 10)
    with Journal(tmp_path / "second", [tmp_path / "first", tmp_path / "absent"]) as journal:
        remote_pass(Asking(journal, 4, QUICK), "base", remote_of(MODELS[0], 4), MODELS[0], rows(12), 64)
    assert len(server.asked) == 12


def test_rows_that_were_given_up_fail_the_pass_and_the_others_are_kept(server: JudgeServer, tmp_path: Path) -> None:
    def stubborn(name: str, messages: list[dict[str, Any]]) -> str:
        if messages[-1]["content"].endswith(" 7"):
            raise ConnectionError  # the connection ends without an answer
        return echo(name, messages)

    server.answers = stubborn
    with Journal(tmp_path) as journal, pytest.raises(JobError) as caught:
        remote_pass(Asking(journal, 4, SHORT), "candidate", remote_of(MODELS[0], 4), MODELS[0], rows(20), 64)
    text = str(caught.value)
    assert text.startswith("1 of 20 rows were given up, the first of them row 7: not answered in 3 attempts: bedrock:")
    assert "19 answers are kept in" in text
    server.answers = echo
    assert asked(server, tmp_path, 4, 20)[1]["kept"] == 19


def test_where_nothing_is_answered_the_pass_ends_early(server: JudgeServer, tmp_path: Path) -> None:
    server.faults = Faults(throttled=1.0)
    with Journal(tmp_path) as journal, pytest.raises(JobError, match="rows were given up"):
        remote_pass(Asking(journal, 4, SHORT), "candidate", remote_of(MODELS[0], 4), MODELS[0], rows(500), 64)
    assert server.requests < 60


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("bedrock:absent", "ValidationException"),
        ("endpoint:other-form", "answers in another form than OpenAI's"),
        ("endpoint:strict", "ModelError"),
    ],
)
def test_what_does_not_pass_ends_the_pass_at_once(server: JudgeServer, tmp_path: Path, where: str, words: str) -> None:
    with Journal(tmp_path) as journal, pytest.raises(JobError, match=words) as caught:
        remote_pass(Asking(journal, 4, QUICK), "candidate", remote_of(where, 4), where, rows(500), 64)
    assert "\n" not in str(caught.value)
    assert server.requests <= 8, "those that were under way"


def test_a_row_that_can_not_be_asked_is_named_before_any_is(server: JudgeServer, tmp_path: Path) -> None:
    cases = [*rows(5), {**rows(1)[0], "tools": [TOOL]}]
    with Journal(tmp_path) as journal, pytest.raises(JobError, match=r"test row 5 can't be asked of bedrock:.*tools"):
        remote_pass(Asking(journal, 4, QUICK), "base", remote_of(MODELS[0], 4), MODELS[0], cases, 64)
    assert server.requests == 0


def test_quantiles_are_times_that_were_measured() -> None:
    seconds = [float(number) for number in range(1, 101)]
    random.Random(1).shuffle(seconds)
    assert quantiles(seconds) == {"latency_p50": 50.0, "latency_p90": 90.0, "latency_p99": 99.0}
    assert set(quantiles([0.25]).values()) == {0.25}


def test_a_limit_follows_from_the_longest_target_where_none_is_given() -> None:
    row = rows(1)[0]
    cases: Any = [row, {"messages": [row["messages"][0], {"role": "assistant", "content": "x" * 100}]}]
    assert longest_answer(cases) == 66
    cases[1]["messages"][1]["content"] = "漢" * 100
    assert longest_answer(cases) == 166


def test_a_model_is_asked_where_its_arn_says_it_lies() -> None:
    arn = "arn:aws:bedrock:us-west-2:111122223333:custom-model-deployment/abcdefabcdef"
    assert region_of(arn) == "us-west-2"
    assert region_of("eu.amazon.nova-lite-v1:0") is None
    assert "us-west-2" not in str(remote_of(MODELS[0], 1).client.meta.region_name)  # type: ignore[attr-defined]
    with pytest.raises(JobError, match="names no model; allowed: bedrock:"):
        remote_of("openai:gpt", 1)


def job(folder: Path, url: str, *flags: str) -> subprocess.Popen[str]:
    """score_remote.py in a process of its own, as a container runs it."""
    data = write_rows(folder / "test", rows(500))
    command = [sys.executable, str(FOLDER / "score_remote.py"), "--model", MODELS[0], "--data", str(data),
               "--output", str(folder / "out"), "--journal", str(folder / "journal"), "--max-rows", "0",
               "--at-once", "8", "--attempts", "60", "--first-pause", "0.001", *flags]  # fmt: skip
    environment = {**os.environ, "AWS_ENDPOINT_URL": url, "PYTHONPATH": str(FOLDER.parent)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_job_that_was_killed_asks_the_rest_and_finds_the_same(server: JudgeServer, tmp_path: Path) -> None:
    server.faults, server.hold = Faults(0.3, 0.1, random.Random(11)), Hold(200, 8)
    first = job(tmp_path, server.url)
    assert server.hold.full.wait(60), "every thread of the job waits: all answers before are kept"
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    hold, server.hold = server.hold, None
    hold.dropped = True
    hold.free.set()
    answered = [question for _, question in server.asked]
    assert (len(answered), len((tmp_path / "journal" / FILE).read_bytes().splitlines())) == (200, 200)
    assert not (tmp_path / "out").exists()

    second = job(tmp_path, server.url)
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert "200 of 500 rows are answered in" in out
    assert "[score] model=candidate rows=500/500" in out
    questions = [row["messages"][0]["content"] for row in rows(500)]
    assert Counter(question for _, question in server.asked) == Counter(questions), "no row twice"
    found = json.loads((tmp_path / "out/evaluation.json").read_text("utf-8"))
    assert found["metrics"]["exact_match"]["candidate"]["value"] == 0.5
    assert found["served"]["candidate"]["kept"] == 200
    # The same as a job that nobody killed, but for what time took.
    whole = tmp_path / "whole"
    assert score_remote.main(
        ["--model", MODELS[0], "--data", str(tmp_path / "test"), "--output", str(whole), "--journal",
         str(tmp_path / "other"), "--max-rows", "0", "--first-pause", "0.001", "--attempts", "60"]
    ) == 0  # fmt: skip
    lines = [(place / "predictions.jsonl").read_text("utf-8") for place in (tmp_path / "out", whole)]
    assert lines[0] == lines[1]
    metrics = [
        json.loads((place / "evaluation.json").read_text("utf-8"))["metrics"] for place in (tmp_path / "out", whole)
    ]
    assert [{k: v for k, v in found.items() if k != "latency_seconds"} for found in metrics[:1]] == [
        {k: v for k, v in found.items() if k != "latency_seconds"} for found in metrics[1:]
    ]


def test_a_second_job_waits_for_the_first_and_asks_nothing_again(server: JudgeServer, tmp_path: Path) -> None:
    server.hold = Hold(100, 8)
    first = job(tmp_path, server.url)
    assert server.hold.full.wait(60)
    second = job(tmp_path, server.url)
    assert second.stdout is not None
    for line in second.stdout:
        if "waiting for its end" in line:
            break
    else:
        raise AssertionError("it did not wait")
    hold, server.hold = server.hold, None
    hold.free.set()
    for started in (first, second):
        _, err = started.communicate(timeout=120)
        assert started.returncode == 0, err
    assert len(server.asked) == 500
