"""Model package groups, packages, approval and its events; models made from packages."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud_pipelines.conftest import IMAGE, ROLE, processing, reason, steps_of

SPECIFICATION = {
    "Containers": [{"Image": IMAGE, "ModelDataUrl": "s3://b/model.tar.gz", "Environment": {"A": "1", "B": "1"}}],
    "SupportedContentTypes": ["application/json"],
    "SupportedResponseMIMETypes": ["application/json"],
}


def version(sm: Any, group: str, **more: Any) -> str:
    arn: str = sm.create_model_package(ModelPackageGroupName=group, InferenceSpecification=SPECIFICATION, **more)[
        "ModelPackageArn"
    ]
    return arn


def refused(call: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_groups(sm: Any, name: str) -> None:
    arn = sm.create_model_package_group(ModelPackageGroupName=name, ModelPackageGroupDescription="d")[
        "ModelPackageGroupArn"
    ]
    assert arn.endswith(f":model-package-group/{name}")
    code, message = refused(sm.create_model_package_group, ModelPackageGroupName=name)
    assert (code, "already exists" in message) == ("ValidationException", True)
    for key in (name, arn):
        found = sm.describe_model_package_group(ModelPackageGroupName=key)
        assert (found["ModelPackageGroupName"], found["ModelPackageGroupStatus"]) == (name, "Completed")
    listed = sm.list_model_package_groups(NameContains=name)["ModelPackageGroupSummaryList"]
    assert [item["ModelPackageGroupArn"] for item in listed] == [arn]
    package = version(sm, name)
    assert refused(sm.delete_model_package_group, ModelPackageGroupName=name)[0] == "ConflictException"
    sm.delete_model_package(ModelPackageName=package)
    sm.delete_model_package_group(ModelPackageGroupName=name)
    assert "does not exist" in refused(sm.describe_model_package_group, ModelPackageGroupName=name)[1]


def test_versions(sm: Any, name: str) -> None:
    sm.create_model_package_group(ModelPackageGroupName=name)
    metadata = {"CustomerMetadataProperties": {"endpoint_name": "e", "old": "x"}}
    arns = [
        version(sm, name, ModelApprovalStatus=status) for status in ("Approved", "Rejected", "PendingManualApproval")
    ]
    arns.append(version(sm, name, **metadata))
    assert [arn.rsplit("/", 1)[1] for arn in arns] == ["1", "2", "3", "4"]
    found = sm.describe_model_package(ModelPackageName=arns[3])
    assert (found["ModelPackageVersion"], found["ModelPackageStatus"]) == (4, "Completed")
    assert found["ModelApprovalStatus"] == "PendingManualApproval"
    assert found["InferenceSpecification"] == SPECIFICATION

    def listed(**request: Any) -> list[int]:
        pages = sm.get_paginator("list_model_packages").paginate(ModelPackageGroupName=name, **request)
        return [item["ModelPackageVersion"] for page in pages for item in page["ModelPackageSummaryList"]]

    # Without an order the first is the latest, as AWS's own project templates take it.
    assert listed(PaginationConfig={"PageSize": 1}) == [4, 3, 2, 1]
    assert listed(SortOrder="Ascending") == [1, 2, 3, 4]
    assert listed(ModelApprovalStatus="PendingManualApproval") == [4, 3]
    assert listed(SortBy="Name", SortOrder="Descending") == [4, 3, 2, 1]

    sm.update_model_package(
        ModelPackageArn=arns[3],
        ModelApprovalStatus="Approved",
        ApprovalDescription="looks good",
        CustomerMetadataProperties={"endpoint_name": "f", "new": "y"},
        CustomerMetadataPropertiesToRemove=["old"],
    )
    found = sm.describe_model_package(ModelPackageName=arns[3])
    assert (found["ModelApprovalStatus"], found["ApprovalDescription"]) == ("Approved", "looks good")
    assert found["CustomerMetadataProperties"] == {"endpoint_name": "f", "new": "y"}
    assert listed(ModelApprovalStatus="Approved") == [4, 1]

    sm.delete_model_package(ModelPackageName=arns[3])
    assert version(sm, name).endswith("/5"), "a deleted version's number came back"
    absent = sm.batch_describe_model_package(ModelPackageArnList=[arns[0], arns[3]])
    assert set(absent["ModelPackageSummaries"]) == {arns[0]}
    assert set(absent["BatchDescribeModelPackageErrorMap"]) == {arns[3]}
    assert "does not exist" in refused(sm.describe_model_package, ModelPackageName=arns[3])[1]
    assert "does not exist" in refused(sm.create_model_package, ModelPackageGroupName=name + "x")[1]
    assert "Exactly one of" in refused(sm.create_model_package)[1]


def test_a_client_token_makes_one_version(sm: Any, name: str) -> None:
    sm.create_model_package_group(ModelPackageGroupName=name)
    assert version(sm, name, ClientToken=name) == version(sm, name, ClientToken=name)
    assert len(sm.list_model_packages(ModelPackageGroupName=name)["ModelPackageSummaryList"]) == 1


def test_creation_and_every_update_send_events(sm: Any, name: str, events: Any) -> None:
    sm.create_model_package_group(ModelPackageGroupName=name)
    arn = version(sm, name, CustomerMetadataProperties={"k": "v"})
    sm.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    sm.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties={"k": "w"})
    sm.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Rejected", ApprovalDescription="wrong units")

    def mine(event: dict[str, Any]) -> bool:
        return bool(event["detail"].get("ModelPackageArn") == arn)

    seen = events(lambda event: mine(event) and event["detail"]["ModelApprovalStatus"] == "Rejected")
    found = [event for event in seen if mine(event)]
    assert [event["detail"]["ModelApprovalStatus"] for event in found] == [
        "PendingManualApproval",
        "Approved",
        "Approved",
        "Rejected",
    ]
    assert [event["detail"].get("UpdatedModelPackageFields") for event in found] == [
        None,
        ["ModelApprovalStatus"],
        ["CustomerMetadataProperties"],
        ["ModelApprovalStatus", "ApprovalDescription"],
    ]
    times = [event["detail"]["LastModifiedTime"] for event in found]
    assert times == sorted(times)
    detail = found[1]["detail"]
    assert found[1]["detail-type"] == "SageMaker Model Package State Change"
    assert found[1]["resources"] == [arn]
    assert (detail["ModelPackageGroupName"], detail["ModelPackageVersion"]) == (name, 1)
    assert (detail["ModelPackageStatus"], detail["CustomerMetadataProperties"]) == ("Completed", {"k": "v"})
    assert detail["InferenceSpecification"] == SPECIFICATION
    assert isinstance(detail["CreationTime"], int)  # epoch milliseconds
    assert not [key for key in detail if key.startswith("_")]


GOOD_CARD: dict[str, Any] = {
    "model_overview": {"model_creator": "team", "model_artifact": ["s3://b/model.tar.gz"]},
    "intended_uses": {"purpose_of_model": "Answers", "risk_rating": "Low"},
    "training_details": {
        "training_job_details": {
            "hyper_parameters": [{"name": "epochs", "value": "3"}],
            "training_metrics": [{"name": "loss", "value": 0.5}],
        }
    },
    "evaluation_details": [
        {
            "name": "test",
            "metric_groups": [
                {"name": "tuned", "metric_data": [{"name": "f1", "type": "number", "value": 0.5, "notes": "n"}]},
                {
                    "name": "bars",
                    "metric_data": [{"name": "b", "type": "bar_chart", "value": [1, 2], "x_axis_name": ["x"]}],
                },
            ],
        }
    ],
    "additional_information": {"custom_details": {"k": "v"}},
}


def trained(**details: Any) -> dict[str, Any]:
    return {"training_details": {"training_job_details": details}}


def evaluated(metrics: list[Any]) -> dict[str, Any]:
    return {"evaluation_details": [{"name": "n", "metric_groups": [{"name": "g", "metric_data": metrics}]}]}


BAD_CARDS: list[tuple[str, Any, str]] = [
    ("a member that isn't listed", {"nonsense": 1}, "nonsense"),
    ("ModelCard's own overview", {"model_overview": {"model_description": "text"}}, "model_description"),
    ("a model id", {"model_overview": {"model_id": ""}}, "model_id"),
    ("an empty value", trained(hyper_parameters=[{"name": "a", "value": ""}]), "value"),
    ("a number as text", trained(training_metrics=[{"name": "a", "value": "1"}]), "value"),
    ("an unknown rating", {"intended_uses": {"risk_rating": "high"}}, "risk_rating"),
    ("no name", {"evaluation_details": [{"evaluation_observation": "x"}]}, "name"),
    ("long text", {"intended_uses": {"purpose_of_model": "x" * 2049}}, "purpose_of_model"),
    ("long detail", {"additional_information": {"custom_details": {"k": "x" * 1025}}}, "custom_details"),
    ("a detail that isn't text", {"additional_information": {"custom_details": {"k": 1}}}, "custom_details"),
    ("eleven data sets", {"evaluation_details": [{"name": "n", "datasets": ["s3://b/k"] * 11}]}, "datasets"),
    ("an unknown kind of metric", evaluated([{"name": "m", "type": "pie", "value": 1}]), "metric_data"),
    ("a list", [], "#"),
]  # fmt: skip


@pytest.mark.parametrize(("card", "words"), [case[1:] for case in BAD_CARDS], ids=[case[0] for case in BAD_CARDS])
def test_a_card_that_its_schema_refuses(sm: Any, name: str, card: Any, words: str) -> None:
    sm.create_model_package_group(ModelPackageGroupName=name)
    given = {"ModelCardContent": json.dumps(card), "ModelCardStatus": "Draft"}
    good = {"ModelCardContent": json.dumps(GOOD_CARD), "ModelCardStatus": "Draft"}
    group = {"ModelPackageGroupName": name, "InferenceSpecification": SPECIFICATION}
    code, message = refused(sm.create_model_package, **group, ModelCard=given)
    assert (code, words in message) == ("ValidationException", True), message
    arn = version(sm, name, ModelCard=good)
    assert words in refused(sm.update_model_package, ModelPackageArn=arn, ModelCard=given)[1]
    assert sm.describe_model_package(ModelPackageName=arn)["ModelCard"] == good


def test_a_card_that_is_no_json_or_archived(sm: Any, name: str) -> None:
    sm.create_model_package_group(ModelPackageGroupName=name)
    text = {"ModelCardContent": "{'a': 1}", "ModelCardStatus": "Draft"}
    group = {"ModelPackageGroupName": name, "InferenceSpecification": SPECIFICATION}
    assert "not valid JSON" in refused(sm.create_model_package, **group, ModelCard=text)[1]
    deep = {"ModelCardContent": "[" * 90_000, "ModelCardStatus": "Draft"}
    assert "not valid JSON" in refused(sm.create_model_package, **group, ModelCard=deep)[1]
    arn = version(sm, name, ModelCard={"ModelCardContent": "{}", "ModelCardStatus": "Archived"})
    again = {"ModelCardContent": "{}", "ModelCardStatus": "Draft"}
    assert "Archived" in refused(sm.update_model_package, ModelPackageArn=arn, ModelCard=again)[1]


def test_a_package_holds_fifty_properties_also_when_they_come_one_by_one(sm: Any, name: str) -> None:
    sm.create_model_package_group(ModelPackageGroupName=name)
    arn = version(sm, name, CustomerMetadataProperties={f"k{number}": "v" for number in range(50)})
    more = {"ModelPackageArn": arn, "CustomerMetadataProperties": {"one-more": "v"}}
    assert "at most 50" in refused(sm.update_model_package, **more)[1]
    sm.update_model_package(**more, CustomerMetadataPropertiesToRemove=["k0"])
    for value in ("my data (1).csv", "a,b.csv", "x" * 257):
        wrong = {"ModelPackageArn": arn, "CustomerMetadataProperties": {"k1": value}}
        assert refused(sm.update_model_package, **wrong)[0] == "ValidationException", value


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("describe_image", {"ImageName": "own-image"}),
        ("describe_image_version", {"ImageName": "own-image"}),
        ("describe_project", {"ProjectName": "p-1"}),
    ],
)
def test_what_official_templates_ask_for_is_not_there(sm: Any, operation: str, request_: dict[str, str]) -> None:
    """Their code catches ResourceNotFound and goes on with the public image."""
    assert refused(getattr(sm, operation), **request_)[0] == "ResourceNotFound"


def test_tags_of_what_does_not_exist(sm: Any) -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:model/absent"
    assert refused(sm.list_tags, ResourceArn=arn)[0] == "ValidationException"
    assert refused(sm.add_tags, ResourceArn=arn, Tags=[{"Key": "k", "Value": "v"}])[0] == "ValidationException"
    assert refused(sm.delete_tags, ResourceArn=arn, TagKeys=["k"])[0] == "ValidationException"


def test_models(sm: Any, name: str) -> None:
    network = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
    container = {"Image": IMAGE, "ModelDataUrl": "s3://b/m.tar.gz", "Environment": {"K": "v"}}
    request = {"ModelName": name, "PrimaryContainer": container, "ExecutionRoleArn": ROLE}
    arn = sm.create_model(**request, VpcConfig=network, EnableNetworkIsolation=True)["ModelArn"]
    found = sm.describe_model(ModelName=name)
    assert found == found | request | {"VpcConfig": network, "EnableNetworkIsolation": True, "ModelArn": arn}
    code, message = refused(sm.create_model, **request)
    assert (code, "Cannot create already existing model" in message) == ("ValidationException", True)
    assert "exactly one of PrimaryContainer and Containers" in refused(sm.create_model, ModelName=name + "x")[1]
    both = {"ModelName": name + "x", "PrimaryContainer": container, "Containers": [container]}
    assert "exactly one of" in refused(sm.create_model, **both)[1]
    sm.create_model(ModelName=name + "-two", Containers=[container, container], ExecutionRoleArn=ROLE)
    listed = sm.list_models(NameContains=name, MaxResults=1)
    assert [item["ModelName"] for item in listed["Models"]] == [name + "-two"]
    rest = sm.list_models(NameContains=name, MaxResults=1, NextToken=listed["NextToken"])
    assert [item["ModelName"] for item in rest["Models"]] == [name]
    assert "NextToken" not in rest
    sm.delete_model(ModelName=name)
    for call in (sm.describe_model, sm.delete_model):
        code, message = refused(call, ModelName=name)
        assert (code, message.startswith("Could not find model")) == ("ValidationException", True)


def test_a_model_from_a_package_gets_what_the_package_has(sm: Any, name: str) -> None:
    sm.create_model_package_group(ModelPackageGroupName=name)
    package = version(sm, name)
    container = {"ModelPackageName": package, "Environment": {"B": "2"}}
    request = {"ModelName": name, "PrimaryContainer": container, "ExecutionRoleArn": ROLE}
    assert "is PendingManualApproval: only an Approved version" in refused(sm.create_model, **request)[1]
    sm.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    sm.create_model(**request)
    assert sm.describe_model(ModelName=name)["PrimaryContainer"] == {
        "ModelPackageName": package,
        "Image": IMAGE,
        "ModelDataUrl": "s3://b/model.tar.gz",
        "Environment": {"A": "1", "B": "2"},
    }
    absent = {
        "ModelName": name + "x",
        "PrimaryContainer": {"ModelPackageName": package + "9"},
        "ExecutionRoleArn": ROLE,
    }
    assert "does not exist" in refused(sm.create_model, **absent)[1]


def test_steps_that_register_and_make_a_model(sm: Any, pipeline: Any, run: Any, name: str) -> None:
    group = f"{name}-group"
    specification = {
        "Containers": [{"Image": IMAGE, "ModelDataUrl": {"Std:Join": {"On": "/", "Values": ["s3://b", "m.tar.gz"]}}}],
        "SupportedContentTypes": ["text/csv"],
        "SupportedResponseMIMETypes": ["text/csv"],
    }
    register = {
        "Name": "Register",
        "Type": "RegisterModel",
        "Arguments": {
            "ModelPackageGroupName": group,
            "InferenceSpecification": specification,
            "ModelApprovalStatus": {"Get": "Parameters.Approval"},
            "ModelMetrics": None,
        },
    }
    container = {"ModelPackageName": {"Get": "Steps.Register.ModelPackageArn"}}
    model = {
        "Name": "Make_Model",
        "Type": "Model",
        "Arguments": {"PrimaryContainer": container, "ExecutionRoleArn": ROLE},
    }
    use = processing("Use", "import sys; assert len(sys.argv[1]) <= 63", {"Get": "Steps.Make_Model.ModelName"})
    pipeline(register, model, use, parameters=[{"Name": "Approval", "Type": "String", "DefaultValue": "Approved"}])
    ended = run(name)
    assert ended["PipelineExecutionStatus"] == "Succeeded", ended.get("FailureReason")
    found = steps_of(sm, ended["PipelineExecutionArn"])
    arn = found["Register"]["Metadata"]["RegisterModel"]["Arn"]
    package = sm.describe_model_package(ModelPackageName=arn)
    assert package["MetadataProperties"]["GeneratedBy"] == ended["PipelineExecutionArn"]
    assert package["ModelPackageGroupName"] == group
    made = found["Make_Model"]["Metadata"]["Model"]["Arn"].rsplit("/", 1)[1]
    identifier = ended["PipelineExecutionArn"].rsplit("/", 1)[1]
    assert made.startswith(f"pipelines-{identifier}-Make-Model-")
    unapproved = run(name, {"Approval": "Rejected"})
    assert "only an Approved version can be used" in reason(sm, unapproved)
    assert sm.describe_model_package_group(ModelPackageGroupName=group)


HANDLER = """
import json
def model_fn(model_dir):
    return open(model_dir + "/word").read()
def input_fn(data, content_type):
    return json.loads(data)
def predict_fn(request, word):
    return {"said": word + request["inputs"]}
"""


def test_steps_that_bring_a_model_to_an_endpoint(
    sm: Any, pipeline: Any, run: Any, name: str, bucket: str, client: Callable[[str], Any]
) -> None:
    def put(key: str, word: str) -> str:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for member, text in (("word", word), ("code/inference.py", HANDLER)):
                info = tarfile.TarInfo(member)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
        client("s3").put_object(Bucket=bucket, Key=f"{name}/{key}", Body=packed.getvalue())
        return f"s3://{bucket}/{name}/{key}"

    container = {"Image": IMAGE, "ModelDataUrl": {"Get": "Parameters.Model"}}
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": {"Get": "Steps.Make.ModelName"},
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    pipeline(
        {"Name": "Make", "Type": "Model", "Arguments": {"PrimaryContainer": container, "ExecutionRoleArn": ROLE}},
        {"Name": "Configure", "Type": "EndpointConfig", "Arguments": {"ProductionVariants": [variant]}},
        {
            "Name": "Deploy",
            "Type": "Endpoint",
            "Arguments": {
                "EndpointName": name,
                "EndpointConfigName": {"Get": "Steps.Configure.EndpointConfigName"},
            },
        },
        parameters=[{"Name": "Model", "Type": "String"}],
    )
    for word in ("one ", "two "):
        ended = run(name, {"Model": put(word.strip(), word)})
        assert ended["PipelineExecutionStatus"] == "Succeeded", ended.get("FailureReason")
        answer = client("sagemaker-runtime").invoke_endpoint(
            EndpointName=name, Body=b'{"inputs": "hello"}', ContentType="application/json"
        )
        assert json.loads(answer["Body"].read()) == {"said": f"{word}hello"}
        found = steps_of(sm, ended["PipelineExecutionArn"])
        endpoint = sm.describe_endpoint(EndpointName=name)
        assert found["Deploy"]["Metadata"]["Endpoint"]["Arn"] == endpoint["EndpointArn"]
        assert found["Configure"]["Metadata"]["EndpointConfig"]["Arn"].endswith(endpoint["EndpointConfigName"])
    sm.delete_endpoint(EndpointName=name)
