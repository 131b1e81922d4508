"""Callback steps: a message in a real queue, an answer by token, stopping, kills; a function fed by the queue."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud_pipelines.conftest import fail, finished, reason, steps_of, until

Receive = Callable[[], dict[str, Any]]


@pytest.fixture
def queue(client: Callable[[str], Any], name: str) -> Iterator[str]:
    url = client("sqs").create_queue(QueueName=f"{name}-callback")["QueueUrl"]
    yield url
    client("sqs").delete_queue(QueueUrl=url)


@pytest.fixture
def receive(client: Callable[[str], Any], queue: str) -> Receive:
    """`receive()` -> the body of the queue's next message, taken out."""

    def take() -> dict[str, Any]:
        def look() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = client("sqs").receive_message(QueueUrl=queue).get("Messages", [])
            return found

        message = until(look, "no message came")[0]
        client("sqs").delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        body: dict[str, Any] = json.loads(message["Body"])
        return body

    return take


def step(queue: Any, inputs: dict[str, Any] | None = None, name: str = "Wait", **outputs: str) -> dict[str, Any]:
    declared = [{"OutputName": output, "OutputType": kind} for output, kind in outputs.items()]
    return {
        "Name": name,
        "Type": "Callback",
        "SqsQueueUrl": queue,
        "Arguments": inputs or {},
        "OutputParameters": declared,
    }


def output(name: str) -> dict[str, str]:
    return {"Get": f"Steps.Wait.OutputParameters['{name}']"}


def begin(sm: Any, pipeline: str) -> str:
    return str(sm.start_pipeline_execution(PipelineName=pipeline)["PipelineExecutionArn"])


def answers(**outputs: str) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in outputs.items()]


def test_the_step_waits_for_its_token_and_hands_the_outputs_on(
    sm: Any, pipeline: Any, queue: str, receive: Receive
) -> None:
    show = fail("Show", {"Std:Join": {"On": "|", "Values": [output("arn"), output("rows")]}})
    arn = begin(sm, pipeline(step(queue, {"base": "m", "id": {"Get": "Execution.PipelineExecutionId"}}, arn="String",
                                  rows="Integer"), show))  # fmt: skip
    body = receive()
    assert body["pipelineExecutionArn"] == arn
    assert body["arguments"] == {"base": "m", "id": arn.rsplit("/", 1)[1]}
    assert len(body["token"]) == 10
    assert "Status" not in body
    assert steps_of(sm, arn)["Wait"]["StepStatus"] == "Executing"
    said = {"CallbackToken": body["token"], "OutputParameters": answers(arn="a:b", rows="12"),
            "ClientRequestToken": "t" * 32}  # fmt: skip
    assert sm.send_pipeline_execution_step_success(**said)["PipelineExecutionArn"] == arn
    assert reason(sm, finished(sm, arn)) == "a:b|12"
    metadata = steps_of(sm, arn)["Wait"]["Metadata"]["Callback"]
    assert metadata == {
        "CallbackToken": body["token"], "SqsQueueUrl": queue, "OutputParameters": answers(arn="a:b", rows="12"),
    }  # fmt: skip
    # Sent again it changes nothing; another answer comes too late.
    assert sm.send_pipeline_execution_step_success(**said)["PipelineExecutionArn"] == arn
    with pytest.raises(ClientError, match="waits for no answer any more"):
        sm.send_pipeline_execution_step_failure(CallbackToken=body["token"], FailureReason="too late")


def test_a_failure_fails_the_step_with_its_reason(sm: Any, pipeline: Any, queue: str, receive: Receive) -> None:
    arn = begin(sm, pipeline(step(queue)))
    sm.send_pipeline_execution_step_failure(CallbackToken=receive()["token"], FailureReason="the job said no")
    ended = finished(sm, arn)
    assert ended["PipelineExecutionStatus"] == "Failed"
    assert reason(sm, ended) == "the job said no"


@pytest.mark.parametrize(
    ("given", "said"),
    [({}, "has no output 'rows'"), ({"rows": "many"}, "output 'rows' of SendPipelineExecutionStepSuccess is 'many'")],
)
def test_outputs_that_are_not_what_was_declared_fail_the_step(
    sm: Any, pipeline: Any, queue: str, receive: Receive, given: dict[str, str], said: str
) -> None:
    arn = begin(sm, pipeline(step(queue, rows="Integer")))
    sm.send_pipeline_execution_step_success(CallbackToken=receive()["token"], OutputParameters=answers(**given))
    assert said in reason(sm, finished(sm, arn))


def test_an_execution_stops_only_after_the_answer(sm: Any, pipeline: Any, queue: str, receive: Receive) -> None:
    arn = begin(sm, pipeline(step(queue)))
    token = receive()["token"]
    sm.stop_pipeline_execution(PipelineExecutionArn=arn)
    body = receive()
    assert (body["token"], body["Status"], body["arguments"]) == (token, "Stopping", {})
    assert sm.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"] == "Stopping"
    sm.send_pipeline_execution_step_failure(CallbackToken=token, FailureReason="stopped")
    assert finished(sm, arn)["PipelineExecutionStatus"] == "Stopped"


def test_refused(sm: Any, pipeline: Any, run: Any, queue: str, receive: Receive) -> None:
    with pytest.raises(ClientError, match="There is no callback step with the token"):
        sm.send_pipeline_execution_step_success(CallbackToken="a" * 10)
    with pytest.raises(ClientError, match="a Callback step needs SqsQueueUrl"):
        pipeline(step(None))
    with pytest.raises(ClientError, match="declares no such output"):
        pipeline(step(queue), fail("Show", output("absent")))
    ended = run(pipeline(step(f"{queue}-absent")))
    assert "Failed to invoke sqs:SendMessage" in reason(sm, ended)
    arn = begin(sm, pipeline(step(queue, rows="Integer")))
    token = receive()["token"]
    with pytest.raises(ClientError, match="names one of its parameters twice"):
        sm.send_pipeline_execution_step_success(
            CallbackToken=token, OutputParameters=[*answers(rows="1"), *answers(rows="2")]
        )
    sm.send_pipeline_execution_step_failure(CallbackToken=token)
    assert "without a reason" in reason(sm, finished(sm, arn))
