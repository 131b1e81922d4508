"""IAM's lists come in pages that lose nothing and double nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import control
from localcloud_front.conftest import TRUST, Clients

NAMES = [f"n{number:02}" for number in range(11)]
DOCUMENT = json.dumps({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}})


@pytest.fixture(scope="module")
def iam(running: control.Info) -> Iterator[Any]:
    """Of an account that has eleven of each."""
    clients = Clients(running, account="666677778888")
    client = clients("iam")
    client.create_group(GroupName="other")
    for name in reversed(NAMES):
        client.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST, Tags=[{"Key": "k", "Value": ""}])
        client.create_user(UserName=name)
        client.create_group(GroupName=name)
        client.create_instance_profile(InstanceProfileName=name)
        client.create_policy(PolicyName=name, PolicyDocument=DOCUMENT)
        client.put_role_policy(RoleName="n10", PolicyName=name, PolicyDocument=DOCUMENT)
        client.put_user_policy(UserName="n10", PolicyName=name, PolicyDocument=json.dumps(small()))
        client.tag_role(RoleName="n10", Tags=[{"Key": name, "Value": name}])
        client.tag_user(UserName="n10", Tags=[{"Key": name, "Value": name}])
        client.add_user_to_group(GroupName="other", UserName=name)
    for name in NAMES[:10]:
        arn = f"arn:aws:iam::666677778888:policy/{name}"
        client.attach_role_policy(RoleName="n10", PolicyArn=arn)
        client.attach_role_policy(RoleName=name, PolicyArn=f"arn:aws:iam::666677778888:policy/{NAMES[0]}")
    for _ in range(4):
        client.create_policy_version(PolicyArn=arn, PolicyDocument=DOCUMENT)
    yield client
    clients.close()


def small() -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}


POLICY = "arn:aws:iam::666677778888:policy/n09"
LISTS: list[tuple[str, dict[str, str], str, str | None, list[str]]] = [
    ("list_roles", {}, "Roles", "RoleName", NAMES),
    ("list_users", {}, "Users", "UserName", NAMES),
    ("list_groups", {}, "Groups", "GroupName", [*NAMES, "other"]),
    ("list_instance_profiles", {}, "InstanceProfiles", "InstanceProfileName", NAMES),
    ("list_policies", {"Scope": "Local"}, "Policies", "PolicyName", NAMES),
    ("list_role_policies", {"RoleName": "n10"}, "PolicyNames", None, NAMES),
    ("list_user_policies", {"UserName": "n10"}, "PolicyNames", None, NAMES),
    ("list_attached_role_policies", {"RoleName": "n10"}, "AttachedPolicies", "PolicyName", NAMES[:10]),
    ("list_policy_versions", {"PolicyArn": POLICY}, "Versions", "VersionId", ["v1", "v2", "v3", "v4", "v5"]),
    ("list_role_tags", {"RoleName": "n10"}, "Tags", "Key", ["k", *NAMES]),
    ("list_user_tags", {"UserName": "n10"}, "Tags", "Key", NAMES),
    ("get_group", {"GroupName": "other"}, "Users", "UserName", NAMES),
]


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(("call", "request_", "key", "member", "expected"), LISTS, ids=[one[0] for one in LISTS])
def test_pages_together_are_the_list(
    iam: Any, call: str, request_: dict[str, str], key: str, member: str | None, expected: list[str], size: int
) -> None:
    found: list[str] = []
    marker: dict[str, str] = {}
    while True:
        page = getattr(iam, call)(**request_, MaxItems=size, **marker)
        items = page[key]
        found += [item[member] if member else item for item in items]
        if not page["IsTruncated"]:
            break
        assert len(items) == size
        marker = {"Marker": page["Marker"]}
    assert "Marker" not in page
    assert sorted(found) == expected


def test_every_policy_of_aws_is_in_the_pages_once(iam: Any) -> None:
    paginator = iam.get_paginator("list_policies")
    arns = [policy["Arn"] for page in paginator.paginate() for policy in page["Policies"]]
    assert len(arns) == len(set(arns)) > 30
    assert len(iam.list_policies()["Policies"]) == min(100, len(arns))
    assert "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess" in arns


def test_several_lists_of_one_answer_share_its_pages(iam: Any) -> None:
    found = []
    paginator = iam.get_paginator("list_entities_for_policy")
    for page in paginator.paginate(
        PolicyArn=f"arn:aws:iam::666677778888:policy/{NAMES[0]}", PaginationConfig={"PageSize": 3}
    ):
        assert sum(len(page[key]) for key in ("PolicyRoles", "PolicyUsers", "PolicyGroups")) <= 3
        found += [role["RoleName"] for role in page["PolicyRoles"]]
    assert sorted(found) == NAMES


def test_what_goes_between_two_pages_hides_nothing_else(iam: Any) -> None:
    first = iam.list_instance_profiles(MaxItems=3)
    names = [profile["InstanceProfileName"] for profile in first["InstanceProfiles"]]
    for name in names:
        iam.delete_instance_profile(InstanceProfileName=name)
    rest = iam.list_instance_profiles(Marker=first["Marker"])["InstanceProfiles"]
    assert sorted([*names, *(profile["InstanceProfileName"] for profile in rest)]) == NAMES
    for name in names:
        iam.create_instance_profile(InstanceProfileName=name)


def test_a_marker_of_another_request_is_refused(iam: Any) -> None:
    marker = iam.list_roles(MaxItems=3)["Marker"]
    for call, request in (
        (iam.list_users, {"Marker": marker}),
        (iam.list_roles, {"Marker": marker, "PathPrefix": "/a/"}),
        (iam.list_roles, {"Marker": "x"}),
    ):
        with pytest.raises(ClientError, match=r"ValidationError.*Invalid Marker"):
            call(**request)
    with pytest.raises(ClientError, match="ValidationError"):
        iam.list_roles(MaxItems=1001)


def test_filters_of_policies_are_read(iam: Any) -> None:
    def names(**request: Any) -> set[str]:
        return {policy["PolicyName"] for policy in iam.list_policies(**request)["Policies"]}

    assert names(Scope="Local", OnlyAttached=True) == set(NAMES[:10])
    iam.create_policy(PolicyName="path", Path="/team/", PolicyDocument=DOCUMENT)
    arn = "arn:aws:iam::666677778888:policy/team/path"
    iam.put_user_permissions_boundary(UserName="n01", PermissionsBoundary=arn)
    assert names(Scope="Local", PolicyUsageFilter="PermissionsBoundary") == {"path"}
    assert names(Scope="Local", PolicyUsageFilter="PermissionsPolicy") == set(NAMES[:10])
    iam.attach_user_policy(UserName="n01", PolicyArn=arn)
    iam.attach_user_policy(UserName="n01", PolicyArn=POLICY)
    found = iam.list_attached_user_policies(UserName="n01", PathPrefix="/team/")["AttachedPolicies"]
    assert [policy["PolicyName"] for policy in found] == ["path"]
    iam.detach_user_policy(UserName="n01", PolicyArn=arn)
    iam.delete_user_permissions_boundary(UserName="n01")
    iam.delete_policy(PolicyArn=arn)
