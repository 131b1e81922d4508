"""Start, overrides, tokens, lists, stop, retry, parallel branches: what happens to executions of real jobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud_pipelines.conftest import (
    condition,
    equals,
    fail,
    finished,
    processing,
    reason,
    steps_of,
    until,
    writes,
)

PARAMETERS = [
    {"Name": "Epochs", "Type": "Integer", "DefaultValue": 3},
    {"Name": "Rate", "Type": "Float", "DefaultValue": 1},
    {"Name": "On", "Type": "Boolean", "DefaultValue": False},
    {"Name": "Method", "Type": "String", "DefaultValue": "lora", "EnumValues": ["lora", "full"]},
    {"Name": "Data", "Type": "String"},
]
SLEEP = "import time; time.sleep(60)"


def show(*names: str) -> dict[str, Any]:
    return fail("Show", {"Std:Join": {"On": "|", "Values": [{"Get": f"Parameters.{name}"} for name in names]}})


def test_overrides_are_typed_and_the_rest_is_refused_all_at_once(sm: Any, pipeline: Any, run: Any) -> None:
    name = pipeline(show("Epochs", "Rate", "On", "Method", "Data"), parameters=PARAMETERS)
    assert reason(sm, run(name, {"Data": "s3://b/d"})) == "3|1.0|false|lora|s3://b/d"
    overrides = {"Data": "x", "Epochs": "-5", "Rate": "1e-3", "On": "True", "Method": "full"}
    ended = run(name, overrides)
    assert reason(sm, ended) == "-5|0.001|true|full|x"
    answer = sm.list_pipeline_parameters_for_execution(PipelineExecutionArn=ended["PipelineExecutionArn"])
    assert {item["Name"]: item["Value"] for item in answer["PipelineParameters"]} == {
        "Epochs": "-5",
        "Rate": "0.001",
        "On": "true",
        "Method": "full",
        "Data": "x",
    }
    before = len(sm.list_pipeline_executions(PipelineName=name)["PipelineExecutionSummaries"])
    with pytest.raises(ClientError) as caught:
        run(name, {"Epochs": "3.5", "Rate": "fast", "On": "1", "Method": "qlora", "Learning": "1"})
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    for said in (
        "'3.5' is not of type Integer",
        "'fast' is not of type Float",
        "'1' is not of type Boolean",
        "'qlora' is not one of lora, full",
        "'Learning' is not a parameter of this pipeline (declared: Data, Epochs, Method, On, Rate)",
        "'Data' has no default and needs a value",
    ):
        assert said in error["Message"]
    assert len(sm.list_pipeline_executions(PipelineName=name)["PipelineExecutionSummaries"]) == before


def test_execution_variables(sm: Any, pipeline: Any, run: Any) -> None:
    variables = ["PipelineName", "PipelineArn", "PipelineExecutionId", "PipelineExecutionArn", "StartDateTime"]
    values = [{"Get": f"Execution.{item}"} for item in variables]
    name = pipeline(fail("Show", {"Std:Join": {"On": "|", "Values": values}}))
    ended = run(name)
    arn = ended["PipelineExecutionArn"]
    started = ended["CreationTime"].strftime("%Y-%m-%dT%H:%M:%S")
    shown = reason(sm, ended).split("|")
    assert shown[:4] == [name, ended["PipelineArn"], arn.rsplit("/", 1)[1], arn]
    assert shown[4].startswith(started)
    assert shown[4].endswith("Z")


def test_a_token_starts_one_execution(sm: Any, pipeline: Any) -> None:
    name = pipeline(processing("A"), parameters=PARAMETERS[:1])
    token = f"{name:x<40}"
    first, again = (sm.start_pipeline_execution(PipelineName=name, ClientRequestToken=token) for _ in range(2))
    assert first["PipelineExecutionArn"] == again["PipelineExecutionArn"]
    finished(sm, first["PipelineExecutionArn"])
    assert len(sm.list_pipeline_executions(PipelineName=name)["PipelineExecutionSummaries"]) == 1
    with pytest.raises(ClientError) as caught:
        sm.start_pipeline_execution(
            PipelineName=name, ClientRequestToken=token, PipelineParameters=[{"Name": "Epochs", "Value": "1"}]
        )
    assert caught.value.response["Error"]["Code"] == "ConflictException"


def test_describe_and_list_executions(sm: Any, pipeline: Any, run: Any, name: str) -> None:
    experiment = {
        "ExperimentName": {"Get": "Execution.PipelineName"},
        "TrialName": {"Get": "Execution.PipelineExecutionId"},
    }
    pipeline(processing("A"), PipelineExperimentConfig=experiment)
    more = {"PipelineExecutionDisplayName": "nightly", "PipelineExecutionDescription": "of today"}
    first = run(name, **more)
    assert (first["PipelineExecutionDisplayName"], first["PipelineExecutionDescription"]) == ("nightly", "of today")
    assert first["PipelineExperimentConfig"]["TrialName"] == first["PipelineExecutionArn"].rsplit("/", 1)[1]
    pipeline(processing("B"))
    second = run(name)
    arns = [first["PipelineExecutionArn"], second["PipelineExecutionArn"]]
    text = sm.describe_pipeline_definition_for_execution(PipelineExecutionArn=arns[0])["PipelineDefinition"]
    assert json.loads(text)["Steps"][0]["Name"] == "A"
    assert (first["PipelineVersionId"], second["PipelineVersionId"]) == (1, 2)
    old = run(name, PipelineVersionId=1)
    assert set(steps_of(sm, old["PipelineExecutionArn"])) == {"A"}
    arns.append(old["PipelineExecutionArn"])

    pages = sm.get_paginator("list_pipeline_executions").paginate(PipelineName=name, PaginationConfig={"PageSize": 1})
    listed = [item for page in pages for item in page["PipelineExecutionSummaries"]]
    assert [item["PipelineExecutionArn"] for item in listed] == arns[::-1]
    assert listed[2]["PipelineExecutionDisplayName"] == "nightly"
    assert {item["PipelineExecutionStatus"] for item in listed} == {"Succeeded"}
    ran = sm.describe_pipeline(PipelineName=name)["LastRunTime"]
    assert ran == listed[0]["StartTime"]
    sm.update_pipeline_execution(PipelineExecutionArn=arns[0], PipelineExecutionDescription="of yesterday")
    changed = sm.describe_pipeline_execution(PipelineExecutionArn=arns[0])
    assert changed["PipelineExecutionDescription"] == "of yesterday"
    for call in (sm.describe_pipeline_execution, sm.list_pipeline_execution_steps, sm.stop_pipeline_execution):
        with pytest.raises(sm.exceptions.ResourceNotFound):
            call(PipelineExecutionArn=arns[0] + "x")


def test_branches_run_side_by_side_up_to_the_limit(sm: Any, pipeline: Any) -> None:
    names = ["A", "B", "C"]
    name = pipeline(*(processing(item, SLEEP) for item in names))

    def executing(arn: str) -> set[str]:
        return {key for key, step in steps_of(sm, arn).items() if "Metadata" in step}

    wide = sm.start_pipeline_execution(PipelineName=name)["PipelineExecutionArn"]
    until(lambda: executing(wide) == set(names), "all three run at once")
    limit = {"MaxParallelExecutionSteps": 2}
    narrow = sm.start_pipeline_execution(PipelineName=name, ParallelismConfiguration=limit)["PipelineExecutionArn"]
    until(lambda: len(executing(narrow)) == 2, "two run")
    assert len(steps_of(sm, narrow)) == 2
    for arn in (wide, narrow):
        sm.stop_pipeline_execution(PipelineExecutionArn=arn)
        assert finished(sm, arn)["PipelineExecutionStatus"] == "Stopped"
    assert len(steps_of(sm, narrow)) == 2, "stopping started the third step"


def test_stop_ends_the_running_job_and_what_follows_never_starts(sm: Any, pipeline: Any) -> None:
    name = pipeline(processing("Quick"), processing("Long", SLEEP), processing("Next", DependsOn=["Long"]))
    arn = sm.start_pipeline_execution(PipelineName=name)["PipelineExecutionArn"]
    running = until(lambda: steps_of(sm, arn).get("Long", {}).get("Metadata"), "Long runs")
    until(lambda: steps_of(sm, arn)["Quick"]["StepStatus"] == "Succeeded", "Quick ends")
    sm.stop_pipeline_execution(PipelineExecutionArn=arn)
    ended = finished(sm, arn)
    assert ended["PipelineExecutionStatus"] == "Stopped"
    found = steps_of(sm, arn)
    assert {key: step["StepStatus"] for key, step in found.items()} == {"Quick": "Succeeded", "Long": "Stopped"}
    job = running["ProcessingJob"]["Arn"].rsplit("/", 1)[1]
    jobs = sm.list_processing_jobs(NameContains=job)["ProcessingJobSummaries"]
    assert [item["ProcessingJobStatus"] for item in jobs] == ["Stopped"]
    with pytest.raises(ClientError, match="only an execution that is Executing can be stopped"):
        sm.stop_pipeline_execution(PipelineExecutionArn=arn)


def test_retry_runs_what_did_not_succeed(
    sm: Any, pipeline: Any, run: Any, client: Callable[[str], Any], bucket: str, name: str
) -> None:
    source = {
        "InputName": "data",
        "S3Input": {
            "S3Uri": f"s3://{bucket}/{name}/",
            "LocalPath": "/opt/ml/processing/input",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
        },
    }
    needs = "import pathlib; assert pathlib.Path('/opt/ml/processing/input/row').read_text() == 'good'"
    client("s3").put_object(Bucket=bucket, Key=f"{name}/row", Body=b"bad")
    pipeline(
        processing("First"),
        processing("Reads", needs, DependsOn=["First"], Arguments={"ProcessingInputs": [source]}),
        processing("Last", DependsOn=["Reads"]),
    )
    failed = run(name)
    arn = failed["PipelineExecutionArn"]
    assert failed["PipelineExecutionStatus"] == "Failed"
    first = steps_of(sm, arn)["First"]
    client("s3").put_object(Bucket=bucket, Key=f"{name}/row", Body=b"good")
    token = f"{name:y<40}"
    assert (
        sm.retry_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=token)["PipelineExecutionArn"] == arn
    )
    ended = finished(sm, arn)
    assert ended["PipelineExecutionStatus"] == "Succeeded"
    assert "FailureReason" not in ended
    found = steps_of(sm, arn)
    assert found["First"] == first, "a step that had succeeded ran again"
    assert {step["StepStatus"] for step in found.values()} == {"Succeeded"}
    assert set(found) == {"First", "Reads", "Last"}
    sm.retry_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=token)
    with pytest.raises(ClientError, match="only an execution that is Failed or Stopped can be retried"):
        sm.retry_pipeline_execution(PipelineExecutionArn=arn)


def test_nested_conditions_take_one_branch(sm: Any, pipeline: Any, run: Any) -> None:
    inner = condition(
        "Inner", [equals({"Get": "Parameters.Method"}, "full")], then=[processing("Full")], other=[fail("No", "no")]
    )
    outer = condition(
        "Outer",
        [equals(1, 1), {"Type": "GreaterThan", "LeftValue": {"Get": "Parameters.Epochs"}, "RightValue": 1}],
        then=[inner],
        other=[processing("Few")],
    )
    after = processing("After", DependsOn=["Full"])
    following = processing("Following", DependsOn=["Outer"])
    name = pipeline(outer, after, following, parameters=[PARAMETERS[0], PARAMETERS[3]])

    def names(parameters: dict[str, str]) -> set[str]:
        return set(steps_of(sm, run(name, parameters)["PipelineExecutionArn"]))

    assert names({"Method": "full"}) == {"Outer", "Inner", "Full", "After", "Following"}
    assert names({"Epochs": "1"}) == {"Outer", "Few", "Following"}
    assert names({"Method": "lora"}) == {"Outer", "Inner", "No", "Following"}


def test_a_gate_that_cannot_be_evaluated_fails_with_the_reason(
    sm: Any, pipeline: Any, run: Any, bucket: str, name: str
) -> None:
    report = {"Std:JsonGet": {"S3Uri": f"s3://{bucket}/{name}.json", "Path": "metrics.f1"}}
    pipeline(condition("Gate", [equals(report, 1)], then=[processing("A")]))
    ended = run(name)
    assert ended["PipelineExecutionStatus"] == "Failed"
    assert f"ClientError: s3://{bucket}/{name}.json can't be read" in reason(sm, ended)


def test_a_refused_request_fails_the_step_in_the_words_of_the_api(sm: Any, pipeline: Any, run: Any) -> None:
    step = processing("A", Arguments={"Environment": {"K": {"Get": "Parameters.Epochs"}}})
    ended = run(pipeline(step, parameters=PARAMETERS[:1]))
    assert steps_of(sm, ended["PipelineExecutionArn"])["A"]["StepStatus"] == "Failed"
    assert reason(sm, ended).startswith("ClientError: Failed to invoke sagemaker:CreateProcessingJob. Error Details: ")


def test_each_change_of_status_sends_an_event(sm: Any, pipeline: Any, run: Any, name: str, events: Any) -> None:
    pipeline(processing("A"), processing("B", "raise SystemExit(1)", DependsOn=["A"]))
    arn = run(name)["PipelineExecutionArn"]

    def is_end(event: dict[str, Any]) -> bool:
        detail = event["detail"]
        return detail.get("pipelineExecutionArn") == arn and detail.get("currentPipelineExecutionStatus") == "Failed"

    mine = [event for event in events(is_end) if event["detail"].get("pipelineExecutionArn") == arn]
    kinds = {
        "SageMaker Model Building Pipeline Execution Status Change": "execution",
        "SageMaker Model Building Pipeline Execution Step Status Change": "step",
    }
    seen = [
        (kinds[event["detail-type"]], event["detail"].get("stepName"), event["detail"].get("currentStepStatus"))
        for event in mine
    ]
    assert seen == [
        ("execution", None, None),
        ("step", "A", "Executing"),
        ("step", "A", "Succeeded"),
        ("step", "B", "Executing"),
        ("step", "B", "Failed"),
        ("execution", None, None),
    ]
    succeeded, failed = mine[2], mine[4]
    assert succeeded["detail"]["metadata"]["processingJob"]["arn"].startswith("arn:aws:sagemaker:")
    assert succeeded["detail"]["stepType"] == "Processing"
    assert failed["detail"]["failureReason"]
    assert succeeded["resources"] == [arn.partition("/execution/")[0], arn]
    assert succeeded["account"] == "123456789012"


def test_retries_at_once_run_each_step_once(sm: Any, pipeline: Any, run: Any) -> None:
    name = pipeline(processing("A", "raise SystemExit(1)"))
    arn = run(name)["PipelineExecutionArn"]
    jobs = len(sm.list_processing_jobs(NameContains=arn.rsplit("/", 1)[1])["ProcessingJobSummaries"])
    assert jobs == 1

    def retry(_: int) -> str:
        try:
            sm.retry_pipeline_execution(PipelineExecutionArn=arn)
        except ClientError as error:
            return str(error.response["Error"]["Message"])
        return "retried"

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(retry, range(8)))
    assert finished(sm, arn)["PipelineExecutionStatus"] == "Failed"
    found = sm.list_processing_jobs(NameContains=arn.rsplit("/", 1)[1])["ProcessingJobSummaries"]
    assert len(found) == 1 + said.count("retried")
    assert all(text == "retried" or "only an execution that is Failed" in text for text in said)


def test_a_retry_right_after_the_end_is_not_lost(sm: Any, pipeline: Any) -> None:
    arn = sm.start_pipeline_execution(PipelineName=pipeline(fail("F", "no")))["PipelineExecutionArn"]
    for _ in range(30):
        finished(sm, arn)
        sm.retry_pipeline_execution(PipelineExecutionArn=arn)
    assert reason(sm, finished(sm, arn)) == "no"


def test_a_job_may_use_its_own_name(
    sm: Any, pipeline: Any, run: Any, bucket: str, client: Callable[[str], Any]
) -> None:
    target = {"Std:Join": {"On": "/", "Values": [f"s3://{bucket}", {"Get": "Execution.ProcessingJobName"}]}}
    step = processing("A", writes("out", "r.json", 1), outputs={"out": target})
    ended = run(pipeline(step))
    identifier = ended["PipelineExecutionArn"].rsplit("/", 1)[1]
    job = sm.list_processing_jobs(NameContains=identifier)["ProcessingJobSummaries"][0]["ProcessingJobName"]
    listed = client("s3").list_objects_v2(Bucket=bucket, Prefix=f"pipelines-{identifier}-")["Contents"]
    assert [item["Key"] for item in listed] == [f"{job}/r.json"]
    outside = run(pipeline(fail("F", {"Get": "Execution.TrainingJobName"})))
    assert "only available inside a Training step" in reason(sm, outside)


def test_a_given_job_name_is_a_prefix(sm: Any, pipeline: Any, run: Any) -> None:
    ended = run(pipeline(processing("A", Arguments={"ProcessingJobName": "nightly"})))
    identifier = ended["PipelineExecutionArn"].rsplit("/", 1)[1]
    job = sm.list_processing_jobs(NameContains=identifier)["ProcessingJobSummaries"][0]["ProcessingJobName"]
    assert job.startswith(f"nightly-{identifier}-")


def test_accounts_and_regions_see_only_their_own(sm: Any, cloud: Any, pipeline: Any, run: Any, name: str) -> None:
    import boto3

    arn = run(pipeline(processing("A")))["PipelineExecutionArn"]
    for account, region in (("210987654321", "us-east-1"), ("123456789012", "eu-west-1")):
        session = boto3.Session(aws_access_key_id=account, aws_secret_access_key=cloud.secret, region_name=region)
        other = session.client("sagemaker", endpoint_url=cloud.url)
        assert other.list_pipelines()["PipelineSummaries"] == []
        with pytest.raises(other.exceptions.ResourceNotFound):
            other.describe_pipeline(PipelineName=name)
        with pytest.raises(other.exceptions.ResourceNotFound):
            other.describe_pipeline_execution(PipelineExecutionArn=arn)
    elsewhere = arn.replace("us-east-1", "eu-west-1")
    with pytest.raises(sm.exceptions.ResourceNotFound):
        sm.describe_pipeline_execution(PipelineExecutionArn=elsewhere)
