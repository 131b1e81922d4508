"""A real localcloud in this process, asked over HTTP with boto3; every test brings its own pipeline names."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ACCOUNT, REGION = "123456789012", "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/pipeline"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/image:1"
PATIENCE = 400.0
"""Seconds until a test gives up: what comes ends the wait."""


@pytest.fixture(scope="package")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from localcloud import LocalCloud

    with pytest.MonkeyPatch.context() as patch, LocalCloud(tmp_path_factory.mktemp("cloud")) as running:
        # Jobs without a handler for SIGTERM, as all here, are ended by what follows it after two minutes.
        patch.setenv("LOCALCLOUD_STOP_GRACE_SECONDS", "0.5")
        yield running


@pytest.fixture(scope="package")
def client(cloud: Any) -> Callable[[str], Any]:
    """`client("sagemaker")` -> a boto3 client that knows the endpoint URL, an account id and the secret."""
    import boto3

    session = boto3.Session(aws_access_key_id=ACCOUNT, aws_secret_access_key=cloud.secret, region_name=REGION)
    made: dict[str, Any] = {}

    def get(service: str) -> Any:
        if service not in made:
            made[service] = session.client(service, endpoint_url=cloud.url)
        return made[service]

    return get


@pytest.fixture(scope="package")
def sm(client: Callable[[str], Any]) -> Any:
    return client("sagemaker")


@pytest.fixture(scope="package")
def bucket(client: Callable[[str], Any]) -> str:
    client("s3").create_bucket(Bucket="pipelines-test")
    return "pipelines-test"


@pytest.fixture
def name() -> str:
    """A pipeline name of this test's own."""
    return f"Test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def pipeline(sm: Any, name: str) -> Callable[..., str]:
    """`pipeline(*steps, parameters=[...])` creates the test's pipeline, or updates it; returns its name."""

    def put(*steps: dict[str, Any], **more: Any) -> str:
        text = definition(*steps, **more)
        existing = [item["PipelineName"] for item in sm.list_pipelines(PipelineNamePrefix=name)["PipelineSummaries"]]
        operation = sm.update_pipeline if existing else sm.create_pipeline
        operation(PipelineName=name, PipelineDefinition=text, RoleArn=ROLE)
        return name

    return put


@pytest.fixture
def run(sm: Any) -> Callable[..., dict[str, Any]]:
    """`run(name, parameters={...})` -> the DescribePipelineExecution answer of an execution that has ended."""

    def start(name: str, parameters: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
        overrides = [{"Name": key, "Value": value} for key, value in (parameters or {}).items()]
        answer = sm.start_pipeline_execution(PipelineName=name, PipelineParameters=overrides, **more)
        return finished(sm, answer["PipelineExecutionArn"])

    return start


@pytest.fixture
def events(client: Callable[[str], Any], name: str) -> Iterator[Callable[[Callable[[dict[str, Any]], bool]], Any]]:
    """`events(wanted)` -> aws.sagemaker events, oldest first, once one of them satisfies `wanted`."""
    queue = client("sqs").create_queue(QueueName=name)["QueueUrl"]
    arn = client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    client("events").put_rule(Name=name, EventPattern=json.dumps({"source": ["aws.sagemaker"]}), State="ENABLED")
    client("events").put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
    seen: list[dict[str, Any]] = []

    def collect(wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        end = time.monotonic() + PATIENCE
        while not any(wanted(event) for event in seen):
            assert time.monotonic() < end, f"no such event among {[(e['detail-type'], e['detail']) for e in seen]}"
            answer = client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in answer.get("Messages", []):
                seen.append(json.loads(message["Body"]))
                client("sqs").delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return seen

    yield collect
    client("events").remove_targets(Rule=name, Ids=["queue"])
    client("events").delete_rule(Name=name)
    client("sqs").delete_queue(QueueUrl=queue)


def definition(*steps: dict[str, Any], parameters: list[dict[str, Any]] | None = None, **more: Any) -> str:
    return json.dumps({"Version": "2020-12-01", "Parameters": parameters or [], "Steps": list(steps), **more})


def finished(sm: Any, arn: str) -> dict[str, Any]:
    """Wait for an execution's end."""
    end = time.monotonic() + PATIENCE
    while True:
        found = sm.describe_pipeline_execution(PipelineExecutionArn=arn)
        if found["PipelineExecutionStatus"] in ("Succeeded", "Failed", "Stopped"):
            return found
        assert time.monotonic() < end, f"{arn} is still {found['PipelineExecutionStatus']}: {steps_of(sm, arn)}"
        time.sleep(0.05)


def steps_of(sm: Any, arn: str) -> dict[str, dict[str, Any]]:
    """An execution's steps by name."""
    return {
        step["StepName"]: step
        for step in sm.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    }


def reason(sm: Any, ended: dict[str, Any]) -> str:
    """Why an execution failed, as its failed steps say; the execution itself says nothing more than that they did."""
    assert ended["FailureReason"] == "Step failure: One or multiple steps failed."
    found = steps_of(sm, ended["PipelineExecutionArn"]).values()
    return "; ".join(step["FailureReason"] for step in found if "FailureReason" in step)


def until(check: Callable[[], Any], what: str) -> Any:
    """The first true answer of `check`."""
    end = time.monotonic() + PATIENCE
    while not (found := check()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found


def processing(
    step: str, code: str = "pass", *arguments: Any, outputs: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """A Processing step that runs Python source; `outputs` maps an output's name to its S3 URI."""
    request: dict[str, Any] = {
        "ProcessingResources": {
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
        },
        "AppSpecification": {"ImageUri": IMAGE, "ContainerEntrypoint": [sys.executable, "-c", code]},
        **more.pop("Arguments", {}),
    }
    if arguments:
        request["AppSpecification"]["ContainerArguments"] = list(arguments)
    if outputs:
        request["ProcessingOutputConfig"] = {
            "Outputs": [
                {
                    "OutputName": key,
                    "S3Output": {
                        "S3Uri": uri,
                        "LocalPath": f"/opt/ml/processing/output/{key}",
                        "S3UploadMode": "EndOfJob",
                    },
                }
                for key, uri in outputs.items()
            ]
        }
    return {"Name": step, "Type": "Processing", "Arguments": request, **more}


def writes(output: str, file: str, content: Any) -> str:
    """Source that writes JSON into a Processing output; one line of 256 characters at most, as AWS has it."""
    path = f"/opt/ml/processing/output/{output}/{file}"
    text = json.dumps(content)
    return (
        f"import pathlib as p; f=p.Path({path!r}); f.parent.mkdir(parents=True, exist_ok=True); f.write_text({text!r})"
    )


def condition(
    step: str, conditions: list[dict[str, Any]], then: list[Any] = (), other: list[Any] = (), **more: Any
) -> dict[str, Any]:  # type: ignore[assignment]
    return {
        "Name": step,
        "Type": "Condition",
        "Arguments": {"Conditions": conditions, "IfSteps": list(then), "ElseSteps": list(other)},
        **more,
    }


def fail(step: str, message: Any, **more: Any) -> dict[str, Any]:
    return {"Name": step, "Type": "Fail", "Arguments": {"ErrorMessage": message}, **more}


def equals(left: Any, right: Any) -> dict[str, Any]:
    return {"Type": "Equals", "LeftValue": left, "RightValue": right}
