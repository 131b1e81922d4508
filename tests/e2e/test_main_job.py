"""The main job through the command line: own data in, an answering endpoint out; then again, from the cache."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import House, write_config
from tests.support.command import ROOT, environment
from tests.support.waiting import until

# A tiny model, a few steps: what is tested is the way, not the model.
SMALL = [
    *("-p", "MaxSteps=6"), *("-p", "BatchSize=8"), *("-p", "EvaluationRows=8"), *("-p", "FewShot=2"),
    *("-p", "MaxNewTokens=8"), *("-p", "MaxSeqLength=512"),
]  # fmt: skip


@pytest.fixture(scope="session")
def finished(house: House, csv_file: Path) -> str:
    """The id of an execution that went from a CSV file to a registered version."""
    result = house.run("start", "--data", str(csv_file), "--wait", *SMALL)
    assert re.search(r"Register\S*\s+Succeeded", result.stdout), result.stdout
    found = re.search(r"execution (\w+)\.", result.stdout)
    assert found
    return found[1]


def test_status_shows_every_step_of_the_taken_branch(house: House, finished: str) -> None:
    shown = house.run("status", finished).stdout
    for step in ("Prepare", "Train", "Evaluate", "QualityGate", "Register"):
        assert re.search(rf"{step}\S*\s+Succeeded", shown), shown
    assert "GateFailed" not in shown


def test_training_really_happened(house: House, finished: str) -> None:
    lines = house.run("logs", finished, "--step", "Train").stdout.splitlines()
    steps = [line for line in lines if "[train] step=6/6" in line]
    assert steps, lines[-20:]
    assert "train:loss=" in steps[0]


def test_report_and_metrics(house: House, finished: str, tmp_path: Path) -> None:
    result = house.run("report", finished, "--output", str(tmp_path))
    assert "exact_match" in result.stdout
    report = tmp_path / finished / "report.html"
    assert "<svg" in report.read_text(encoding="utf-8")
    evaluation = json.loads((report.parent / "evaluation.json").read_text())
    assert evaluation["rows"] == 8
    for model in ("candidate", "base", "base_few_shot", "improvement"):
        estimate = evaluation["metrics"]["exact_match"][model]
        assert estimate["low"] <= estimate["value"] <= estimate["high"]


def test_approval_deploys_and_the_endpoint_answers(house: House, finished: str) -> None:
    approved = house.run("approve", "1", "--comment", "looks right", "--wait")
    assert "in service" in approved.stdout
    answer = house.run("invoke", "turn on the kitchen light", "--max-new-tokens", "5")
    payload = json.dumps({"inputs": "turn on the kitchen light", "parameters": {"max_new_tokens": 5}})
    runtime = house.client("sagemaker-runtime")
    direct = runtime.invoke_endpoint(EndpointName="fmops-endpoint", ContentType="application/json", Body=payload)
    # A tiny model's answer may be nothing but line breaks, so it is compared as it is.
    assert json.loads(direct["Body"].read())[0]["generated_text"] + "\n" == answer.stdout
    refused = house.run("invoke", "", "--max-new-tokens", "5", expect=1)
    assert "answered 424" in refused.stderr, "a GPU machine's endpoint is an LMI container"
    assert "inputs is empty" in refused.stderr


def test_an_unchanged_second_start_is_all_cache_hits(house: House, finished: str, csv_file: Path) -> None:
    shown = house.run("start", "--data", str(csv_file), "--wait", *SMALL).stdout
    for step in ("Prepare", "EvaluateBase", "Train", "Evaluate"):
        assert re.search(rf"{step}\s+Cache hit", shown), shown
    assert "exact_match is" in house.run("report").stdout, "a cached evaluation is still the run's report"


@pytest.mark.slow
def test_a_new_version_is_held_against_the_one_that_serves(house: House, finished: str, csv_file: Path) -> None:
    rules = "gate: {rules: [{metric: exact_match, against: champion, not_worse_than: 1.0}]}\n"
    folder = house.directory / "champion"
    folder.mkdir()
    config = write_config(folder, rules)
    house.run("approve", "1", "--wait")
    shown = house.run("start", "--config", str(config), "--data", str(csv_file), "--wait", *SMALL).stdout
    assert re.search(r"EvaluateBase\s+Cache hit", shown), shown
    assert re.search(r"EvaluateChampion\s+Succeeded", shown), shown
    found = house.run("report", "--config", str(config)).stdout
    assert "champion" in found
    assert re.search(
        r"met: exact_match improves on the champion by 0 - surely by -0\.\d+ - at least -1 was asked", found
    )
    again = house.run("start", "--config", str(config), "--data", str(csv_file), "--wait", *SMALL).stdout
    for step in ("EvaluateBase", "EvaluateChampion", "Train", "Evaluate"):
        assert re.search(rf"{step}\s+Cache hit", again), again


def test_rejecting_keeps_what_is_deployed(house: House, finished: str) -> None:
    house.run("reject", "1", "--comment", "changed my mind")
    package = house.client("sagemaker").list_model_packages(ModelPackageGroupName="fmops-models", SortOrder="Ascending")
    assert package["ModelPackageSummaryList"][0]["ModelApprovalStatus"] == "Rejected"
    missing = house.run("approve", "99", expect=1)
    assert "has no version 99" in missing.stderr


def test_parameters_are_checked_before_anything_starts(house: House, finished: str) -> None:
    refused = house.run("start", "-p", "Epoch=2", "-p", "LearningRate=fast", expect=2).stderr
    assert "Did you mean Epochs?" in refused
    assert "LearningRate=fast: 'fast' is refused; allowed: a number from 1e-09 to 1" in refused


def test_a_bad_data_file_is_refused_before_anything_starts(house: House, finished: str, tmp_path: Path) -> None:
    def executions() -> int:
        answer = house.client("sagemaker").list_pipeline_executions(PipelineName="fmops-finetuning")
        return len(answer["PipelineExecutionSummaries"])

    before = executions()
    empty, wrong = tmp_path / "empty.csv", tmp_path / "wrong.csv"
    empty.write_bytes(b"")
    wrong.write_text("question,reply\n" + "a,b\n" * 50)
    for path in (empty, wrong):
        assert path.name in house.run("start", "--data", str(path), expect=2).stderr
    assert executions() == before


def test_a_base_model_that_can_not_be_trained_so_ends_the_run_before_training(
    house: House, finished: str, csv_file: Path
) -> None:
    failed = house.run("start", "--data", str(csv_file), "--wait", *SMALL[:-1], "MaxSeqLength=4096", expect=1).stderr
    assert "training.max_seq_length is 4096, but the model has 1024 positions" in failed
    shown = house.run("status").stdout
    assert re.search(r"Prepare\S*\s+Failed", shown), shown
    assert not re.search(r"Train\S*\s+(Succeeded|Failed|Executing)", shown), shown


def test_a_missed_gate_says_which_metric_and_by_how_much(house: House, finished: str, csv_file: Path) -> None:
    failed = house.run(
        "start", "--data", str(csv_file), "--wait", *SMALL, "-p", "GateExactMatchValueNotWorseThan=0.9", expect=1
    ).stderr
    value = json.loads(
        (Path(re.search(r"Report: (.*)report.html", house.run("report").stdout)[1]) / "evaluation.json").read_text()  # type: ignore[index]
    )["metrics"]["exact_match"]["candidate"]["value"]
    assert "The gate was missed by 1 of 1 rules over" in failed
    assert f"exact_match is {value:.3f}".rstrip("0").rstrip(".") in failed
    assert "at least 0.9 was asked" in failed


def test_the_aws_cli_works_with_nothing_but_the_endpoint_url(house: House, finished: str, tmp_path: Path) -> None:
    executable = ROOT / ".venv" / "awscli" / "bin" / "aws"
    assert executable.exists(), "make setup installs the AWS CLI there"

    def aws(*arguments: str) -> str:
        variables = environment(
            AWS_ENDPOINT_URL=house.url,
            AWS_ACCESS_KEY_ID="111122223333",
            AWS_SECRET_ACCESS_KEY=house.secret,
            AWS_DEFAULT_REGION="us-east-1",
            AWS_PAGER="",
        )
        return subprocess.run(
            [str(executable), *arguments], env=variables, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    names = aws("sagemaker", "list-pipelines", "--query", "PipelineSummaries[].PipelineName", "--output", "text")
    assert "fmops-finetuning" in names.split()
    listed = json.loads(aws("sagemaker", "list-pipeline-executions", "--pipeline-name", "fmops-finetuning"))
    assert any(item["PipelineExecutionArn"].endswith(finished) for item in listed["PipelineExecutionSummaries"])
    aws(
        "s3", "cp", "s3://fmops-training-data-111122223333-us-east-1/uploads/", str(tmp_path / "uploads"), "--recursive"
    )
    assert list((tmp_path / "uploads").rglob("my.csv"))


def stop_at(house: House, started: str, line: str) -> str:
    """Stop a run once its training job's log has a line; the log when it has stopped."""
    identifier = re.search(r"execution (\w+)\.", started)[1]  # type: ignore[index]
    logs = house.client("logs")
    job = {"logGroupName": "/aws/sagemaker/TrainingJobs", "logStreamNamePrefix": f"pipelines-{identifier}-Train"}

    def messages() -> list[str]:
        with contextlib.suppress(logs.exceptions.ResourceNotFoundException):
            return [event["message"] for event in logs.filter_log_events(**job)["events"]]
        return []

    until(messages, lambda found: any(line in message for message in found), pause=0.5)
    house.run("stop", identifier)
    ended = house.run("status", identifier, "--wait", expect=1)
    assert "Stopped" in ended.stderr
    return house.run("logs", identifier).stdout


@pytest.mark.slow
def test_stop_ends_the_running_job(house: House, finished: str, csv_file: Path) -> None:
    long = ("start", "--data", str(csv_file), "-p", "MaxSteps=100000", "-p", "BatchSize=8")
    started = house.run(*long).stdout
    said = re.search(
        r"about ([\d.]+) (minutes|hours) on this machine: 100000 steps of ([\d.]+) s, 8 rows each", started
    )
    assert said, started
    assert started.index("Measuring three training steps") < said.start() < started.index("Started")
    seconds = float(said[1]) * (60 if said[2] == "minutes" else 3600)
    assert abs(seconds - 100_000 * float(said[3])) <= 100_000 * 0.05 + 60 + 0.05 * seconds, "the figures add up"
    log = stop_at(house, started, "[train] step=")
    saved = re.search(r"\[stop\] SIGTERM: checkpoint saved at step (\d+)/100000", log)
    assert saved, log
    # Stopped long before its first checkpoint was due: what the next attempt goes on from was saved at SIGTERM.
    assert f"[resume] step={saved[1]}" in stop_at(house, house.run(*long).stdout, "[resume] step=")
    job = house.client("sagemaker").list_training_jobs(SortBy="CreationTime", SortOrder="Descending", MaxResults=1)
    assert job["TrainingJobSummaries"][0]["TrainingJobStatus"] == "Stopped"


@pytest.mark.slow
def test_a_long_run_is_measured_once_and_a_short_one_never(
    house: House, finished: str, csv_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from configuration.layers import load_config
    from configuration.parameters import defaults
    from pipelines import estimate, executions

    config = load_config(house.directory / "pipeline.yaml")
    monkeypatch.setenv("AWS_ENDPOINT_URL", house.url)
    session = house.session()
    pages = session.client("sagemaker").get_paginator("list_pipeline_executions")
    [arn] = [
        item["PipelineExecutionArn"]
        for page in pages.paginate(PipelineName=config.name)
        for item in page["PipelineExecutionSummaries"]
        if item["PipelineExecutionArn"].endswith(finished)
    ]
    given = executions.overrides(session, arn)
    long = {**given, "MaxSteps": "60000"}
    said: list[str] = []
    first = estimate.announce(config, session, house.home, long, said.append)
    assert first is not None
    assert (first.steps, first.rows_per_step) == (60000, 8)
    assert sum(line.startswith("Measuring") for line in said) == 1
    again = estimate.announce(config, session, house.home, {**long, "MaxSteps": "40"}, said.append)
    assert again is not None
    assert again.seconds_per_step == first.seconds_per_step, "what was measured is remembered"
    assert again.seconds < estimate.LONG_SECONDS
    assert sum("minutes" in line or "hours" in line for line in said) == 1, "the short one is silent"

    assert estimate.announce(config, session, house.home, given, said.append) is None, "few steps"
    values = {**defaults(config), **given}
    assert estimate._finished_before(config, session, values), "all of its steps are cache hits"
    assert not estimate._finished_before(config, session, {**values, "Seed": "18"})

    said.clear()
    assert estimate.announce(config, session, house.home, {**long, "MaxSeqLength": "16"}, said.append) is None
    assert said[-1].startswith("How long training will take is not known: train.py: error: all ")


def test_everything_survives_a_kill(house: House, finished: str) -> None:
    import signal

    info = json.loads((house.home / "localcloud.json").read_text())
    os.kill(info["pid"], signal.SIGKILL)
    port = info["url"].rsplit(":", 1)[1]
    house.run("local", "up", "--port", port)
    assert finished in house.run("status", finished).stdout
    # The endpoint was InService; it comes back by itself.
    house.client("sagemaker").get_waiter("endpoint_in_service").wait(
        EndpointName="fmops-endpoint", WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    assert house.run("invoke", "turn on the kitchen light", "--max-new-tokens", "5").stdout
