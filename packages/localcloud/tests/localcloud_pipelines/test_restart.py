"""A localcloud process that is killed: what it had started goes on when it comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localcloud.keys import Keys
from localcloud_pipelines.conftest import (
    ACCOUNT,
    REGION,
    ROLE,
    definition,
    finished,
    processing,
    reason,
    steps_of,
    until,
)

# Sleeps the first time, ends at once the next; takes the path of a marker file.
ONCE = "import pathlib,time; m=pathlib.Path({!r}); ran=m.exists(); m.touch(); time.sleep(0 if ran else 60)"
DEAF = "import pathlib,signal,time; signal.signal(15, signal.SIG_IGN); pathlib.Path({!r}).touch(); time.sleep(60)"


class Process:
    """`python -m localcloud` on one home, started and killed at will."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.child: subprocess.Popen[bytes] | None = None
        self.client: Callable[[str], Any]

    def start(self) -> Any:
        import boto3

        (self.home / "localcloud.json").unlink(missing_ok=True)
        with (self.home / "output").open("ab") as output:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "localcloud", "--home", str(self.home), "--port", "0"],
                stdout=output,
                stderr=output,
            )
        ready = self.home / "localcloud.json"
        until(lambda: ready.exists() or self.child is None or self.child.poll() is not None, "localcloud is up")
        assert ready.exists(), (self.home / "output").read_text()
        url = json.loads(ready.read_text())["url"]
        until(lambda: answers(url), "localcloud answers")
        secret = Keys.of_home(self.home).secret
        session = boto3.Session(aws_access_key_id=ACCOUNT, aws_secret_access_key=secret, region_name=REGION)
        self.client = lambda service: session.client(service, endpoint_url=url)
        return self.client("sagemaker")

    def kill(self, how: signal.Signals) -> None:
        if self.child is not None and self.child.poll() is None:
            os.kill(self.child.pid, how)
            self.child.wait(30)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        time.sleep(0.05)
        return False
    return True


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    yield made
    made.kill(signal.SIGKILL)


def test_kill_in_the_middle_of_a_job(process: Process, tmp_path: Path) -> None:
    """First stays; the lost job of Second fails with the internal error, its policy starts another; Third follows."""
    marker = tmp_path / "ran"
    once = ONCE.format(str(marker))
    policy = {"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "IntervalSeconds": 0, "MaxAttempts": 2}
    steps = [
        processing("First"),
        processing("Second", once, DependsOn=["First"], RetryPolicies=[policy]),
        processing("Third", DependsOn=["Second"]),
    ]
    sm = process.start()
    sm.create_pipeline(PipelineName="kill", PipelineDefinition=definition(*steps), RoleArn=ROLE)
    arn = sm.start_pipeline_execution(PipelineName="kill")["PipelineExecutionArn"]
    until(marker.exists, "Second runs")
    first = steps_of(sm, arn)["First"]
    process.kill(signal.SIGKILL)

    sm = process.start()
    ended = finished(sm, arn)
    assert ended["PipelineExecutionStatus"] == "Succeeded", ended.get("FailureReason")
    found = steps_of(sm, arn)
    assert found["First"] == first
    assert {key: step["AttemptCount"] for key, step in found.items()} == {"First": 1, "Second": 2, "Third": 1}


def test_without_a_policy_the_lost_step_fails_and_a_retry_ends_well(process: Process, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    once = ONCE.format(str(marker))
    sm = process.start()
    text = definition(processing("Only", once))
    sm.create_pipeline(PipelineName="lost", PipelineDefinition=text, RoleArn=ROLE)
    arn = sm.start_pipeline_execution(PipelineName="lost")["PipelineExecutionArn"]
    until(marker.exists, "Only runs")
    process.kill(signal.SIGTERM)

    sm = process.start()
    ended = finished(sm, arn)
    assert ended["PipelineExecutionStatus"] == "Failed"
    assert "InternalServerError" in reason(sm, ended)
    sm.retry_pipeline_execution(PipelineExecutionArn=arn)
    assert finished(sm, arn)["PipelineExecutionStatus"] == "Succeeded"


def test_an_execution_that_was_being_stopped_is_stopped_after_the_restart(process: Process, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    deaf = DEAF.format(str(marker))
    sm = process.start()
    text = definition(processing("Deaf", deaf), processing("Next", DependsOn=["Deaf"]))
    sm.create_pipeline(PipelineName="deaf", PipelineDefinition=text, RoleArn=ROLE)
    arn = sm.start_pipeline_execution(PipelineName="deaf")["PipelineExecutionArn"]
    until(marker.exists, "Deaf runs")
    sm.stop_pipeline_execution(PipelineExecutionArn=arn)
    assert sm.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"] == "Stopping"
    process.kill(signal.SIGKILL)

    sm = process.start()
    assert finished(sm, arn)["PipelineExecutionStatus"] == "Stopped"
    assert {key: step["StepStatus"] for key, step in steps_of(sm, arn).items()} == {"Deaf": "Stopped"}


def test_a_callback_step_waits_on_after_a_kill(process: Process) -> None:
    sm = process.start()
    queue = process.client("sqs").create_queue(QueueName="calls")["QueueUrl"]
    wait = {"Name": "Wait", "Type": "Callback", "SqsQueueUrl": queue, "Arguments": {}, "OutputParameters": []}
    sm.create_pipeline(PipelineName="p", PipelineDefinition=definition(wait), RoleArn=ROLE)
    arn = sm.start_pipeline_execution(PipelineName="p")["PipelineExecutionArn"]
    message = until(lambda: process.client("sqs").receive_message(QueueUrl=queue).get("Messages"), "a message")[0]
    token = json.loads(message["Body"])["token"]
    until(lambda: steps_of(sm, arn)["Wait"].get("Metadata"), "the step's metadata")
    process.kill(signal.SIGKILL)
    sm = process.start()
    assert steps_of(sm, arn)["Wait"]["StepStatus"] == "Executing"
    sm.send_pipeline_execution_step_success(CallbackToken=token)
    assert finished(sm, arn)["PipelineExecutionStatus"] == "Succeeded"
    assert steps_of(sm, arn)["Wait"]["Metadata"]["Callback"]["CallbackToken"] == token
