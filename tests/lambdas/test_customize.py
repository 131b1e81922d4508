"""lambdas/customize.py against a real localcloud: its queue, Bedrock's jobs and events, a pipeline that waits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from configuration.config import Config
from configuration.layers import load_config
from configuration.names import Names
from localcloud_bedrock.conftest import configured, conversations
from pipelines.bootstrap import bootstrap
from pipelines.publish import publish
from tests.author.cloud import running
from tests.lambdas.support import load
from tests.support.tiny_model import make_tiny_model
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
ENDED = ("Succeeded", "Failed", "Stopped")
OUTPUTS = ("model_arn", "job_arn", "customization_uri")


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(ROOT / "pipeline.yaml")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Iterator[boto3.Session]:
    folder = tmp_path_factory.mktemp("customize")
    with pytest.MonkeyPatch.context() as patch:
        tiny = make_tiny_model(folder / "tiny", ["turn it on", "the light is on"])
        patch.setenv("LOCALCLOUD_BEDROCK", configured(tiny, folder / "bedrock.json"))
        patch.setenv("LOCALCLOUD_STOP_GRACE_SECONDS", "0.5")
        with running(folder / "home") as session:
            bootstrap(config, session)
            publish(config, session)
            boto3.setup_default_session(region_name=session.region_name)
            yield session
    boto3.DEFAULT_SESSION = None


@pytest.fixture(scope="module")
def clients(session: boto3.Session) -> Any:
    """The function's own clients and environment, to call it in process."""
    found = session.client("lambda").get_function_configuration(FunctionName="fmops-customize")
    variables = found["Environment"]["Variables"]
    made = (session.client(name) for name in ("bedrock", "sagemaker", "s3"))
    return load("customization").Customization(*made, variables)


@pytest.fixture(scope="module")
def unheard(session: boto3.Session) -> Iterator[Callable[[bool], None]]:
    """`unheard(True)`: Bedrock's events are lost from now on."""
    events = session.client("events")

    def switch(off: bool) -> None:
        (events.disable_rule if off else events.enable_rule)(Name="fmops-customized")

    yield switch
    switch(False)


@pytest.fixture
def begin(session: boto3.Session, config: Config, request: pytest.FixtureRequest) -> Callable[..., str]:
    """`begin(rows, epochs="1")` -> the ARN of an execution whose one step asks for a customization job."""
    names, sagemaker = Names.of(config), session.client("sagemaker")

    def start(rows: str = conversations(), **changes: str) -> str:
        place = f"processed/{request.node.name}"
        for name in ("train", "validation"):
            session.client("s3").put_object(
                Bucket=names.training_data_bucket, Key=f"{place}/{name}.jsonl", Body=rows.encode()
            )
        step = {
            "Name": "CustomizeBedrock",
            "Type": "Callback",
            "SqsQueueUrl": names.customize_queue,
            "Arguments": {
                "base_model": "amazon.nova-micro-v1:0:128k",
                "customization_type": "FINE_TUNING",
                "training_uri": f"s3://{names.training_data_bucket}/{place}/train.jsonl",
                "validation_uri": f"s3://{names.training_data_bucket}/{place}/validation.jsonl",
                "output_uri": f"s3://{names.artifacts_bucket}/bedrock/{request.node.name}/",
                **changes,
            },
            "OutputParameters": [{"OutputName": name, "OutputType": "String"} for name in OUTPUTS],
        }
        definition = json.dumps({"Version": "2020-12-01", "Steps": [step]})
        name = "customized"
        if not sagemaker.list_pipelines(PipelineNamePrefix=name)["PipelineSummaries"]:
            sagemaker.create_pipeline(PipelineName=name, PipelineDefinition=definition, RoleArn=names.role("pipeline"))
        else:
            sagemaker.update_pipeline(PipelineName=name, PipelineDefinition=definition)
        return str(sagemaker.start_pipeline_execution(PipelineName=name)["PipelineExecutionArn"])

    return start


def step_of(session: boto3.Session, execution: str) -> dict[str, Any]:
    steps = session.client("sagemaker").list_pipeline_execution_steps(PipelineExecutionArn=execution)
    return dict(steps["PipelineExecutionSteps"][0])


def finished(session: boto3.Session, execution: str) -> tuple[str, dict[str, Any]]:
    """(status, the step) of an execution that has ended."""
    sagemaker = session.client("sagemaker")

    def look() -> str:
        return str(sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution)["PipelineExecutionStatus"])

    return until(look, lambda status: status in ENDED), step_of(session, execution)


def job_of(session: boto3.Session, execution: str) -> dict[str, Any]:
    """The execution's job, once it is there."""
    bedrock, name = session.client("bedrock"), execution.rsplit("/", 1)[-1]

    def look() -> list[Any]:
        return list(bedrock.list_model_customization_jobs(nameContains=name)["modelCustomizationJobSummaries"])

    [job] = until(look)
    return dict(bedrock.get_model_customization_job(jobIdentifier=job["jobArn"]))


def outputs(step: dict[str, Any]) -> dict[str, str]:
    return {item["Name"]: item["Value"] for item in step["Metadata"]["Callback"]["OutputParameters"]}


def test_the_step_ends_with_the_model_and_its_curves(session: boto3.Session, begin: Any, config: Config) -> None:
    execution = begin(epochs="1", learning_rate="0.00002")
    status, step = finished(session, execution)
    assert status == "Succeeded", step
    job, found = job_of(session, execution), outputs(step)
    assert found["model_arn"] == job["outputModelArn"]
    assert found["job_arn"] == job["jobArn"]
    assert len(job["jobName"]) <= 63
    assert job["hyperParameters"] == {"epochCount": "1", "learningRate": "0.00002"}
    bucket, _, key = found["customization_uri"].removeprefix("s3://").partition("/")
    assert key == f"{execution.rsplit('/', 1)[-1]}/customization/customization.json"
    document = json.loads(session.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    assert document["model_arn"] == found["model_arn"]
    assert document["training"]
    assert document["validation"]
    assert all(point["loss"] > 0 for point in document["training"])
    tags = session.client("bedrock").list_tags_for_resource(resourceARN=job["jobArn"])["tags"]
    told = {tag["key"]: tag["value"] for tag in tags}
    assert told["fmops:execution"] == execution
    assert told["project"] == config.aws.tags["project"]


@pytest.mark.parametrize(
    ("rows", "changes", "said"),
    [
        ("{}\n" * 8, {}, "Bedrock's job failed"),
        (conversations(), {"base_model": "acme.large-v1:0"}, "belongs to no family"),
        (conversations(), {"batch_size": "4"}, "batchSize: Amazon Nova Micro has no such hyperparameter"),
        (conversations(), {"epochs": "many"}, "'many' is refused"),
        (conversations(), {"training_uri": "s3://fmops-absent/none.jsonl"}, "Bedrock refused the job"),
    ],
)
def test_what_bedrock_does_not_take_fails_the_step_with_its_reason(
    session: boto3.Session, begin: Any, rows: str, changes: dict[str, str], said: str
) -> None:
    status, step = finished(session, begin(rows, **changes))
    assert status == "Failed"
    assert said in step["FailureReason"]


def test_stopping_the_execution_stops_the_job(session: boto3.Session, begin: Any) -> None:
    execution = begin(warmup_steps="99")  # the trainer waits to be stopped
    job_of(session, execution)
    session.client("sagemaker").stop_pipeline_execution(PipelineExecutionArn=execution)
    status, step = finished(session, execution)
    assert status == "Stopped"
    assert job_of(session, execution)["status"] == "Stopped"
    assert "was stopped" in step.get("FailureReason", "was stopped")


def test_lost_doubled_and_early_events_end_the_step_once(
    session: boto3.Session, begin: Any, clients: Any, unheard: Callable[[bool], None]
) -> None:
    route = load("customize").route
    unheard(True)
    try:
        execution = begin(epochs="1")
        early = {"detail-type": "Model Customization Job State Change"}
        # Before the job is there, and while it works, an event changes nothing.
        absent = route(clients, {**early, "detail": {"jobName": "fmops-nobody"}})
        assert absent["settled"][0]["status"] == "absent"
        name = job_of(session, execution)["jobName"]
        until(lambda: job_of(session, execution)["status"], lambda status: status == "Completed")
        assert step_of(session, execution)["StepStatus"] == "Executing"
        # The timer makes up for the event that was lost; it and the event again find the step answered.
        [settled] = route(clients, {"command": "settle"})["settled"]
        assert settled == {"job": name, "status": "Completed", "step": "answered"}
        for event in ({**early, "detail": {"jobName": name}}, {**early, "detail": {"jobName": name}}):
            assert route(clients, event)["settled"][0]["step"] == "answered before"
        assert route(clients, {"command": "settle"})["settled"] == []
        assert finished(session, execution)[0] == "Succeeded"
    finally:
        unheard(False)


def test_a_message_that_comes_twice_makes_one_job(session: boto3.Session, begin: Any, clients: Any) -> None:
    execution = begin(epochs="1")
    token = until(lambda: step_of(session, execution).get("Metadata"))["Callback"]["CallbackToken"]
    job = job_of(session, execution)
    asked = {
        "base_model": "amazon.nova-micro-v1:0:128k",
        "customization_type": "FINE_TUNING",
        "training_uri": job["trainingDataConfig"]["s3Uri"],
        "output_uri": job["outputDataConfig"]["s3Uri"],
    }
    load("customization").begin(clients, execution, token, asked)
    assert job_of(session, execution)["jobArn"] == job["jobArn"]
    assert finished(session, execution)[0] == "Succeeded"


def test_a_message_that_keeps_failing_ends_the_step(session: boto3.Session, begin: Any, clients: Any) -> None:
    class Broken:
        exceptions = clients.bedrock.exceptions

        def create_model_customization_job(self, **_: Any) -> None:
            raise OSError("the network is down")

    import dataclasses

    execution = begin(warmup_steps="99")
    token = until(lambda: step_of(session, execution).get("Metadata"))["Callback"]["CallbackToken"]
    job = job_of(session, execution)
    asked = {"base_model": "amazon.nova-micro-v1:0:128k", "customization_type": "FINE_TUNING",
             "training_uri": "s3://a/b", "output_uri": "s3://a/c"}  # fmt: skip
    body = json.dumps({"token": token, "pipelineExecutionArn": execution, "arguments": asked})
    record = {"messageId": "m1", "body": body, "attributes": {"ApproximateReceiveCount": "1"}}
    broken, route = dataclasses.replace(clients, bedrock=Broken()), load("customize").route
    assert route(broken, {"Records": [record]}) == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    record["attributes"]["ApproximateReceiveCount"] = "8"
    assert route(broken, {"Records": [record]}) == {"batchItemFailures": []}
    status, step = finished(session, execution)
    assert status == "Failed"
    assert "the network is down" in step["FailureReason"]
    # The job that was begun all the same is stopped by the timer, since nobody waits for it.
    route(clients, {"command": "settle"})
    until(lambda: job_of(session, execution)["status"], lambda found: found == "Stopped")
    assert job["jobName"] == job_of(session, execution)["jobName"]


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("step_number,epoch_number,training_loss,perplexity\n1,0,2.5,12\n2,1,nan,1\n3,1,1.5,4\n",
         [{"step": 1.0, "epoch": 0.0, "loss": 2.5}, {"step": 3.0, "epoch": 1.0, "loss": 1.5}]),
        ("\ufeffstep_number, training_loss\r\n5, 0.25\r\n", [{"step": 5.0, "epoch": 0.0, "loss": 0.25}]),
        ("", []),
        ("step_number,epoch_number,validation_loss\n1,0,1\n", []),
    ],
)  # fmt: skip
def test_a_curve_keeps_what_is_a_number(text: str, points: list[dict[str, float]]) -> None:
    assert load("curves").curve(text, "training_loss") == points
