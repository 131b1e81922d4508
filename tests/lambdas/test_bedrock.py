"""The Bedrock branch's functions against a real localcloud: jobs that a pipeline waits for, what an evaluation hosts,
what is swept, and versions that are deployed, rolled back and undeployed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
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
        patch.setenv("LOCALCLOUD_CLOCK_SPEED", "50")
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


@pytest.fixture(scope="module")
def begin(session: boto3.Session, config: Config) -> Callable[..., str]:
    """`begin(rows, epochs="1")` -> the ARN of an execution whose one step asks for a customization job."""
    names, sagemaker = Names.of(config), session.client("sagemaker")

    def start(rows: str = conversations(), **changes: str) -> str:
        place = f"processed/{uuid.uuid4().hex[:8]}"
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
                "output_uri": f"s3://{names.artifacts_bucket}/bedrock/{uuid.uuid4().hex[:8]}/",
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
    route = load("customize").hear
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
    load("customization").begin_job(clients, execution, token, asked)
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
    broken, route = dataclasses.replace(clients, bedrock=Broken()), load("customize").hear
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


@pytest.fixture(scope="module")
def model_arn(session: boto3.Session, begin: Any) -> str:
    """A custom model."""
    status, step = finished(session, begin(epochs="1"))
    assert status == "Succeeded", step
    return outputs(step)["model_arn"]


def deployments(session: boto3.Session) -> dict[str, str]:
    """Name -> status of what is deployed on demand."""
    found = session.client("bedrock").list_custom_model_deployments()["modelDeploymentSummaries"]
    return {item["customModelDeploymentName"]: item["status"] for item in found}


def throughputs(session: boto3.Session) -> dict[str, str]:
    found = session.client("bedrock").list_provisioned_model_throughputs()["provisionedModelSummaries"]
    return {item["provisionedModelName"]: item["status"] for item in found}


@pytest.fixture
def hosting() -> Any:
    folder = str(ROOT / "evaluation")
    if folder not in sys.path:
        sys.path.append(folder)
    import bedrock_hosting

    return bedrock_hosting


def test_what_an_evaluation_hosts_is_there_and_then_gone(session: boto3.Session, model_arn: str, hosting: Any) -> None:
    bedrock, runtime = session.client("bedrock"), session.client("bedrock-runtime")
    for how, there in (("on-demand", deployments), ("provisioned", throughputs)):
        plan = hosting.Hosting(bedrock, how, "none", 4_000_000_000, 0.1)
        with plan.hosted(model_arn) as arn:
            assert there(session)[plan.name(model_arn)] == hosting.APIS[how].ready
            said = runtime.converse(
                modelId=arn,
                messages=[{"role": "user", "content": [{"text": "turn it on"}]}],
                inferenceConfig={"maxTokens": 8, "temperature": 0.0},
            )
            assert said["usage"]["outputTokens"] > 0
            # An attempt that is repeated finds what the one before has created.
            assert plan._start(model_arn) == arn
        assert plan.name(model_arn) not in there(session)
    plan = hosting.Hosting(bedrock, "on-demand", "fails", 4_000_000_000, 0.1)
    with pytest.raises(ValueError, match="scoring failed"), plan.hosted(model_arn):
        raise ValueError("scoring failed")
    assert plan.name(model_arn) not in deployments(session)


HOSTS = """
import signal, sys, time
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import boto3
import score_remote
from bedrock_hosting import Hosting
signal.signal(signal.SIGTERM, score_remote._terminated)
bedrock = boto3.client("bedrock", region_name="us-east-1")
with Hosting(bedrock, "on-demand", sys.argv[4], 4_000_000_000, 0.1).hosted(sys.argv[3]):
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_stop_deletes_it_and_a_kill_leaves_it_to_the_sweep(
    session: boto3.Session, model_arn: str, clients: Any, begin: Any, hosting: Any, how: signal.Signals
) -> None:
    sweep = load("sweeping").sweep
    execution = begin(warmup_steps="99")  # goes on until it is stopped
    name = hosting.Hosting(None, "on-demand", execution, 0).name(model_arn)
    job_of(session, execution)
    words = [sys.executable, "-c", HOSTS, str(ROOT / "evaluation"), str(ROOT), model_arn, execution]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    until(process.stdout.readline, lambda line: line == "ready\n")
    os.kill(process.pid, how)
    process.communicate()
    assert (name in deployments(session)) is (how is signal.SIGKILL)
    # While its execution runs, somebody may still need it.
    assert sweep(clients) == []
    session.client("sagemaker").stop_pipeline_execution(PipelineExecutionArn=execution)
    assert finished(session, execution)[0] == "Stopped"
    assert [found["swept"] for found in sweep(clients)] == (["deleted"] if how is signal.SIGKILL else [])
    assert name not in deployments(session)
    assert sweep(clients) == []


def test_what_has_expired_is_swept_and_a_versions_own_is_not(
    session: boto3.Session, model_arn: str, clients: Any
) -> None:
    bedrock = session.client("bedrock")
    tags = [{"key": "fmops:evaluation", "value": "true"}, {"key": "fmops:expires", "value": "1000"}]
    for name, given in (("fmops-expired", tags), ("fmops-version", [])):
        bedrock.create_custom_model_deployment(modelDeploymentName=name, modelArn=model_arn, tags=given)
        until(lambda name=name: deployments(session)[name], lambda status: status == "Active")  # type: ignore[misc]
    assert len(load("sweeping").sweep(clients)) == 1
    assert "fmops-expired" not in deployments(session)
    assert "fmops-version" in deployments(session)
    bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier="fmops-version")


@pytest.fixture(scope="module")
def deploy(session: boto3.Session) -> Callable[..., Any]:
    """`deploy({...})`: the deploy function, in process, with the environment that deployment.yaml set."""
    found = session.client("lambda").get_function_configuration(FunctionName="fmops-deploy")
    environment, module = found["Environment"]["Variables"], load("deploy")
    return lambda event: module.route(module.Clients(), event, environment)


def version(session: boto3.Session, model_arn: str, **changes: str) -> str:
    """A version of a model that Bedrock keeps, registered as the pipeline does; its ARN."""
    event = {
        "model_arn": model_arn,
        "model_package_group": "tested-bedrock",
        "approval": "Approved",
        "evaluation_uri": "s3://fmops-evaluation-results-111122223333-us-east-1/e/evaluation/evaluation.json",
        "data_report_uri": "s3://fmops-training-data-111122223333-us-east-1/processed/e/report/data_report.json",
        "pipeline_execution_arn": f"arn:aws:sagemaker:us-east-1:111122223333:pipeline/p/execution/{uuid.uuid4().hex}",
        "properties": {"endpoint_name": "fmops-endpoint", "bedrock_serving": "on-demand", **changes},
    }
    sagemaker = session.client("sagemaker")
    groups = sagemaker.list_model_package_groups(NameContains="tested-bedrock")["ModelPackageGroupSummaryList"]
    if not groups:
        sagemaker.create_model_package_group(ModelPackageGroupName="tested-bedrock")
    register = load("registration").register
    arn = register(sagemaker, event)["model_package_arn"]
    assert register(sagemaker, event)["model_package_arn"] == arn  # a repeat makes no second version
    return str(arn)


def states(session: boto3.Session) -> list[tuple[str, str]]:
    """(version, state) of every deployment in the log."""
    body = session.client("s3").get_object(
        Bucket="fmops-model-artifacts-111122223333-us-east-1", Key="deployments/fmops-endpoint-bedrock.json"
    )["Body"]
    return [
        (item["model_package_arn"].rsplit("/", 1)[1], item["state"]) for item in json.loads(body.read())["deployments"]
    ]


def test_versions_come_into_service_go_back_and_are_undeployed(
    session: boto3.Session, model_arn: str, deploy: Callable[..., Any]
) -> None:
    door = {"endpoint_name": "fmops-endpoint-bedrock"}

    def settled(wanted: list[tuple[str, str]]) -> None:
        until(lambda: (deploy({"command": "settle", **door}), states(session))[1], lambda found: found == wanted)

    first, second, third = (
        version(session, model_arn, **changes)
        for changes in ({}, {}, {"bedrock_serving": "provisioned", "bedrock_model_units": "2"})
    )
    asked = {"model_package_arn": first, "by": "command"}
    began = deploy(asked)
    assert (began["action"], began["endpoint_name"]) == ("created", door["endpoint_name"])
    assert deploy(asked)["endpoint_config_name"] == began["endpoint_config_name"]  # a repeat creates nothing more
    settled([("1", "in_service")])
    deploy({"model_package_arn": second, "by": "command"})
    settled([("1", "replaced"), ("2", "in_service")])
    assert len(deployments(session)) == 2, "the way back stays: it costs nothing until it is asked"
    # Units by the hour are given back as soon as another version serves.
    deploy({"model_package_arn": third, "by": "command"})
    settled([("1", "replaced"), ("2", "replaced"), ("3", "in_service")])
    assert len(throughputs(session)) == 1
    assert len(deployments(session)) == 1
    back = deploy({"command": "rollback", **door})
    assert back["action"] == "rolling-back"
    settled([("1", "replaced"), ("2", "replaced"), ("3", "rolled_back"), ("2", "in_service")])
    assert throughputs(session) == {}
    # A version that was rejected since is no way back; a rejected one is not deployed at all.
    session.client("sagemaker").update_model_package(ModelPackageArn=first, ModelApprovalStatus="Rejected")
    with pytest.raises(load("aws").Refused, match="can't be rolled back"):
        deploy({"command": "rollback", "version": 1, **door})
    with pytest.raises(load("aws").Refused, match="is not deployed: the package is Rejected"):
        deploy({"model_package_arn": first, "by": "command"})
    until(lambda: deploy({"command": "undeploy", **door})["action"], lambda action: action == "undeployed")
    assert deployments(session) == {}
    assert {state for _, state in states(session)} <= {"replaced", "rolled_back", "undeployed"}


def test_an_approval_deploys_it_and_the_timer_sees_it_in_service(
    session: boto3.Session, model_arn: str, deploy: Callable[..., Any]
) -> None:
    arn = version(session, model_arn)
    event = {
        "source": "aws.sagemaker",
        "detail-type": "SageMaker Model Package State Change",
        "time": "2026-11-27T00:00:00Z",
        "detail": {
            "ModelPackageArn": arn,
            "ModelPackageGroupName": "fmops-models",
            "ModelApprovalStatus": "Approved",
            "UpdatedModelPackageFields": ["ModelApprovalStatus"],
        },
    }
    assert deploy(event)["action"] == "created"
    until(
        lambda: (deploy({"command": "settle"}), states(session)[-1])[1],
        lambda last: last == (arn.rsplit("/", 1)[1], "in_service"),
    )
    deploy({"command": "undeploy", "endpoint_name": "fmops-endpoint-bedrock"})
