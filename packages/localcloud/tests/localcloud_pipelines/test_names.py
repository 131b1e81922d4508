"""Names and ARNs in the case that they were given in; requests that are sent again; the id of every answer."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud_pipelines.conftest import IMAGE, ROLE, definition, finished, processing

TEXT = definition(processing("A"))
SPECIFICATION = {
    "Containers": [{"Image": IMAGE, "ModelDataUrl": "s3://names/model.tar.gz"}],
    "SupportedContentTypes": ["application/json"],
    "SupportedResponseMIMETypes": ["application/json"],
}


def refused(call: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def create_pipeline(sm: Any, name: str, **more: Any) -> str:
    return str(sm.create_pipeline(PipelineName=name, PipelineDefinition=TEXT, RoleArn=ROLE, **more)["PipelineArn"])


def create_group(sm: Any, name: str, **more: Any) -> str:
    return str(sm.create_model_package_group(ModelPackageGroupName=name, **more)["ModelPackageGroupArn"])


def create_model(sm: Any, name: str, **more: Any) -> str:
    container = {"Image": IMAGE, "ModelDataUrl": "s3://names/model.tar.gz"}
    return str(sm.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE, **more)["ModelArn"])


def create_package(sm: Any, name: str, **more: Any) -> str:
    answer = sm.create_model_package(ModelPackageName=name, InferenceSpecification=SPECIFICATION, **more)
    return str(answer["ModelPackageArn"])


def create_config(sm: Any, name: str, **more: Any) -> str:
    model = f"Of-{name}"
    create_model(sm, model)
    variant = {"VariantName": "a", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    answer = sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **more)
    return str(answer["EndpointConfigArn"])


def create_context(sm: Any, name: str, **more: Any) -> str:
    source = {"SourceUri": "s3://names/x"}
    return str(sm.create_context(ContextName=name, Source=source, ContextType="Any", **more)["ContextArn"])


def create_job(sm: Any, name: str, **more: Any) -> str:
    arguments = processing("A")["Arguments"]
    return str(sm.create_processing_job(ProcessingJobName=name, RoleArn=ROLE, **arguments, **more)["ProcessingJobArn"])


@pytest.mark.parametrize(
    ("kind", "create"),
    [
        ("pipeline", create_pipeline),
        ("model-package-group", create_group),
        ("model-package", create_package),
        ("model", create_model),
        ("endpoint-config", create_config),
        ("context", create_context),
        ("processing-job", create_job),
    ],
)
def test_an_arn_keeps_its_names_case(
    sm: Any, client: Callable[[str], Any], name: str, kind: str, create: Callable[..., str]
) -> None:
    if not any(item["Name"] == "names" for item in client("s3").list_buckets()["Buckets"]):
        client("s3").create_bucket(Bucket="names")
        archive = io.BytesIO()
        tarfile.open(fileobj=archive, mode="w:gz").close()
        client("s3").put_object(Bucket="names", Key="model.tar.gz", Body=archive.getvalue())
    assert name != name.lower()
    given = [{"Key": "team", "Value": "a"}]
    arn = create(sm, name, Tags=given)
    assert arn.endswith(f":{kind}/{name}")
    assert sm.list_tags(ResourceArn=arn)["Tags"] == given
    # Recorded of AWS: an ARN in another case has no resource, not this one's tags.
    other = arn.replace(name, name.lower())
    assert refused(sm.list_tags, ResourceArn=other)[0] == "ValidationException"
    assert refused(sm.add_tags, ResourceArn=other, Tags=given)[0] == "ValidationException"
    if kind != "endpoint-config":
        refused(create, sm=sm, name=name.upper())


def test_a_pipeline_and_its_executions_are_found_by_their_exact_names_alone(sm: Any, name: str) -> None:
    create_pipeline(sm, name)
    arn = sm.start_pipeline_execution(PipelineName=name)["PipelineExecutionArn"]
    assert f":pipeline/{name}/execution/" in arn
    assert finished(sm, arn)["PipelineExecutionStatus"] == "Succeeded"
    assert sm.list_pipelines(PipelineNamePrefix=name.lower())["PipelineSummaries"] == []
    assert refused(sm.describe_pipeline, PipelineName=name.lower())[0] == "ResourceNotFound"
    lower = arn.replace(name, name.lower())
    assert refused(sm.describe_pipeline_execution, PipelineExecutionArn=lower)[0] == "ResourceNotFound"


def test_a_token_belongs_to_one_request(sm: Any, name: str) -> None:
    token = uuid.uuid4().hex
    arn = create_pipeline(sm, name, ClientRequestToken=token)
    assert create_pipeline(sm, name, ClientRequestToken=token) == arn
    code, message = refused(
        create_pipeline, sm=sm, name=name, ClientRequestToken=token, PipelineDescription="another request"
    )
    assert (code, message) == ("ConflictException", "ClientRequestToken was used before with another request.")

    create_group(sm, name)
    package = {"ModelPackageGroupName": name, "InferenceSpecification": SPECIFICATION, "ClientToken": token}
    first = sm.create_model_package(**package)["ModelPackageArn"]
    assert sm.create_model_package(**package)["ModelPackageArn"] == first
    assert refused(sm.create_model_package, **package, ModelApprovalStatus="Approved")[0] == "ConflictException"
    assert len(sm.list_model_packages(ModelPackageGroupName=name)["ModelPackageSummaryList"]) == 1

    failing = definition(processing("A", "raise SystemExit(3)"))
    sm.update_pipeline(PipelineName=name, PipelineDefinition=failing)
    run = sm.start_pipeline_execution(PipelineName=name, ClientRequestToken=token)["PipelineExecutionArn"]
    assert finished(sm, run)["PipelineExecutionStatus"] == "Failed"
    again = {"PipelineExecutionArn": run, "ClientRequestToken": token}
    for _ in range(2):
        sm.retry_pipeline_execution(**again)
    two = {"MaxParallelExecutionSteps": 2}
    assert refused(sm.retry_pipeline_execution, **again, ParallelismConfiguration=two)[0] == "ConflictException"
    finished(sm, run)


def test_an_update_that_is_sent_again_changes_nothing_a_second_time(sm: Any, name: str, events: Any) -> None:
    create_group(sm, name)
    arn = sm.create_model_package(ModelPackageGroupName=name, InferenceSpecification=SPECIFICATION)["ModelPackageArn"]
    edit = {"ModelPackageArn": arn, "ApprovalDescription": "first", "ClientToken": uuid.uuid4().hex}
    for _ in range(2):
        sm.update_model_package(**edit)
    with_other = {**edit, "ApprovalDescription": "second"}
    assert refused(sm.update_model_package, **with_other)[0] == "ConflictException"
    sm.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Rejected")
    seen = events(lambda event: event["detail"].get("ModelApprovalStatus") == "Rejected")
    mine = [event["detail"] for event in seen if event["detail"].get("ModelPackageArn") == arn]
    assert [item.get("UpdatedModelPackageFields") for item in mine] == [
        None,
        ["ApprovalDescription"],
        ["ModelApprovalStatus"],
    ]


@pytest.mark.parametrize("service", ["sagemaker", "application-autoscaling", "iam", "lambda", "events", "s3"])
def test_every_answer_has_an_id(client: Callable[[str], Any], service: str) -> None:
    good: dict[str, tuple[str, dict[str, Any]]] = {
        "sagemaker": ("list_models", {}),
        "application-autoscaling": ("describe_scalable_targets", {"ServiceNamespace": "sagemaker"}),
        "iam": ("list_roles", {}),
        "lambda": ("list_functions", {}),
        "events": ("list_rules", {}),
        "s3": ("list_buckets", {}),
    }
    bad: dict[str, tuple[str, dict[str, Any]]] = {
        "sagemaker": ("describe_model", {"ModelName": "absent"}),
        "application-autoscaling": (
            "deregister_scalable_target",
            {
                "ServiceNamespace": "sagemaker",
                "ResourceId": "endpoint/absent/variant/a",
                "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
            },
        ),
        "iam": ("get_role", {"RoleName": "absent"}),
        "lambda": ("get_function", {"FunctionName": "absent"}),
        "events": ("describe_rule", {"Name": "absent"}),
        "s3": ("get_object", {"Bucket": "absent-bucket-of-nobody", "Key": "k"}),
    }
    operation, request = good[service]
    ids = [getattr(client(service), operation)(**request)["ResponseMetadata"]["RequestId"] for _ in range(2)]
    operation, request = bad[service]
    with pytest.raises(ClientError) as caught:
        getattr(client(service), operation)(**request)
    ids.append(caught.value.response["ResponseMetadata"]["RequestId"])
    assert all(ids)
    assert len(set(ids)) == 3
