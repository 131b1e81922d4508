"""A template's roles and policies keep to the rules of IAM: its stack fails where AWS's would."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localcloud_front.conftest import ACCOUNT, REGION, TRUST, Clients
from localcloud_front.test_cloudformation import deploy, ended, reasons

TRUSTED: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
ALLOWED: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}],
}
BROKEN = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject"}]}
LONG = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::" + "b" * 10240}],
}


def role(**properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": TRUSTED, **properties}}


WRONG = {
    "no principal": (
        role(AssumeRolePolicyDocument={**TRUSTED, "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]}),
        "Missing required field Principal",
    ),
    "no resource": (
        role(Policies=[{"PolicyName": "p", "PolicyDocument": BROKEN}]),
        "Policy statement must contain resources.",
    ),
    "unknown managed policy": (
        role(ManagedPolicyArns=["arn:aws:iam::aws:policy/AmazonSageMakerFullAcess"]),
        "does not exist or is not attachable",
    ),
    "unknown boundary": (role(PermissionsBoundary=f"arn:aws:iam::{ACCOUNT}:policy/none"), "Scope ARN"),
    "long policies": (role(Policies=[{"PolicyName": "p", "PolicyDocument": LONG}]), "Maximum policy size of 10240"),
    "odd name": (role(RoleName="a/b"), "at 'roleName' failed to satisfy constraint"),
    "taken name": (role(RoleName="taken"), "Role with name taken already exists."),
    "long session": (role(MaxSessionDuration="99999"), "at 'maxSessionDuration'"),
    "managed policy": (
        {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": BROKEN}},
        "Policy statement must contain resources.",
    ),
    "long managed policy": (
        {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": LONG}},
        "Cannot exceed quota for PolicySize: 6144",
    ),
    "inline policy": (
        {"Type": "AWS::IAM::Policy", "Properties": {"PolicyName": "p", "Roles": ["taken"], "PolicyDocument": BROKEN}},
        "Policy statement must contain resources.",
    ),
    "user": (
        {"Type": "AWS::IAM::User", "Properties": {"Policies": [{"PolicyName": "p", "PolicyDocument": BROKEN}]}},
        "Policy statement must contain resources.",
    ),
}


@pytest.mark.parametrize(("resource", "said"), WRONG.values(), ids=WRONG)
def test_a_stack_fails_where_iam_refuses(aws: Clients, resource: dict[str, Any], said: str) -> None:
    iam = aws("iam")
    if "taken" not in [one["RoleName"] for one in iam.list_roles()["Roles"]]:
        iam.create_role(RoleName="taken", AssumeRolePolicyDocument=TRUST)
    stack = deploy(aws, f"wrong-{abs(hash(said + str(resource)))}", {"Wrong": resource})
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert said in reasons(aws, stack)
    assert iam.get_role(RoleName="taken")


def test_a_stack_with_awss_managed_policies_and_its_own_deploys_and_updates(aws: Clients) -> None:
    resources = {
        "Limit": {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": ALLOWED}},
        "Role": role(
            RoleName="of-a-stack",
            Path="/service-role/",
            MaxSessionDuration="7200",
            PermissionsBoundary={"Ref": "Limit"},
            ManagedPolicyArns=["arn:aws:iam::aws:policy/AmazonSageMakerFullAccess", {"Ref": "Limit"}],
            Policies=[{"PolicyName": "p", "PolicyDocument": ALLOWED}],
            Tags=[{"Key": "k", "Value": "v"}],
        ),
        "Second": role(
            AssumeRolePolicyDocument={
                **TRUSTED,
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": {"Fn::GetAtt": ["Role", "Arn"]}},
                        "Action": "sts:AssumeRole",
                    }
                ],
            }
        ),
    }
    stack = deploy(aws, "identities", resources)
    assert (stack["StackStatus"], reasons(aws, stack)) == ("CREATE_COMPLETE", "")
    resources["Role"]["Properties"]["Description"] = "R&D <changed>"
    stack = deploy(aws, "identities", resources)
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    found = aws("iam").get_role(RoleName="of-a-stack")["Role"]
    assert (found["Description"], found["Path"], found["MaxSessionDuration"]) == (
        "R&D <changed>",
        "/service-role/",
        7200,
    )
    resources["Role"]["Properties"]["Policies"] = [{"PolicyName": "p", "PolicyDocument": BROKEN}]
    stack = deploy(aws, "identities", resources)
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "Policy statement must contain resources." in reasons(aws, stack)


def test_conditions_see_what_functions_stand_for(aws: Clients) -> None:
    joined: dict[str, Any] = {"Fn::Join": ["", {"Ref": "Elsewhere"}]}
    here = {"Fn::Equals": [{"Ref": "AWS::Region"}, REGION]}
    mine = {"Fn::Equals": [{"Fn::Sub": "${AWS::AccountId}-x"}, f"{ACCOUNT}-x"]}
    template = {
        "Parameters": {"Elsewhere": {"Type": "CommaDelimitedList", "Default": ""}},
        "Conditions": {
            "Reads": {"Fn::Not": [{"Fn::Equals": [joined, ""]}]},
            "Mine": {"Fn::And": [here, mine]},
        },
        "Resources": {
            "Policy": {
                "Type": "AWS::IAM::ManagedPolicy",
                "Properties": {
                    "PolicyDocument": {
                        "Version": "2012-10-17",
                        "Statement": [
                            {"Sid": "Always", "Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"},
                            {"Fn::If": ["Reads", elsewhere("Reads"), {"Ref": "AWS::NoValue"}]},
                            {"Fn::If": ["Mine", {**elsewhere("Mine"), "Resource": "*"}, {"Ref": "AWS::NoValue"}]},
                        ],
                    }
                },
            }
        },
    }
    for values, expected in (([], ["Always", "Mine"]), (["arn:aws:s3:::b/*"], ["Always", "Reads", "Mine"])):
        name = f"conditions-{len(values)}"
        parameters = [{"ParameterKey": "Elsewhere", "ParameterValue": ",".join(values)}]
        request = {"StackName": name, "TemplateBody": json.dumps(template), "Parameters": parameters}
        stack = ended(aws, aws("cloudformation").create_stack(**request)["StackId"])
        assert (stack["StackStatus"], reasons(aws, stack)) == ("CREATE_COMPLETE", "")
        resource = aws("cloudformation").describe_stack_resource(StackName=name, LogicalResourceId="Policy")
        arn = resource["StackResourceDetail"]["PhysicalResourceId"]
        document = aws("iam").get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"]
        assert [statement["Sid"] for statement in document["Statement"]] == expected


def elsewhere(sid: str) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": "s3:GetObject", "Resource": {"Ref": "Elsewhere"}}
