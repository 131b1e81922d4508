"""Roles with AWS's managed policies, and what policies decide: never "allowed" for what is not known."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import LocalCloud
from localcloud_front.conftest import ACCOUNT, TRUST, Clients

FULL = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/service-role/r"
with_moto = pytest.mark.skipif(
    importlib.util.find_spec("moto") is None, reason='needs pip install "fmops-localcloud[policies]"'
)


def policy(effect: str, action: str, resource: Any = "*", **more: Any) -> str:
    statement = {"Effect": effect, "Action": action, "Resource": resource, **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture
def iam(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client with a role in a path, of a cloud that has no copy of AWS's policies unless the test asks for it."""
    if request.node.get_closest_marker("skipif") is None:
        monkeypatch.setitem(sys.modules, "moto", None)
    with LocalCloud(tmp_path / "home") as cloud:
        clients = Clients(cloud)
        clients("iam").create_role(RoleName="r", Path="/service-role/", AssumeRolePolicyDocument=TRUST)
        yield clients("iam")
        clients.close()


def simulate(iam: Any, *actions: str, **more: Any) -> dict[str, str]:
    found = iam.simulate_principal_policy(PolicySourceArn=ROLE, ActionNames=list(actions), **more)
    return {one["EvalActionName"]: one["EvalDecision"] for one in found["EvaluationResults"]}


def refused(call: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        call(**request)
    found = error.value.response["Error"]
    return found["Code"], found["Message"]


def test_a_policy_known_by_name_is_there_and_what_it_allows_is_not_guessed(iam: Any) -> None:
    found = iam.get_policy(PolicyArn=FULL)["Policy"]
    assert (found["PolicyName"], found["Arn"]) == ("AmazonSageMakerFullAccess", FULL)
    iam.attach_role_policy(RoleName="r", PolicyArn=FULL)
    assert iam.list_attached_role_policies(RoleName="r")["AttachedPolicies"] == [
        {"PolicyName": "AmazonSageMakerFullAccess", "PolicyArn": FULL}
    ]
    for call, request in (
        (iam.simulate_principal_policy, {"PolicySourceArn": ROLE, "ActionNames": ["sagemaker:CreateModel"]}),
        (iam.get_policy_version, {"PolicyArn": FULL, "VersionId": found["DefaultVersionId"]}),
        (iam.get_account_authorization_details, {}),
    ):
        code, said = refused(call, **request)
        assert code == "NotImplemented"
        assert "does not know what AWS's managed policy AmazonSageMakerFullAccess allows" in said
        assert "fmops-localcloud[policies]" in said
    assert refused(iam.get_policy, PolicyArn=f"{FULL}s")[0] == "NoSuchEntity"


def test_beside_a_policy_that_is_not_known_a_denial_alone_is_sure(iam: Any) -> None:
    iam.attach_role_policy(RoleName="r", PolicyArn=FULL)
    iam.put_role_policy(RoleName="r", PolicyName="no", PolicyDocument=policy("Deny", "sagemaker:Delete*"))
    iam.put_role_policy(RoleName="r", PolicyName="yes", PolicyDocument=policy("Allow", "s3:GetObject"))
    assert simulate(iam, "sagemaker:DeleteModel") == {"sagemaker:DeleteModel": "explicitDeny"}
    request = {"PolicySourceArn": ROLE, "ActionNames": ["s3:GetObject"]}
    assert refused(iam.simulate_principal_policy, **request)[0] == "NotImplemented"
    iam.detach_role_policy(RoleName="r", PolicyArn=FULL)
    assert simulate(iam, "s3:GetObject", "s3:PutObject") == {"s3:GetObject": "allowed", "s3:PutObject": "implicitDeny"}


def test_policies_that_the_emulator_has_whole_decide(iam: Any) -> None:
    iam.attach_role_policy(RoleName="r", PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    assert simulate(iam, "s3:GetObject", "sqs:SendMessage") == {
        "s3:GetObject": "allowed",
        "sqs:SendMessage": "implicitDeny",
    }


@with_moto
def test_with_awss_own_documents_the_sdks_check_passes(iam: Any) -> None:
    found = iam.get_policy(PolicyArn=FULL)["Policy"]
    version = iam.get_policy_version(PolicyArn=FULL, VersionId=found["DefaultVersionId"])["PolicyVersion"]
    assert "sagemaker:*" in json.dumps(version["Document"])
    iam.attach_role_policy(RoleName="r", PolicyArn=FULL)
    assert simulate(iam, "sagemaker:CreateTrainingJob", "logs:PutLogEvents", "iam:CreateUser") == {
        "sagemaker:CreateTrainingJob": "allowed",
        "logs:PutLogEvents": "allowed",
        "iam:CreateUser": "implicitDeny",
    }
    assert iam.get_policy(PolicyArn="arn:aws:iam::aws:policy/service-role/AWSGlueServiceRole")["Policy"]["Path"]
    assert refused(iam.get_policy, PolicyArn="arn:aws:iam::aws:policy/AWSGlueServiceRole")[0] == "NoSuchEntity"
    assert (
        len([one for page in iam.get_paginator("list_policies").paginate(Scope="AWS") for one in page["Policies"]])
        > 1000
    )


def test_each_action_is_tried_on_each_resource(iam: Any) -> None:
    iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=policy("Allow", "s3:*", "arn:aws:s3:::mine/*"))
    resources = ["arn:aws:s3:::mine/k", "arn:aws:s3:::theirs/k"]
    found = iam.simulate_principal_policy(PolicySourceArn=ROLE, ActionNames=["s3:GetObject"], ResourceArns=resources)
    results = {one["EvalResourceName"]: one["EvalDecision"] for one in found["EvaluationResults"]}
    assert results == dict(zip(resources, ["allowed", "implicitDeny"], strict=True))
    first = iam.simulate_principal_policy(
        PolicySourceArn=ROLE, ActionNames=["s3:GetObject", "s3:PutObject"], ResourceArns=resources, MaxItems=3
    )
    rest = iam.simulate_principal_policy(
        PolicySourceArn=ROLE,
        ActionNames=["s3:GetObject", "s3:PutObject"],
        ResourceArns=resources,
        Marker=first["Marker"],
    )
    pairs = [
        (one["EvalActionName"], one["EvalResourceName"]) for page in (first, rest) for one in page["EvaluationResults"]
    ]
    assert (len(pairs), len(set(pairs)), rest["IsTruncated"]) == (4, 4, False)


def test_boundaries_context_and_given_policies_count(iam: Any) -> None:
    boundary = iam.create_policy(PolicyName="b", PolicyDocument=policy("Allow", "s3:Get*"))["Policy"]["Arn"]
    iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=policy("Allow", "s3:*"))
    iam.put_role_permissions_boundary(RoleName="r", PermissionsBoundary=boundary)
    assert simulate(iam, "s3:GetObject", "s3:PutObject") == {"s3:GetObject": "allowed", "s3:PutObject": "implicitDeny"}
    wider = [policy("Allow", "s3:*")]
    assert simulate(iam, "s3:PutObject", PermissionsBoundaryPolicyInputList=wider) == {"s3:PutObject": "allowed"}
    iam.delete_role_permissions_boundary(RoleName="r")
    more = [
        policy("Allow", "iam:PassRole", Condition={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}})
    ]
    passed = {"ContextKeyName": "iam:PassedToService", "ContextKeyType": "string"}
    entry = [{**passed, "ContextKeyValues": ["sagemaker.amazonaws.com"]}]
    assert simulate(iam, "iam:PassRole", PolicyInputList=more) == {"iam:PassRole": "implicitDeny"}
    assert simulate(iam, "iam:PassRole", PolicyInputList=more, ContextEntries=entry) == {"iam:PassRole": "allowed"}
    found = iam.simulate_custom_policy(PolicyInputList=more, ActionNames=["iam:PassRole"], ContextEntries=entry)
    assert found["EvaluationResults"][0]["EvalDecision"] == "allowed"


def test_what_can_not_be_simulated_is_refused(iam: Any) -> None:
    absent = f"arn:aws:iam::{ACCOUNT}:role/absent"
    actions = {"ActionNames": ["s3:GetObject"]}
    assert refused(iam.simulate_principal_policy, PolicySourceArn=absent, **actions)[0] == "NoSuchEntity"
    request = {"PolicySourceArn": ROLE, "ActionNames": ["GetObject"]}
    assert refused(iam.simulate_principal_policy, **request)[0] == "InvalidInput"
    for more in ({"ResourcePolicy": "{}"}, {"CallerArn": ROLE}, {"ResourceOwner": f"arn:aws:iam::{ACCOUNT}:root"}):
        code, said = refused(iam.simulate_principal_policy, PolicySourceArn=ROLE, **actions, **more)
        assert (code, next(iter(more)) in said) == ("NotImplemented", True)
    assert refused(iam.simulate_custom_policy, PolicyInputList=["{}"], **actions)[0] == "InvalidInput"
