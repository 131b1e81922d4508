"""Pipelines, versions, lists and tags over HTTP."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud_pipelines.conftest import IMAGE, ROLE, definition, finished, processing

TEXT = definition(processing("A"))


def code_of(caught: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_create_describe_update_delete(sm: Any, name: str) -> None:
    token = "t" * 32
    more = {"PipelineDescription": "first", "ParallelismConfiguration": {"MaxParallelExecutionSteps": 2}}
    arn = sm.create_pipeline(
        PipelineName=name, PipelineDefinition=TEXT, RoleArn=ROLE, ClientRequestToken=token, **more
    )["PipelineArn"]
    assert arn == f"arn:aws:sagemaker:us-east-1:123456789012:pipeline/{name}"
    repeated = sm.create_pipeline(
        PipelineName=name, PipelineDefinition=TEXT, RoleArn=ROLE, ClientRequestToken=token, **more
    )
    assert repeated["PipelineArn"] == arn
    with pytest.raises(ClientError) as caught:
        sm.create_pipeline(PipelineName=name.upper(), PipelineDefinition=TEXT, RoleArn=ROLE)
    code, message = code_of(caught)
    assert code == "ValidationException"
    assert "must be unique within an AWS account" in message

    found = sm.describe_pipeline(PipelineName=name)
    assert (found["PipelineName"], found["PipelineStatus"], found["RoleArn"]) == (name, "Active", ROLE)
    assert (found["PipelineDescription"], found["PipelineDefinition"]) == ("first", TEXT)
    assert found["ParallelismConfiguration"] == {"MaxParallelExecutionSteps": 2}
    assert "LastRunTime" not in found

    changed = definition(processing("B"))
    updated = sm.update_pipeline(PipelineName=name, PipelineDefinition=changed, PipelineDescription="second")
    assert updated == updated | {"PipelineArn": arn, "PipelineVersionId": 2}
    assert sm.update_pipeline(PipelineName=name, PipelineDefinition=changed)["PipelineVersionId"] == 2
    found = sm.describe_pipeline(PipelineName=arn)
    assert (found["PipelineDefinition"], found["PipelineDescription"], found["RoleArn"]) == (changed, "second", ROLE)
    assert sm.describe_pipeline(PipelineName=name, PipelineVersionId=1)["PipelineDefinition"] == TEXT
    versions = sm.list_pipeline_versions(PipelineName=name)["PipelineVersionSummaries"]
    assert [item["PipelineVersionId"] for item in versions] == [2, 1]
    sm.update_pipeline_version(PipelineArn=arn, PipelineVersionId=1, PipelineVersionDisplayName="first")
    assert sm.describe_pipeline(PipelineName=name, PipelineVersionId=1)["PipelineVersionDisplayName"] == "first"

    assert sm.delete_pipeline(PipelineName=name)["PipelineArn"] == arn
    for call in (sm.describe_pipeline, sm.delete_pipeline, sm.update_pipeline, sm.list_pipeline_executions):
        with pytest.raises(sm.exceptions.ResourceNotFound):
            call(PipelineName=name)


def test_a_definition_in_s3(sm: Any, client: Callable[[str], Any], bucket: str, name: str) -> None:
    client("s3").put_object(Bucket=bucket, Key=f"{name}.json", Body=TEXT.encode())
    location = {"Bucket": bucket, "ObjectKey": f"{name}.json"}
    sm.create_pipeline(PipelineName=name, PipelineDefinitionS3Location=location, RoleArn=ROLE)
    assert sm.describe_pipeline(PipelineName=name)["PipelineDefinition"] == TEXT
    with pytest.raises(ClientError, match=r"Unable to read the pipeline definition from s3://.*/absent"):
        sm.update_pipeline(PipelineName=name, PipelineDefinitionS3Location={"Bucket": bucket, "ObjectKey": "absent"})
    with pytest.raises(ClientError, match="One of PipelineDefinition and PipelineDefinitionS3Location"):
        sm.create_pipeline(PipelineName=name + "x", RoleArn=ROLE)
    with pytest.raises(ClientError, match="can't both be given"):
        sm.update_pipeline(PipelineName=name, PipelineDefinition=TEXT, PipelineDefinitionS3Location=location)


def test_lists_are_filtered_ordered_and_paged(sm: Any, name: str) -> None:
    names = [f"{name}-{letter}" for letter in "cab"]
    for item in names:
        sm.create_pipeline(PipelineName=item, PipelineDefinition=TEXT, RoleArn=ROLE)

    def listed(**request: Any) -> list[str]:
        pages = sm.get_paginator("list_pipelines").paginate(PipelineNamePrefix=name, **request)
        return [item["PipelineName"] for page in pages for item in page["PipelineSummaries"]]

    assert listed(MaxResults=1) == names[::-1]
    assert listed(SortOrder="Ascending", MaxResults=2) == names
    assert listed(SortBy="Name", SortOrder="Ascending") == sorted(names)
    created, minute = sm.describe_pipeline(PipelineName=names[1])["CreationTime"], datetime.timedelta(minutes=1)
    assert listed(CreatedAfter=created - minute) == listed(CreatedBefore=created + minute) == names[::-1]
    assert listed(CreatedAfter=created + minute) == listed(CreatedBefore=created - minute) == []
    first = sm.list_pipelines(PipelineNamePrefix=name, MaxResults=1)
    with pytest.raises(ClientError, match="Invalid NextToken"):
        sm.list_pipelines(PipelineNamePrefix=name[:-1], NextToken=first["NextToken"])
    with pytest.raises(ClientError, match="Invalid NextToken"):
        sm.list_pipelines(NextToken="nonsense")


def test_a_running_pipeline_is_not_deleted_and_a_deleted_one_takes_its_executions_along(sm: Any, pipeline: Any) -> None:
    name = pipeline(processing("Long", "import time; time.sleep(60)"))
    arn = sm.start_pipeline_execution(PipelineName=name)["PipelineExecutionArn"]
    with pytest.raises(ClientError) as caught:
        sm.delete_pipeline(PipelineName=name)
    assert code_of(caught)[0] == "ConflictException"
    assert arn in code_of(caught)[1]
    sm.stop_pipeline_execution(PipelineExecutionArn=arn)
    assert finished(sm, arn)["PipelineExecutionStatus"] == "Stopped"
    sm.delete_pipeline(PipelineName=name)
    with pytest.raises(sm.exceptions.ResourceNotFound):
        sm.describe_pipeline_execution(PipelineExecutionArn=arn)
    pipeline(processing("A"))
    assert sm.list_pipeline_executions(PipelineName=name)["PipelineExecutionSummaries"] == []


def test_tags_on_every_kind(sm: Any, name: str, pipeline: Any, run: Any) -> None:
    tag = [{"Key": "team", "Value": "a"}]
    arns = [
        sm.create_pipeline(PipelineName=name, PipelineDefinition=TEXT, RoleArn=ROLE, Tags=tag)["PipelineArn"],
        sm.create_model_package_group(ModelPackageGroupName=name, Tags=tag)["ModelPackageGroupArn"],
        sm.create_model(ModelName=name, PrimaryContainer={"Image": IMAGE}, ExecutionRoleArn=ROLE, Tags=tag)["ModelArn"],
    ]
    step = sm.list_pipeline_execution_steps(PipelineExecutionArn=run(name)["PipelineExecutionArn"])
    job = step["PipelineExecutionSteps"][0]["Metadata"]["ProcessingJob"]["Arn"]
    given = {item["Key"]: item["Value"] for item in sm.list_tags(ResourceArn=job)["Tags"]}
    assert given["sagemaker:pipeline-step-name"] == "A"
    for arn in [*arns, job]:
        sm.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "b"}, {"Key": "cost", "Value": "1"}])
        kept = {item["Key"]: item["Value"] for item in sm.list_tags(ResourceArn=arn)["Tags"]}
        assert (kept["team"], kept["cost"]) == ("b", "1")
        sm.delete_tags(ResourceArn=arn, TagKeys=["team"])
        assert "team" not in {item["Key"] for item in sm.list_tags(ResourceArn=arn)["Tags"]}
    with pytest.raises(ClientError) as caught:
        sm.list_tags(ResourceArn=arns[0] + "-absent")
    assert code_of(caught)[0] == "ValidationException"
    many = [{"Key": f"k{n}", "Value": ""} for n in range(50)]
    with pytest.raises(ClientError, match="the limit is 50"):
        sm.add_tags(ResourceArn=arns[0], Tags=many)
    sm.delete_pipeline(PipelineName=name)
    with pytest.raises(ClientError):
        sm.list_tags(ResourceArn=arns[0])


def test_an_unimplemented_operation_is_named(sm: Any) -> None:
    with pytest.raises(ClientError, match="ListPipelineVersions"):
        sm.list_pipeline_versions(PipelineName="a")
