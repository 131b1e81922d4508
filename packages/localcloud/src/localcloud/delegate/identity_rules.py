"""IAM's rules that look at what is there: names, quotas, what has to go before something can be deleted.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html (the default quotas), and botocore's model
for what each operation refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localcloud.errors import AwsError
from localcloud.hooks import identities

Request = dict[str, Any]
_CREATED = {
    "CreateUser": ("user", "UserName", "User"),
    "CreateRole": ("role", "RoleName", "Role"),
    "CreateGroup": ("group", "GroupName", "Group"),
    "CreateInstanceProfile": ("instance profile", "InstanceProfileName", "Instance Profile"),
}
_NAMED = (
    ("UserName", "user", "The user with name {} cannot be found."),
    ("RoleName", "role", "The role with name {} cannot be found."),
    ("GroupName", "group", "The group with name {} cannot be found."),
    ("InstanceProfileName", "instance profile", "Instance Profile {} cannot be found."),
)
_UNCHECKED_NAMES = frozenset({"CreateVirtualMFADevice", "CreateServiceLinkedRole", "DeleteServiceLinkedRole"})
_INLINE = {"user": 2048, "role": 10240, "group": 5120}
_MANAGED, _TRUST, ATTACHED, _VERSIONS, _ACCESS_KEYS, _GROUPS, _TAGS = 6144, 2048, 10, 5, 2, 10, 50


def not_found(message: str) -> AwsError:
    return AwsError("NoSuchEntity", message, 404)


def exceeded(quota: str, number: int) -> AwsError:
    """IAM's refusal of more than a quota allows."""
    return AwsError("LimitExceeded", f"Cannot exceed quota for {quota}: {number}", 409)


def _conflict(message: str) -> AwsError:
    return AwsError("DeleteConflict", f"Cannot delete entity, must {message} first.", 409)


def check_names(operation: str, request: Request) -> None:
    """What is made has a new name, whatever the case of its letters; what is named otherwise exists."""
    created = _CREATED.get(operation)
    if created:
        kind, member, shown = created
        name = request[member]
        if name.lower() in (other.lower() for other in identities.kept(kind)):
            raise AwsError("EntityAlreadyExists", f"{shown} with name {name} already exists.", 409)
    elif operation not in _UNCHECKED_NAMES:
        for member, kind, words in _NAMED:
            if member in request and request[member] not in identities.kept(kind):
                raise not_found(words.format(request[member]))
    if operation == "CreatePolicy":
        name = request["PolicyName"]
        if name.lower() in (other["PolicyName"].lower() for other in identities.kept("policy").values()):
            raise AwsError(
                "EntityAlreadyExists", f"A policy called {name} already exists. Duplicate names are not allowed.", 409
            )


def check_policies(operation: str, request: Request) -> None:
    """Managed policies that are named exist."""
    arn = request.get("PolicyArn", "")
    if arn and identities.policy(arn) is None:
        if operation.startswith("Attach"):
            raise not_found(f"Policy {arn} does not exist or is not attachable.")
        raise not_found(f"Policy {arn} was not found.")
    boundary = request.get("PermissionsBoundary", "")
    if boundary and identities.policy(boundary) is None:
        raise not_found(f"Scope ARN: {boundary} does not exist or is not attachable.")


def check_sizes(operation: str, request: Request) -> None:
    """Documents are no longer than IAM's quotas, which count no white space."""
    if operation in ("CreatePolicy", "CreatePolicyVersion") and size(request["PolicyDocument"]) > _MANAGED:
        raise exceeded("PolicySize", _MANAGED)
    trust = request.get("AssumeRolePolicyDocument") or (
        request["PolicyDocument"] if operation == "UpdateAssumeRolePolicy" else ""
    )
    if size(trust) > _TRUST:
        raise exceeded("ACLSizePerRole", _TRUST)
    for kind, most in _INLINE.items():
        if operation == f"Put{kind.capitalize()}Policy":
            name = request[f"{kind.capitalize()}Name"]
            others = {**_inline(kind, name), request["PolicyName"]: request["PolicyDocument"]}
            if sum(map(size, others.values())) > most:
                reason = f"Maximum policy size of {most} bytes exceeded for {kind} {name}"
                raise AwsError("LimitExceeded", reason, 409)


def check_numbers(operation: str, request: Request) -> None:
    """There are no more of a kind than IAM's quotas allow."""
    for kind in _INLINE:
        shown = kind.capitalize()
        if operation == f"Attach{shown}Policy":
            attached = identities.kept(kind)[request[f"{shown}Name"]].get("AttachedPolicies", [])
            if request["PolicyArn"] not in attached and len(attached) >= ATTACHED:
                raise exceeded(f"PoliciesPer{shown}", ATTACHED)
    if operation == "CreatePolicyVersion" and len(_versions(request)) >= _VERSIONS:
        reason = (
            f"A managed policy can have up to {_VERSIONS} versions. Before you create a new version, you must delete "
            "an existing version."
        )
        raise AwsError("LimitExceeded", reason, 409)
    if operation == "CreateAccessKey":
        own = [key for key in identities.kept("access key").values() if key["UserName"] == request["UserName"]]
        if len(own) >= _ACCESS_KEYS:
            raise exceeded("AccessKeysPerUser", _ACCESS_KEYS)
    if operation == "AddUserToGroup":
        others = [name for name, group in identities.kept("group").items() if request["UserName"] in group["Users"]]
        if request["GroupName"] not in others and len(others) >= _GROUPS:
            raise exceeded("GroupsPerUser", _GROUPS)
    for kind, member in (("user", "UserName"), ("role", "RoleName")):
        if operation == f"Tag{kind.capitalize()}":
            tags = {tag["Key"].lower() for tag in identities.kept(kind)[request[member]].get("Tags", [])}
            if len(tags | {tag["Key"].lower() for tag in request["Tags"]}) > _TAGS:
                raise AwsError("LimitExceeded", f"The number of tags has reached the maximum limit: {_TAGS}", 409)


def is_asked_for(operation: str, request: Request, item: dict[str, str]) -> bool:
    """Whether a policy belongs into a list, by the filters that MiniStack doesn't read."""
    if operation == "ListPolicies":
        permissions, boundary = item["AttachmentCount"] != "0", item["PermissionsBoundaryUsageCount"] != "0"
        uses = {"PermissionsPolicy": permissions, "PermissionsBoundary": boundary}
        wanted = request.get("PolicyUsageFilter")
        return uses.get(str(wanted), True) and (not request.get("OnlyAttached") or permissions or boundary)
    if operation.startswith("ListAttached"):
        path = (identities.policy(item["PolicyArn"]) or {}).get("Path", "/")
        return bool(path.startswith(request.get("PathPrefix", "/")))
    return True


def check_deleted(operation: str, request: Request) -> None:
    """What is deleted has nothing left on it."""
    check = _DELETED.get(operation)
    if check:
        check(request)


def _delete_role(request: Request) -> None:
    role = identities.kept("role")[request["RoleName"]]
    if role.get("AttachedPolicies"):
        raise _conflict("detach all policies")
    if role.get("InlinePolicies"):
        raise _conflict("delete policies")
    if any(request["RoleName"] in profile["Roles"] for profile in identities.kept("instance profile").values()):
        raise _conflict("remove roles from instance profile")


def _delete_user(request: Request) -> None:
    name = request["UserName"]
    if any(name in group["Users"] for group in identities.kept("group").values()):
        raise _conflict("remove users from group")
    if identities.kept("user")[name].get("AttachedPolicies"):
        raise _conflict("detach all policies")
    if _inline("user", name):
        raise _conflict("delete policies")
    if any(key["UserName"] == name for key in identities.kept("access key").values()):
        raise _conflict("delete access keys")
    if name in identities.kept("login profile"):
        raise _conflict("delete login profile")
    if any(device.get("UserName") == name for device in identities.kept("mfa device").values()):
        raise _conflict("delete MFA device")


def _delete_group(request: Request) -> None:
    group = identities.kept("group")[request["GroupName"]]
    if group["Users"]:
        raise _conflict("remove users from group")
    if group.get("AttachedPolicies"):
        raise _conflict("detach all policies")
    if _inline("group", request["GroupName"]):
        raise _conflict("delete policies")


def _delete_policy(request: Request) -> None:
    arn = request["PolicyArn"]
    record = identities.kept("policy").get(arn)
    if record is None:
        return  # AWS's own
    if record.get("AttachmentCount") or identities.boundary_uses(arn):
        raise AwsError("DeleteConflict", "Cannot delete a policy attached to entities.", 409)
    if len(record["Versions"]) > 1:
        reason = (
            "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. "
            "The default version is deleted with the policy."
        )
        raise AwsError("DeleteConflict", reason, 409)


def _delete_access_key(request: Request) -> None:
    key = identities.kept("access key").get(request["AccessKeyId"])
    if key is None or key["UserName"] != request.get("UserName", key["UserName"]):
        raise not_found(f"The Access Key with id {request['AccessKeyId']} cannot be found.")


_DELETED: dict[str, Callable[[Request], None]] = {
    "DeleteRole": _delete_role,
    "DeleteUser": _delete_user,
    "DeleteGroup": _delete_group,
    "DeletePolicy": _delete_policy,
    "DeleteAccessKey": _delete_access_key,
}


def _inline(kind: str, name: str) -> dict[str, str]:
    if kind == "role":
        return dict(identities.kept("role")[name].get("InlinePolicies", {}))
    return dict(identities.kept(f"policies of {kind}").get(name) or {})


def _versions(request: Request) -> dict[str, Any]:
    record = identities.kept("policy").get(request["PolicyArn"])
    return record["Versions"] if record else {}


def size(document: str) -> int:
    """Its characters as the quotas count them."""
    return len("".join(document.split()))
