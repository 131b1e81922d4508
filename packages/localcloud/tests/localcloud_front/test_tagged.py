"""The Resource Groups Tagging API and SageMaker's resources; locks on objects, which are refused."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud_front.conftest import ACCOUNT, REGION, Clients, Inside, free_port


def mapped(api: Any, **request: Any) -> dict[str, dict[str, str]]:
    pages = api.get_paginator("get_resources").paginate(**request, PaginationConfig={"PageSize": 1})
    found = [item for page in pages for item in page["ResourceTagMappingList"]]
    return {item["ResourceARN"]: {tag["Key"]: tag["Value"] for tag in item["Tags"]} for item in found}


def test_sagemakers_resources_are_found_and_tagged_as_all_others(inside: Inside) -> None:
    aws = inside[1]
    sagemaker, api = aws("sagemaker"), aws("resourcegroupstaggingapi")
    tags = [{"Key": "team", "Value": "a"}, {"Key": "stage", "Value": "dev"}]
    group = sagemaker.create_model_package_group(ModelPackageGroupName="Tagged", Tags=tags)["ModelPackageGroupArn"]
    plain = sagemaker.create_model_package_group(ModelPackageGroupName="plain")["ModelPackageGroupArn"]
    aws("sqs").create_queue(QueueName="q", tags={"team": "a"})
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:q"
    assert mapped(api) == {group: {"team": "a", "stage": "dev"}, queue: {"team": "a"}}
    assert list(mapped(api, ResourceTypeFilters=["sagemaker:model-package-group"])) == [group]
    assert not mapped(api, ResourceTypeFilters=["sagemaker:endpoint"])
    assert list(mapped(api, TagFilters=[{"Key": "stage", "Values": ["dev"]}])) == [group]
    assert api.get_tag_keys()["TagKeys"] == ["stage", "team"]
    assert api.get_tag_values(Key="stage")["TagValues"] == ["dev"]
    absent = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/absent"
    answer = api.tag_resources(ResourceARNList=[plain, absent, queue], Tags={"team": "b"})
    assert {arn: item["ErrorCode"] for arn, item in answer["FailedResourcesMap"].items()} == {
        absent: "InvalidParameterException"
    }
    assert sagemaker.list_tags(ResourceArn=plain)["Tags"] == [{"Key": "team", "Value": "b"}]
    assert set(mapped(api, TagFilters=[{"Key": "team", "Values": ["b"]}])) == {plain, queue}
    assert api.untag_resources(ResourceARNList=[group], TagKeys=["team", "stage"])["FailedResourcesMap"] == {}
    assert sagemaker.list_tags(ResourceArn=group)["Tags"] == []
    assert mapped(api, ResourceTypeFilters=["sagemaker"])[group] == {}, "what had tags is listed without them"
    sagemaker.delete_model_package_group(ModelPackageGroupName="Tagged")
    assert list(mapped(api, ResourceTypeFilters=["sagemaker"])) == [plain]


def test_taking_tags_from_what_never_had_some_does_not_list_it(inside: Inside) -> None:
    sagemaker, api = inside[1]("sagemaker"), inside[1]("resourcegroupstaggingapi")
    arn = sagemaker.create_model_package_group(ModelPackageGroupName="plain")["ModelPackageGroupArn"]
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["none"])
    assert not mapped(api)


def test_resources_of_which_no_tags_are_known_are_refused_by_name(aws: Clients) -> None:
    with pytest.raises(ClientError) as refused:
        aws("resourcegroupstaggingapi").get_resources(ResourceTypeFilters=["sagemaker", "logs:log-group"])
    assert refused.value.response["Error"]["Code"] == "NotImplemented"
    assert "tagging:GetResources with resources of logs" in refused.value.response["Error"]["Message"]


UNTIL = datetime.datetime(2090, 1, 1, tzinfo=datetime.UTC)
LOCKS: list[tuple[str, dict[str, Any]]] = [
    ("put_object_lock_configuration", {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}}),
    ("get_object_lock_configuration", {}),
    ("put_object_retention", {"Key": "k", "Retention": {"Mode": "GOVERNANCE", "RetainUntilDate": UNTIL}}),
    ("get_object_retention", {"Key": "k"}),
    ("put_object_legal_hold", {"Key": "k", "LegalHold": {"Status": "ON"}}),
    ("get_object_legal_hold", {"Key": "k"}),
    ("put_object", {"Key": "k", "ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": UNTIL}),
    ("put_object", {"Key": "k", "ObjectLockLegalHoldStatus": "ON"}),
    ("create_multipart_upload", {"Key": "k", "ObjectLockLegalHoldStatus": "ON"}),
    ("copy_object", {"Key": "k", "CopySource": "b/k", "ObjectLockLegalHoldStatus": "ON"}),
]


@pytest.mark.parametrize(("operation", "members"), LOCKS, ids=[f"{name}-{len(m)}" for name, m in LOCKS])
def test_locks_on_objects_are_refused(aws: Clients, bucket: str, operation: str, members: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as refused:
        getattr(aws("s3"), operation)(Bucket=bucket, **members)
    answer = refused.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == ("NotImplemented", 501)
    assert any(word in answer["Error"]["Message"] for word in ("object-lock", "retention", "legal-hold"))
    assert "Contents" not in aws("s3").list_objects_v2(Bucket=bucket)


def test_a_bucket_for_locks_is_refused(aws: Clients) -> None:
    name = f"lockable-{free_port()}"
    settings = {"Bucket": name, "CreateBucketConfiguration": {"LocationConstraint": REGION}}
    with pytest.raises(ClientError) as refused:
        aws("s3").create_bucket(**settings, ObjectLockEnabledForBucket=True)
    assert refused.value.response["Error"]["Code"] == "NotImplemented"
    assert "x-amz-bucket-object-lock-enabled" in refused.value.response["Error"]["Message"]
    aws("s3").create_bucket(**settings, ObjectLockEnabledForBucket=False)
