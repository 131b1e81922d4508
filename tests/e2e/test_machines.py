"""training.instance_count 2 on localcloud: the pipeline's own Train step, the SDK's driver, two process groups."""

from __future__ import annotations

import io
import json
import re
import tarfile
from typing import Any

import pytest

from tests.e2e.conftest import House
from tests.support.definitions import step_of
from tests.support.training_job import lamp_rows
from tests.support.waiting import until

pytestmark = pytest.mark.slow

BUCKET = "fmops-model-artifacts-111122223333-us-east-1"
ROWS = f"s3://{BUCKET}/machines"
SMALL = {
    "MaxSteps": "6", "BatchSize": "8", "MaxSeqLength": "256", "LearningRate": "0.01", "EvaluationsPerRun": "2",
    "CheckpointsPerRun": "2", "LoraDropout": "0",
}  # fmt: skip
"""Without dropout, whose numbers are each process's own."""


def replaced(value: Any, values: dict[str, Any]) -> Any:
    """A definition in which what other steps would have answered is a value already."""
    if isinstance(value, dict):
        if value.keys() == {"Get"} and value["Get"] in values:
            return values[value["Get"]]
        return {key: replaced(child, values) for key, child in value.items()}
    return [replaced(child, values) for child in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def train_alone(house: House) -> str:
    """A pipeline of the Train step alone, as `fmops upsert` made it, on rows that lie in S3."""
    house.run("upsert")
    s3, sagemaker = house.client("s3"), house.client("sagemaker")
    for split, rows in (("train", lamp_rows(48)), ("validation", lamp_rows(10, offset=48))):
        s3.put_object(
            Bucket=BUCKET,
            Key=f"machines/{split}/rows.jsonl",
            Body="".join(json.dumps(row) + "\n" for row in rows).encode(),
        )
    name = sagemaker.list_pipelines()["PipelineSummaries"][0]["PipelineName"]
    definition = json.loads(sagemaker.describe_pipeline(PipelineName=name)["PipelineDefinition"])
    outputs = "Steps.Prepare.ProcessingOutputConfig.Outputs['{}'].S3Output.S3Uri"
    answers: dict[str, Any] = {outputs.format(split): f"{ROWS}/{split}/" for split in ("train", "validation")}
    # Checkpoints of each execution apart: one on two machines would go on where the one on one machine ended.
    answers["Steps.Inputs.OutputParameters['run']"] = {"Get": "Execution.PipelineExecutionId"}
    step = step_of(definition, "Train")
    step = {key: value for key, value in replaced(step, answers).items() if key not in ("CacheConfig", "DependsOn")}
    sagemaker.create_pipeline(
        PipelineName="train-alone",
        ClientRequestToken="train-alone-" + "0" * 32,
        RoleArn="arn:aws:iam::111122223333:role/fmops-pipeline",
        PipelineDefinition=json.dumps({**definition, "Steps": [step]}),
    )
    return "train-alone"


def start(house: House, pipeline: str, machines: int, **changes: str) -> str:
    """The name of the training job of an execution on so many machines."""
    sagemaker = house.client("sagemaker")
    values = {**SMALL, "TrainInstanceCount": str(machines), **changes}
    arn = sagemaker.start_pipeline_execution(
        PipelineName=pipeline,
        PipelineParameters=[{"Name": name, "Value": value} for name, value in values.items()],
    )["PipelineExecutionArn"]

    def job() -> str:
        steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
        assert not any("FailureReason" in step for step in steps), steps
        found = [step.get("Metadata", {}).get("TrainingJob", {}).get("Arn", "") for step in steps]
        return "".join(found).rpartition("/")[2]

    return until(job, bool)


def end(house: House, name: str) -> dict[str, Any]:
    job: dict[str, Any] = until(
        lambda: house.client("sagemaker").describe_training_job(TrainingJobName=name),
        lambda job: job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"),
    )
    return job


def lines(house: House, name: str) -> dict[str, list[str]]:
    """What each machine wrote, by its name; nothing before the first job has written."""
    logs, group = house.client("logs"), "/aws/sagemaker/TrainingJobs"
    try:
        found = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
    except logs.exceptions.ResourceNotFoundException:
        return {}
    return {
        stream["logStreamName"].split("/")[1].rpartition("-")[0]: [
            event["message"]
            for event in logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
            )["events"]
        ]
        for stream in found
    }


def report(house: House, job: dict[str, Any]) -> dict[str, Any]:
    bucket, _, key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").partition("/")
    archive = house.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found: dict[str, Any] = json.load(tar.extractfile("training_report.json"))  # type: ignore[arg-type]
    return found


def test_two_machines_train_to_the_losses_of_one(house: House, train_alone: str) -> None:
    one = end(house, start(house, train_alone, 1))
    # `batch_size` is each process's: the same number of rows a step.
    two = end(house, start(house, train_alone, 2, BatchSize="4"))
    written = lines(house, two["TrainingJobName"])
    assert two["TrainingJobStatus"] == one["TrainingJobStatus"] == "Completed", written
    assert two["ResourceConfig"]["InstanceCount"] == 2
    assert sorted(written) == ["algo-1", "algo-2"]
    for rank, host in enumerate(sorted(written)):
        command = f"torchrun --nnodes=2 --nproc_per_node=1 --master_addr=algo-1 --master_port=7777 --node_rank={rank}"
        assert any(command in line for line in written[host]), written[host]
    assert any("processes=2" in line for line in written["algo-1"])
    assert not any("train:loss" in line for line in written["algo-2"]), "one of them reports"
    assert "train:loss" in {item["MetricName"] for item in two.get("FinalMetricDataList", [])}, "\n".join(
        line[:200] for line in written["algo-1"][-12:]
    )
    alone, together = report(house, one), report(house, two)
    assert len(alone["history"]) > 1
    for before, after in zip(alone["history"], together["history"], strict=True):
        assert before["step"] == after["step"]
        for name in before.keys() & {"train_loss", "validation_loss"}:
            assert after[name] == pytest.approx(before[name], rel=1e-4), (name, before, after)


def test_a_stop_of_two_machines_keeps_a_checkpoint(house: House, train_alone: str) -> None:
    name = start(house, train_alone, 2, MaxSteps="5000", Seed="3")
    until(lambda: lines(house, name).get("algo-1", []), lambda seen: any("step=" in line for line in seen))
    house.client("sagemaker").stop_training_job(TrainingJobName=name)
    job = end(house, name)
    assert job["TrainingJobStatus"] == "Stopped"
    written = lines(house, name)
    for host in ("algo-1", "algo-2"):
        assert any("[stop]" in line for line in written[host]), written[host][-5:]
    saved = next(
        re.search(r"checkpoint saved at step (\d+)/5000", line) for line in written["algo-1"] if "[stop]" in line
    )
    assert saved, written["algo-1"][-5:]
    place = job["CheckpointConfig"]["S3Uri"].removeprefix(f"s3://{BUCKET}/")
    kept = [item["Key"] for item in house.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=place)["Contents"]]
    for seal in ("whole.json", "whole-1.json"):
        assert any(key.endswith(f"/checkpoint-{saved[1]}/{seal}") for key in kept), (seal, kept)
