"""Stacks with what the project's templates use: deployed, updated, deleted."""

from __future__ import annotations

import io
import json
import time
import zipfile
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud_front.conftest import ACCOUNT, REGION, Clients


def ended(aws: Clients, stack: str) -> dict[str, Any]:
    """The stack once it is at rest; by its id, so that deleted ones are found."""
    for _ in range(300):
        found: dict[str, Any] = aws("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        if not found["StackStatus"].endswith("_IN_PROGRESS"):
            return found
        time.sleep(0.05)
    raise AssertionError("the stack did not come to rest")


def deploy(aws: Clients, name: str, resources: dict[str, Any], **outputs: Any) -> dict[str, Any]:
    body = json.dumps({"Resources": resources, "Outputs": {key: {"Value": value} for key, value in outputs.items()}})
    cloudformation = aws("cloudformation")
    arguments = {"StackName": name, "TemplateBody": body, "Capabilities": ["CAPABILITY_NAMED_IAM"]}
    try:
        stack = cloudformation.create_stack(**arguments)["StackId"]
    except cloudformation.exceptions.AlreadyExistsException:
        stack = cloudformation.update_stack(**arguments)["StackId"]
    return ended(aws, stack)


def reasons(aws: Clients, stack: dict[str, Any]) -> str:
    events = aws("cloudformation").describe_stack_events(StackName=stack["StackId"])["StackEvents"]
    return " | ".join(event.get("ResourceStatusReason", "") for event in events if "FAILED" in event["ResourceStatus"])


def bucket(name: str, **properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": name, **properties}}


def test_the_projects_ground_deploys_updates_and_deletes(aws: Clients) -> None:
    s3 = aws("s3")
    s3.create_bucket(Bucket="cfn-code", CreateBucketConfiguration={"LocationConstraint": REGION})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("app.py", "def handler(event, context):\n    return {'hello': event.get('detail')}")
    s3.put_object(Bucket="cfn-code", Key="f.zip", Body=archive.getvalue())
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    allow = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    limit = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    boundary = aws("iam").create_policy(PolicyName="limit", PolicyDocument=limit)["Policy"]["Arn"]
    resources: dict[str, Any] = {
        "Key": {
            "Type": "AWS::KMS::Key",
            "Properties": {
                "KeyPolicy": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
                            "Action": "kms:*",
                            "Resource": "*",
                        }
                    ],
                }
            },
        },
        "Alias": {
            "Type": "AWS::KMS::Alias",
            "Properties": {"AliasName": "alias/ground", "TargetKeyId": {"Ref": "Key"}},
        },
        "Bucket": bucket(
            "cfn-data",
            BucketEncryption={
                "ServerSideEncryptionConfiguration": [
                    {
                        "BucketKeyEnabled": True,
                        "ServerSideEncryptionByDefault": {
                            "SSEAlgorithm": "aws:kms",
                            "KMSMasterKeyID": {"Fn::GetAtt": ["Key", "Arn"]},
                        },
                    }
                ]
            },
            VersioningConfiguration={"Status": "Enabled"},
            LifecycleConfiguration={
                "Rules": [
                    {
                        "Id": "tmp",
                        "Status": "Enabled",
                        "Prefix": "tmp/",
                        "ExpirationInDays": 3,
                        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
                        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
                    }
                ]
            },
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "BlockPublicPolicy": True,
                "IgnorePublicAcls": True,
                "RestrictPublicBuckets": True,
            },
            OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
            Tags=[{"Key": "team", "Value": "ml"}],
        ),
        "Policy": {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {
                "Bucket": {"Ref": "Bucket"},
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Deny",
                            "Principal": "*",
                            "Action": "s3:*",
                            "Resource": "arn:aws:s3:::cfn-data/*",
                            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                        }
                    ],
                },
            },
        },
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "RoleName": "ground",
                "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
                "PermissionsBoundary": boundary,
                "Policies": [{"PolicyName": "p", "PolicyDocument": {"Version": "2012-10-17", "Statement": [allow]}}],
            },
        },
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "FunctionName": "ground",
                "Runtime": "python3.12",
                "Handler": "app.handler",
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "Code": {"S3Bucket": "cfn-code", "S3Key": "f.zip"},
            },
        },
        "Rule": {
            "Type": "AWS::Events::Rule",
            "Properties": {
                "EventPattern": {"source": ["aws.sagemaker"]},
                "Targets": [{"Id": "t", "Arn": {"Fn::GetAtt": ["Function", "Arn"]}}],
            },
        },
        "Permission": {
            "Type": "AWS::Lambda::Permission",
            "Properties": {
                "FunctionName": {"Ref": "Function"},
                "Action": "lambda:InvokeFunction",
                "Principal": "events.amazonaws.com",
                "SourceArn": {"Fn::GetAtt": ["Rule", "Arn"]},
            },
        },
        "Group": {
            "Type": "AWS::SageMaker::ModelPackageGroup",
            "Properties": {
                "ModelPackageGroupName": "ground",
                "ModelPackageGroupDescription": "d",
                "Tags": [{"Key": "k", "Value": "v"}],
            },
        },
    }
    stack = deploy(aws, "ground", resources, Group={"Ref": "Group"})
    assert (stack["StackStatus"], reasons(aws, stack)) == ("CREATE_COMPLETE", "")
    group = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package-group/ground"
    assert {item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]} == {"Group": group}
    key = aws("kms").describe_key(KeyId="alias/ground")["KeyMetadata"]["Arn"]
    assert s3.put_object(Bucket="cfn-data", Key="k", Body=b"")["SSEKMSKeyId"] == key
    lifecycle = s3.get_bucket_lifecycle_configuration(Bucket="cfn-data")["Rules"][0]
    assert (lifecycle["Expiration"], lifecycle["Filter"]) == ({"Days": 3}, {"Prefix": "tmp/"})
    assert lifecycle["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert s3.get_bucket_tagging(Bucket="cfn-data")["TagSet"] == [{"Key": "team", "Value": "ml"}]
    assert s3.get_bucket_versioning(Bucket="cfn-data")["Status"] == "Enabled"
    assert s3.get_public_access_block(Bucket="cfn-data")["PublicAccessBlockConfiguration"]["BlockPublicAcls"] is True
    assert "SecureTransport" in s3.get_bucket_policy(Bucket="cfn-data")["Policy"]
    role = aws("iam").get_role(RoleName="ground")["Role"]
    assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary
    answer = aws("lambda").invoke(FunctionName="ground", Payload=b'{"detail": 1}')
    assert json.load(answer["Payload"]) == {"hello": 1}
    answer["Payload"].close()
    assert aws("sagemaker").list_tags(ResourceArn=group)["Tags"] == [{"Key": "k", "Value": "v"}]

    properties = resources["Bucket"]["Properties"]
    properties["VersioningConfiguration"]["Status"] = "Suspended"
    properties["LifecycleConfiguration"]["Rules"][0]["ExpirationInDays"] = 9
    del properties["Tags"]
    resources["Group"]["Properties"]["Tags"] = [{"Key": "l", "Value": "w"}]
    stack = deploy(aws, "ground", resources)
    assert (stack["StackStatus"], reasons(aws, stack)) == ("UPDATE_COMPLETE", "")
    assert s3.get_bucket_versioning(Bucket="cfn-data")["Status"] == "Suspended"
    assert s3.get_bucket_lifecycle_configuration(Bucket="cfn-data")["Rules"][0]["Expiration"] == {"Days": 9}
    with pytest.raises(ClientError):
        s3.get_bucket_tagging(Bucket="cfn-data")
    assert aws("sagemaker").list_tags(ResourceArn=group)["Tags"] == [{"Key": "l", "Value": "w"}]

    aws("cloudformation").delete_stack(StackName="ground")
    stack = ended(aws, stack["StackId"])
    assert stack["StackStatus"] == "DELETE_FAILED"
    assert "not empty" in reasons(aws, stack)
    for version in s3.list_object_versions(Bucket="cfn-data")["Versions"]:
        s3.delete_object(Bucket="cfn-data", Key=version["Key"], VersionId=version["VersionId"])
    aws("cloudformation").delete_stack(StackName="ground")
    assert ended(aws, stack["StackId"])["StackStatus"] == "DELETE_COMPLETE"
    with pytest.raises(ClientError):
        s3.head_bucket(Bucket="cfn-data")
    with pytest.raises(ClientError):
        aws("sagemaker").describe_model_package_group(ModelPackageGroupName="ground")


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"AnalyticsConfigurations": []}, "localcloud does not implement AnalyticsConfigurations"),
        ({"AccessControl": "PublicRead"}, "AccessControl other than Private"),
        ({"VersioningConfiguration": {"Status": "On"}}, "'On' is not Enabled or Suspended"),
        (
            {"LifecycleConfiguration": {"Rules": [{"Status": "Enabled", "ExpirationInDays": 0}]}},
            "LifecycleConfiguration: ",
        ),
    ],
)
def test_a_bucket_property_is_applied_or_refused(aws: Clients, properties: dict[str, Any], reason: str) -> None:
    name = f"refused-{next(iter(properties)).lower()}"
    stack = deploy(aws, name, {"B": bucket(name, **properties)})
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert reason in reasons(aws, stack)


def test_a_model_package_group_that_exists_rolls_the_stack_back(aws: Clients) -> None:
    aws("sagemaker").create_model_package_group(ModelPackageGroupName="taken")
    group = {"Type": "AWS::SageMaker::ModelPackageGroup", "Properties": {"ModelPackageGroupName": "taken"}}
    stack = deploy(aws, "taken", {"Group": group})
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "taken" in reasons(aws, stack)
    aws("sagemaker").describe_model_package_group(ModelPackageGroupName="taken")


def test_an_unknown_type_is_refused_by_name(aws: Clients) -> None:
    with pytest.raises(ClientError, match="AWS::SageMaker::Coffee"):
        deploy(aws, "unknown", {"X": {"Type": "AWS::SageMaker::Coffee"}})


@pytest.mark.parametrize("policy", ["Retain", "Delete", None])
def test_what_an_update_replaces_stays_or_goes_as_the_template_says(aws: Clients, policy: str | None) -> None:
    kept: dict[str, Any] = {} if policy is None else {"UpdateReplacePolicy": policy}
    stem = f"replaced-{policy or 'default'}".lower()
    statement = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trust = {"Version": "2012-10-17", "Statement": [statement]}

    def resources(name: str) -> dict[str, Any]:
        group = {"ModelPackageGroupName": name}
        return {
            "Bucket": {**bucket(name), **kept},
            "Group": {"Type": "AWS::SageMaker::ModelPackageGroup", "Properties": group, **kept},
            "Log": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": name}, **kept},
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {"RoleName": name, "AssumeRolePolicyDocument": trust},
                **kept,
            },
        }

    def there() -> list[tuple[str, str]]:
        groups = aws("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]
        logs = aws("logs").describe_log_groups(logGroupNamePrefix=stem)["logGroups"]
        found = [("Bucket", item["Name"]) for item in aws("s3").list_buckets()["Buckets"]]
        found += [("Group", item["ModelPackageGroupName"]) for item in groups]
        found += [("Log", item["logGroupName"]) for item in logs]
        found += [("Role", item["RoleName"]) for item in aws("iam").list_roles()["Roles"]]
        return sorted((kind, name.removeprefix(f"{stem}-")) for kind, name in found if name.startswith(stem))

    kinds = ("Bucket", "Group", "Log", "Role")
    assert deploy(aws, stem, resources(f"{stem}-old"))["StackStatus"] == "CREATE_COMPLETE"
    assert there() == [(kind, "old") for kind in kinds]
    assert deploy(aws, stem, resources(f"{stem}-new"))["StackStatus"] == "UPDATE_COMPLETE"
    names = ("new", "old") if policy == "Retain" else ("new",)
    assert there() == [(kind, name) for kind in kinds for name in names]


def test_a_replaced_bucket_that_is_not_empty_stays_and_is_named(aws: Clients) -> None:
    deploy(aws, "full", {"Bucket": bucket("full-old")})
    aws("s3").put_object(Bucket="full-old", Key="k", Body=b"x")
    stack = deploy(aws, "full", {"Bucket": bucket("full-new")})
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    assert "full-old" in reasons(aws, stack)
    assert aws("s3").get_object(Bucket="full-old", Key="k")["Body"].read() == b"x"
