"""Whether a role's trust policy lets a caller in.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html
"""

from __future__ import annotations

import json
from typing import Any

from localcloud.hooks import identities


def allows(document: str, action: str, context: dict[str, Any]) -> bool:
    """What the policy says of `{action, resource, principal, account, region, keys}`: a Deny goes before any Allow."""
    asked, allowed = {**context, "action": action}, False
    found = json.loads(document)["Statement"]
    for statement in found if isinstance(found, list) else [found]:
        if not _names(statement, asked) or not identities.holds(statement.get("Condition", {}), asked):
            continue
        if statement["Effect"] == "Deny":
            return False
        allowed = True
    return allowed


def lets_in(role: str, service: str) -> bool | None:
    """Whether a service of AWS (`lambda.amazonaws.com`) may assume the role of an ARN; None when there is no such role.

    Conditions are not looked at.
    """
    record = identities.role_of((role.split(":") + [""] * 5)[4], role.rpartition("/")[2])
    if record is None or record["Arn"] != role:
        return None
    return lets_act(json.loads(str(record["AssumeRolePolicyDocument"])), service, "sts:AssumeRole")


def lets_act(policy: dict[str, Any], service: str, action: str) -> bool:
    """Whether a resource's policy lets a service do something; an unconditional Deny goes before any Allow."""
    allowed = False
    for statement in _list(policy.get("Statement", [])):
        principal = statement.get("Principal", {})
        named = ["*"] if principal == "*" else _list(principal.get("Service", []))
        if not {service, "*"} & set(named) or not _acts(statement, action):
            continue
        if statement["Effect"] == "Deny" and not statement.get("Condition"):
            return False
        allowed = allowed or statement["Effect"] == "Allow"
    return allowed


def _acts(statement: dict[str, Any], action: str) -> bool:
    if "NotAction" in statement:
        return not identities.matches(action, _list(statement["NotAction"]))
    return identities.matches(action, _list(statement.get("Action", [])))


def _names(statement: dict[str, Any], asked: dict[str, Any]) -> bool:
    principal = statement.get("Principal", {})
    named = ["*"] if principal == "*" else _list(principal.get("AWS", []))
    return _acts(statement, asked["action"]) and any(_is(name, asked["principal"], asked["account"]) for name in named)


def _is(named: str, caller: str, account: str) -> bool:
    """Whether a principal of a policy is the caller: the account stands for everyone in it, a role for its sessions."""
    if named in ("*", account, caller) or (named.endswith(":root") and named.split(":")[4] == account):
        return True
    if ":role/" in named and ":assumed-role/" in caller:
        role, of = caller.split("/")[1], caller.split(":")[4]
        return named.split(":")[4] == of and named.rpartition("/")[2] == role
    return False


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
