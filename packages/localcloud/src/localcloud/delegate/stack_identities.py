"""CloudFormation's IAM types by the rules of IAM: MiniStack's stacks make roles and policies past its own checks.

AWS::IAM::Role                      a trust policy that is one, its boundary kept, no other role overwritten
AWS::IAM::Role, User                inline policies that are some, managed ones that exist
AWS::IAM::ManagedPolicy, Policy     a document that is a policy
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from localcloud.delegate import identity_rules
from localcloud.delegate.identities import exists, kept_text
from localcloud.delegate.managed_policies import ManagedPolicies
from localcloud.delegate.policy_grammar import check_permissions, check_trust
from localcloud.errors import AwsError
from localcloud.forms import scalar
from localcloud.hooks import stacks
from localcloud.hooks.patches import Patches
from localcloud.protocol import operation_model
from localcloud.shapes import check_request

Document = dict[str, Any]
Resource = tuple[str, dict[str, Any]]
Check = Callable[[Document, Document], None]
"""Told the properties and those from before; AwsError."""


def install(patches: Patches, managed: ManagedPolicies) -> None:
    """Register the types with MiniStack's stack engine."""

    def role(props: Document, old: Document) -> None:
        name = props.get("RoleName")
        request = {
            "RoleName": name or "generated",
            "AssumeRolePolicyDocument": _text(props.get("AssumeRolePolicyDocument", "")),
            **{member: props[member] for member in _ROLE if props.get(member) is not None},
        }
        if "Tags" in request:
            request["Tags"] = [{key: str(value) for key, value in tag.items()} for tag in request["Tags"]]
        if name and name != old.get("RoleName"):
            identity_rules.check_names("CreateRole", request)
        _check("CreateRole", request)
        managed.load()
        identity_rules.check_policies("CreateRole", request)
        check_trust(request["AssumeRolePolicyDocument"], exists)
        identity_rules.check_sizes("CreateRole", request)
        _identity(props, 10240)

    def user(props: Document, _: Document) -> None:
        managed.load()
        _identity(props, 2048)

    stacks.resolve_conditions(patches)  # of statements that a policy has or hasn't
    stacks.put_type(patches, "AWS::IAM::Role", _with_boundary(_checked(stacks.type_of("AWS::IAM::Role"), role)))
    stacks.put_type(patches, "AWS::IAM::User", _checked(stacks.type_of("AWS::IAM::User"), user))
    for name in ("AWS::IAM::ManagedPolicy", "AWS::IAM::Policy"):
        stacks.put_type(patches, name, _checked(stacks.type_of(name), _document))


_ROLE = ("Path", "Description", "MaxSessionDuration", "PermissionsBoundary", "Tags")


def _check(operation: str, request: Document) -> None:
    shape = operation_model("iam", operation).input_shape
    numbers = {name: scalar(shape.members[name], value) for name, value in request.items()} if shape else {}
    check_request(shape, numbers)


def _identity(props: Document, most: int) -> None:
    """Inline and managed policies of a user or role."""
    size = 0
    for policy in props.get("Policies", []):
        text = _text(policy.get("PolicyDocument", ""))
        check_permissions(text)
        size += identity_rules.size(text)
    if size > most:
        raise AwsError("LimitExceeded", f"Maximum policy size of {most} bytes exceeded")
    attached = props.get("ManagedPolicyArns", [])
    for arn in attached:
        identity_rules.check_policies("Attach", {"PolicyArn": arn})
    if len(attached) > identity_rules.ATTACHED:
        raise identity_rules.exceeded("PoliciesPerRole or PoliciesPerUser", identity_rules.ATTACHED)


def _document(props: Document, _: Document) -> None:
    text = _text(props.get("PolicyDocument", ""))
    check_permissions(text)
    if "PolicyName" not in props:
        identity_rules.check_sizes("CreatePolicy", {"PolicyDocument": text})


def _text(document: Any) -> str:
    return document if isinstance(document, str) else json.dumps(document, default=str)


def _checked(original: Document, check: Check) -> Document:
    def run(props: Document, old: Document) -> None:
        try:
            check(props, old)
        except AwsError as error:
            raise ValueError(f"{error.message} (Service: Iam, Status Code: {error.status})") from None

    def create(logical_id: str, props: Document, stack: str) -> Resource:
        run(props, {})
        created: Resource = original["create"](logical_id, _kept(props), stack)
        return created

    def update(physical_id: str, old: Document, new: Document, stack: str, logical_id: str | None = None) -> Resource:
        run(new, old)
        old, new = _kept(old), _kept(new)
        extra = {"logical_id": logical_id} if original.get("update_with_logical_id") else {}
        updated: Resource = original["update"](physical_id, old, new, stack, **extra)
        return updated

    return {**original, "create": create, "update": update}


def _kept(props: Document) -> Document:
    return {**props, "Description": kept_text(str(props["Description"]))} if "Description" in props else props


def _with_boundary(original: Document) -> Document:
    def create(logical_id: str, props: Document, stack: str) -> Resource:
        created: Resource = original["create"](logical_id, props, stack)
        stacks.set_boundary(created[0], props.get("PermissionsBoundary"))
        return created

    def update(physical_id: str, old: Document, new: Document, stack: str, logical_id: str | None = None) -> Resource:
        updated: Resource = original["update"](physical_id, old, new, stack, logical_id)
        stacks.set_boundary(updated[0], new.get("PermissionsBoundary"))
        return updated

    return {**original, "create": create, "update": update}
