"""IAM takes what AWS takes: policy documents, names, quotas, and what has to go before something can be deleted."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import control
from localcloud_front.conftest import Clients, signed

LEAST: dict[str, Any] = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
TRUST: dict[str, Any] = {
    "Effect": "Allow",
    "Principal": {"Service": "sagemaker.amazonaws.com"},
    "Action": "sts:AssumeRole",
}
ACCOUNT = "333344445555"
SYNTAX = "Syntax errors in policy."


def new() -> str:
    return uuid.uuid4().hex[:12]


def policy(*statements: Any, **more: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements), **more})


@pytest.fixture
def aws(running: control.Info) -> Iterator[Clients]:
    """Of an account of its own."""
    clients = Clients(running, account=ACCOUNT)
    yield clients
    clients.close()


@pytest.fixture
def iam(aws: Clients) -> Any:
    return aws("iam")


@pytest.fixture
def role(iam: Any) -> str:
    name = f"r{new()}"
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(TRUST))
    return name


@pytest.fixture
def user(iam: Any) -> str:
    name = f"u{new()}"
    iam.create_user(UserName=name)
    return name


@pytest.fixture
def group(iam: Any) -> str:
    name = f"g{new()}"
    iam.create_group(GroupName=name)
    return name


def refused(call: Callable[..., Any], **request: Any) -> tuple[str, str]:
    """Code and message of the refusal."""
    with pytest.raises(ClientError) as error:
        call(**request)
    found = error.value.response["Error"]
    return found["Code"], found["Message"]


PERMISSIONS = {
    "no json": ("not json", SYNTAX),
    "a list": ("[]", SYNTAX),
    "no version": (json.dumps({"Statement": [LEAST]}), "Policy document must be version 2012-10-17 or greater."),
    "old version": (policy(LEAST, Version="2008-10-17"), "Policy document must be version 2012-10-17 or greater."),
    "unknown version": (policy(LEAST, Version="2013-10-17"), SYNTAX),
    "no statement": (json.dumps({"Version": "2012-10-17"}), SYNTAX),
    "empty statement": (policy(), SYNTAX),
    "unknown element": (policy({**LEAST, "Extra": 1}), SYNTAX),
    "unknown top element": (policy(LEAST, Extra=1), SYNTAX),
    "no effect": (policy({"Action": "s3:GetObject", "Resource": "*"}), SYNTAX),
    "wrong effect": (policy({**LEAST, "Effect": "allow"}), SYNTAX),
    "no action": (policy({"Effect": "Allow", "Resource": "*"}), "Policy statement must contain actions."),
    "two kinds of action": (policy({**LEAST, "NotAction": "s3:PutObject"}), SYNTAX),
    "no vendor": (
        policy({**LEAST, "Action": "GetObject"}),
        "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
    ),
    "two colons": (policy({**LEAST, "Action": "s3:Get:Object"}), "Actions/Condition can contain only one colon."),
    "odd vendor": (policy({**LEAST, "Action": "a a:GetObject"}), "Vendor a a is not valid"),
    "no resource": (policy({"Effect": "Allow", "Action": "s3:*"}), "Policy statement must contain resources."),
    "no arn": (policy({**LEAST, "Resource": "bucket"}), 'Resource bucket must be in ARN format or "*".'),
    "half an arn": (policy({**LEAST, "Resource": "arn:aws:s3::bucket"}), "The policy failed legacy parsing"),
    "odd partition": (
        policy({**LEAST, "Resource": "arn:error:s3:::bucket"}),
        'Partition "error" is not valid for resource "arn:error:s3:::bucket".',
    ),
    "iam with region": (
        policy({**LEAST, "Resource": "arn:aws:iam:us-east-1:111111111111:role/r"}),
        "IAM resource arn:aws:iam:us-east-1:111111111111:role/r cannot contain region information.",
    ),
    "unknown operator": (policy({**LEAST, "Condition": {"StringIs": {"aws:SourceIp": "x"}}}), SYNTAX),
    "condition without vendor": (
        policy({**LEAST, "Condition": {"StringEquals": {"SourceIp": "x"}}}),
        "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
    ),
    "principal": (policy({**LEAST, "Principal": "*"}), "Policy document should not specify a principal."),
    "one sid twice": (
        policy({**LEAST, "Sid": "a"}, {**LEAST, "Sid": "a"}),
        "Statement IDs (SID) in a single policy must be unique.",
    ),
}


@pytest.mark.parametrize(("document", "said"), PERMISSIONS.values(), ids=PERMISSIONS)
def test_a_policy_that_is_none_is_refused(iam: Any, role: str, user: str, group: str, document: str, said: str) -> None:
    expected = ("MalformedPolicyDocument", said)
    assert refused(iam.create_policy, PolicyName=role, PolicyDocument=document) == expected
    assert refused(iam.put_role_policy, RoleName=role, PolicyName="p", PolicyDocument=document) == expected
    assert refused(iam.put_user_policy, UserName=user, PolicyName="p", PolicyDocument=document) == expected
    assert refused(iam.put_group_policy, GroupName=group, PolicyName="p", PolicyDocument=document) == expected
    made = iam.create_policy(PolicyName=f"made{role}", PolicyDocument=policy(LEAST))["Policy"]["Arn"]
    assert refused(iam.create_policy_version, PolicyArn=made, PolicyDocument=document) == expected
    assert iam.list_role_policies(RoleName=role)["PolicyNames"] == []
    assert len(iam.list_policy_versions(PolicyArn=made)["Versions"]) == 1


TRUSTS = {
    "no json": ("not json", SYNTAX),
    "no principal": (policy({"Effect": "Allow", "Action": "sts:AssumeRole"}), "Missing required field Principal"),
    "resource": (policy({**TRUST, "Resource": "*"}), "Has prohibited field Resource"),
    "not principal": (
        policy({"Effect": "Allow", "NotPrincipal": {"AWS": "*"}, "Action": "sts:AssumeRole"}),
        "Allow with NotPrincipal is not allowed.",
    ),
    "other action": (
        policy({**TRUST, "Action": "s3:GetObject"}),
        "AssumeRole policy may only specify STS AssumeRole actions.",
    ),
    "no effect": (policy({"Principal": "*", "Action": "sts:AssumeRole"}), SYNTAX),
    "no action": (policy({"Effect": "Allow", "Principal": "*"}), "Policy statement must contain actions."),
    "unknown kind": (policy({**TRUST, "Principal": {"Services": "x"}}), SYNTAX),
    "no service": (
        policy({**TRUST, "Principal": {"Service": "sagemaker"}}),
        'Invalid principal in policy: "SERVICE":"sagemaker"',
    ),
    "pattern": (
        policy({**TRUST, "Principal": {"AWS": "arn:aws:iam::*:root"}}),
        'Invalid principal in policy: "AWS":"arn:aws:iam::*:root"',
    ),
    "absent role": (
        policy({**TRUST, "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:role/absent"}}),
        f'Invalid principal in policy: "AWS":"arn:aws:iam::{ACCOUNT}:role/absent"',
    ),
}


@pytest.mark.parametrize(("document", "said"), TRUSTS.values(), ids=TRUSTS)
def test_a_trust_policy_that_is_none_is_refused(iam: Any, role: str, document: str, said: str) -> None:
    expected = ("MalformedPolicyDocument", said)
    assert refused(iam.create_role, RoleName=f"new{role}", AssumeRolePolicyDocument=document) == expected
    assert refused(iam.update_assume_role_policy, RoleName=role, PolicyDocument=document) == expected
    assert iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"] == json.loads(policy(TRUST))


def test_what_is_one_is_taken(iam: Any, role: str, user: str) -> None:
    principals = {"AWS": [f"arn:aws:iam::{ACCOUNT}:user/{user}", "111122223333", "arn:aws:iam::111122223333:role/x"]}
    odd = {
        "Effect": "Deny",
        "NotAction": ["iam:*", "sts:Get*"],
        "NotResource": [f"arn:aws:iam::{ACCOUNT}:role/a*", "arn:aws:s3:::b/*", "arn:aws:sagemaker:*:*:pipeline/p"],
        "Condition": {"ForAnyValue:StringLikeIfExists": {"aws:TagKeys": ["a"]}, "Bool": {"aws:SecureTransport": True}},
    }
    iam.update_assume_role_policy(RoleName=role, PolicyDocument=policy(TRUST, {**TRUST, "Principal": principals}))
    iam.update_assume_role_policy(RoleName=role, PolicyDocument=policy(TRUST, Version="2008-10-17"))
    iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=policy(LEAST, odd, Id="an id"))


def test_names_are_what_the_model_says_and_taken_once(iam: Any, role: str, user: str, group: str) -> None:
    code, said = refused(iam.create_role, RoleName="a/b", AssumeRolePolicyDocument=policy(TRUST))
    assert (code, "at 'roleName'" in said, r"pattern: [\w+=,.@-]+" in said) == ("ValidationError", True, True)
    code, said = refused(iam.create_user, UserName="u", Path="team")
    assert (code, "at 'path'" in said) == ("ValidationError", True)
    code, said = refused(
        iam.create_role, RoleName="long", AssumeRolePolicyDocument=policy(TRUST), MaxSessionDuration=43201
    )
    assert (code, "value less than or equal to 43200" in said) == ("ValidationError", True)
    trust = policy(TRUST)
    assert refused(iam.create_role, RoleName=role.upper(), AssumeRolePolicyDocument=trust)[0] == "EntityAlreadyExists"
    assert refused(iam.create_user, UserName=user.upper())[0] == "EntityAlreadyExists"
    assert refused(iam.create_group, GroupName=group.upper())[0] == "EntityAlreadyExists"
    iam.create_policy(PolicyName=role, PolicyDocument=policy(LEAST))
    again = refused(iam.create_policy, PolicyName=role.upper(), Path="/p/", PolicyDocument=policy(LEAST))
    assert again[0] == "EntityAlreadyExists"


def test_what_is_not_there_is_named(iam: Any, role: str, user: str, group: str) -> None:
    absent = f"arn:aws:iam::{ACCOUNT}:policy/absent"
    said = f"Policy {absent} does not exist or is not attachable."
    assert refused(iam.attach_role_policy, RoleName=role, PolicyArn=absent) == ("NoSuchEntity", said)
    assert refused(iam.attach_user_policy, UserName=user, PolicyArn=absent) == ("NoSuchEntity", said)
    assert refused(iam.attach_group_policy, GroupName=group, PolicyArn=absent) == ("NoSuchEntity", said)
    wrong = "arn:aws:iam::aws:policy/AdminstratorAccess"
    assert refused(iam.attach_role_policy, RoleName=role, PolicyArn=wrong)[0] == "NoSuchEntity"
    said = f"Scope ARN: {absent} does not exist or is not attachable."
    bounded = refused(iam.put_role_permissions_boundary, RoleName=role, PermissionsBoundary=absent)
    assert bounded == ("NoSuchEntity", said)
    assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
    for call in (iam.list_access_keys, iam.create_access_key, iam.list_user_policies, iam.get_user):
        assert refused(call, UserName="nobody") == ("NoSuchEntity", "The user with name nobody cannot be found.")
    assert refused(iam.get_role, RoleName="none") == ("NoSuchEntity", "The role with name none cannot be found.")


def test_descriptions_come_back_as_they_were(iam: Any, role: str) -> None:
    text = "R&D's <roles>"
    iam.update_role(RoleName=role, Description=text)
    assert iam.get_role(RoleName=role)["Role"]["Description"] == text
    iam.update_role(RoleName=role, Description="")
    assert iam.get_role(RoleName=role)["Role"].get("Description", "") == ""
    made = iam.create_role(RoleName=f"{role}2", AssumeRolePolicyDocument=policy(TRUST), Description=text)["Role"]
    assert made["Description"] == text
    assert text in [
        one.get("Description") for page in iam.get_paginator("list_roles").paginate() for one in page["Roles"]
    ]
    found = iam.create_policy(PolicyName=role, PolicyDocument=policy(LEAST), Description=text)["Policy"]
    assert iam.get_policy(PolicyArn=found["Arn"])["Policy"]["Description"] == text
    assert refused(iam.create_user, UserName="path", Path="/a&b/")[0] == "NotImplemented"


def test_what_would_be_ignored_is_refused_by_name(running: control.Info, iam: Any, user: str) -> None:
    linked = {"AWSServiceName": "autoscaling.amazonaws.com", "CustomSuffix": "x"}
    code, said = refused(iam.create_service_linked_role, **linked)
    assert (code, "CustomSuffix" in said) == ("NotImplemented", True)
    serial = iam.create_virtual_mfa_device(VirtualMFADeviceName=user)["VirtualMFADevice"]["SerialNumber"]
    codes = {"AuthenticationCode1": "123456", "AuthenticationCode2": "654321"}
    assert refused(iam.enable_mfa_device, UserName=user, SerialNumber=serial, **codes)[0] == "NotImplemented"
    headers = {"X-Amz-Target": "IAMService.ListUsers", "Content-Type": "application/x-amz-json-1.1"}
    request = urllib.request.Request(f"{running.url}/", b"{}", signed(running, "iam", "POST", "/", headers, b"{}"))
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request)
    answer = error.value.read()
    error.value.close()
    assert b"<Code>InvalidAction" in answer


def test_a_role_goes_when_nothing_is_left_on_it(iam: Any, role: str) -> None:
    arn = iam.create_policy(PolicyName=role, PolicyDocument=policy(LEAST))["Policy"]["Arn"]
    iam.attach_role_policy(RoleName=role, PolicyArn=arn)
    iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=policy(LEAST))
    iam.create_instance_profile(InstanceProfileName=role)
    iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
    cannot = "Cannot delete entity, must {} first."
    undo: list[tuple[str, Callable[..., Any], dict[str, str]]] = [
        ("detach all policies", iam.detach_role_policy, {"RoleName": role, "PolicyArn": arn}),
        ("delete policies", iam.delete_role_policy, {"RoleName": role, "PolicyName": "p"}),
        (
            "remove roles from instance profile",
            iam.remove_role_from_instance_profile,
            {"InstanceProfileName": role, "RoleName": role},
        ),
    ]
    for said, call, request in undo:
        assert refused(iam.delete_role, RoleName=role) == ("DeleteConflict", cannot.format(said))
        call(**request)
    iam.delete_role(RoleName=role)


def test_a_user_and_a_group_go_when_nothing_is_left_on_them(iam: Any, user: str, group: str) -> None:
    iam.add_user_to_group(UserName=user, GroupName=group)
    key = iam.create_access_key(UserName=user)["AccessKey"]["AccessKeyId"]
    iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=policy(LEAST))
    iam.create_login_profile(UserName=user, Password="A-long-passw0rd!")
    iam.put_group_policy(GroupName=group, PolicyName="p", PolicyDocument=policy(LEAST))
    assert "remove users from group" in refused(iam.delete_group, GroupName=group)[1]
    assert "remove users from group" in refused(iam.delete_user, UserName=user)[1]
    iam.remove_user_from_group(UserName=user, GroupName=group)
    assert "delete policies" in refused(iam.delete_group, GroupName=group)[1]
    iam.delete_group_policy(GroupName=group, PolicyName="p")
    iam.delete_group(GroupName=group)
    assert "delete policies" in refused(iam.delete_user, UserName=user)[1]
    iam.delete_user_policy(UserName=user, PolicyName="p")
    assert "delete access keys" in refused(iam.delete_user, UserName=user)[1]
    assert refused(iam.delete_access_key, UserName=user, AccessKeyId="A" * 20)[0] == "NoSuchEntity"
    iam.delete_access_key(UserName=user, AccessKeyId=key)
    assert "delete login profile" in refused(iam.delete_user, UserName=user)[1]
    iam.delete_login_profile(UserName=user)
    iam.delete_user(UserName=user)


def test_a_policy_goes_when_nobody_has_it_and_has_five_versions(iam: Any, role: str) -> None:
    arn = iam.create_policy(PolicyName=role, PolicyDocument=policy(LEAST))["Policy"]["Arn"]
    for _ in range(4):
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=policy(LEAST))
    assert refused(iam.create_policy_version, PolicyArn=arn, PolicyDocument=policy(LEAST))[0] == "LimitExceeded"
    iam.put_role_permissions_boundary(RoleName=role, PermissionsBoundary=arn)
    attached = ("DeleteConflict", "Cannot delete a policy attached to entities.")
    assert refused(iam.delete_policy, PolicyArn=arn) == attached
    iam.attach_role_policy(RoleName=role, PolicyArn=arn)
    iam.delete_role_permissions_boundary(RoleName=role)
    assert refused(iam.delete_policy, PolicyArn=arn) == attached
    iam.detach_role_policy(RoleName=role, PolicyArn=arn)
    code, said = refused(iam.delete_policy, PolicyArn=arn)
    assert (code, said.split(".")[0]) == ("DeleteConflict", "This policy has more than one version")
    for version in ("v2", "v3", "v4", "v5"):
        iam.delete_policy_version(PolicyArn=arn, VersionId=version)
    iam.delete_policy(PolicyArn=arn)


def test_documents_are_as_long_as_the_quotas_allow(iam: Any, role: str, user: str, group: str) -> None:
    def long(characters: int) -> str:
        empty = policy({**LEAST, "Resource": ["arn:aws:s3:::"]}).replace(" ", "")
        return policy({**LEAST, "Resource": ["arn:aws:s3:::" + "b" * (characters - len(empty))]}) + " " * 500

    iam.create_policy(PolicyName=role, PolicyDocument=long(6144))
    exceeded = refused(iam.create_policy, PolicyName=f"{role}2", PolicyDocument=long(6145))
    assert exceeded == ("LimitExceeded", "Cannot exceed quota for PolicySize: 6144")
    iam.put_role_policy(RoleName=role, PolicyName="a", PolicyDocument=long(10000))
    iam.put_role_policy(RoleName=role, PolicyName="a", PolicyDocument=long(10240))
    exceeded = refused(iam.put_role_policy, RoleName=role, PolicyName="b", PolicyDocument=policy(LEAST))
    assert exceeded == ("LimitExceeded", f"Maximum policy size of 10240 bytes exceeded for role {role}")
    assert refused(iam.put_user_policy, UserName=user, PolicyName="a", PolicyDocument=long(2049))[0] == "LimitExceeded"
    request = {"GroupName": group, "PolicyName": "a", "PolicyDocument": long(5121)}
    assert refused(iam.put_group_policy, **request)[0] == "LimitExceeded"
    trust = policy(*({**TRUST, "Sid": f"s{number}"} for number in range(30)))
    exceeded = refused(iam.create_role, RoleName=f"{role}2", AssumeRolePolicyDocument=trust)
    assert exceeded == ("LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 2048")


def test_there_are_no_more_than_the_quotas_allow(iam: Any, role: str, user: str) -> None:
    for number in range(11):
        name = f"{role}-{number}"
        arn = iam.create_policy(PolicyName=name, PolicyDocument=policy(LEAST))["Policy"]["Arn"]
        if number < 10:
            iam.attach_role_policy(RoleName=role, PolicyArn=arn)
    exceeded = refused(iam.attach_role_policy, RoleName=role, PolicyArn=arn)
    assert exceeded == ("LimitExceeded", "Cannot exceed quota for PoliciesPerRole: 10")
    for _ in range(2):
        iam.create_access_key(UserName=user)
    exceeded = refused(iam.create_access_key, UserName=user)
    assert exceeded == ("LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2")
    iam.tag_role(RoleName=role, Tags=[{"Key": f"k{number}", "Value": ""} for number in range(50)])
    assert refused(iam.tag_role, RoleName=role, Tags=[{"Key": "more", "Value": ""}])[0] == "LimitExceeded"
    assert refused(iam.create_access_key)[0] == "NotImplemented"
