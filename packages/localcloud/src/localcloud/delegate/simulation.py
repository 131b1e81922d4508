"""SimulatePrincipalPolicy and SimulateCustomPolicy: every action on every resource, with boundaries and context keys.

MiniStack looks at the first resource alone, finds no role that has a path, and reads neither boundaries nor context.
"""

from __future__ import annotations

import re
from typing import Any
from xml.sax.saxutils import escape

from localcloud.delegate.managed_policies import ManagedPolicies, unknown
from localcloud.delegate.policy_grammar import check_permissions
from localcloud.errors import AwsError
from localcloud.hooks import identities, scope
from localcloud.hooks.identities import Asked, Reply

Request = dict[str, Any]
OPERATIONS = ("SimulatePrincipalPolicy", "SimulateCustomPolicy")
_ACTION = re.compile(r"[A-Za-z0-9-]+:[A-Za-z0-9]+")
_WORDS = {"Allow": "allowed", "Deny": "explicitDeny", "ImplicitDeny": "implicitDeny"}
_UNREAD = ("ResourcePolicy", "ResourceOwner", "CallerArn", "ResourceHandlingOption")


def simulate(asked: Asked, request: Request, managed: ManagedPolicies) -> Reply:
    """The answer with every result in it; AwsError InvalidInput, NoSuchEntity, NotImplemented (unknown documents)."""
    for name in _UNREAD:
        if name in request:
            raise AwsError("NotImplemented", f"localcloud does not implement {name} of iam:{asked.operation}", 501)
    for action in request["ActionNames"]:
        if not _ACTION.fullmatch(action):
            raise AwsError("InvalidInput", f"Invalid action name {action}: a service and an operation, iam:CreateUser")
    given = [*request.get("PolicyInputList", []), *request.get("PermissionsBoundaryPolicyInputList", [])]
    for document in given:
        _check_given(document)
    account = scope.here()[0]
    principal, boundary = f"arn:aws:iam::{account}:root", ""
    arns: list[str] = []
    documents: list[str] = list(request.get("PolicyInputList", []))
    if asked.operation == "SimulatePrincipalPolicy":
        principal = request["PolicySourceArn"]
        found, arns, boundary = _attached(principal, account)
        documents += found
    known, missing = _read(arns, managed)
    limits = [request["PermissionsBoundaryPolicyInputList"]] if "PermissionsBoundaryPolicyInputList" in request else []
    if boundary and not limits:
        limits = [[managed.document(boundary)]]
    keys = {entry["ContextKeyName"]: _value(entry) for entry in request.get("ContextEntries", [])}
    context = {"principal": principal, "account": account, "region": scope.here()[1], "keys": keys}
    if ":role/" in principal:
        context["kind"] = "AssumedRole"
    results = ""
    for action in request["ActionNames"]:
        for resource in request.get("ResourceArns", ["*"]):
            asks = {**context, "action": action, "resource": resource}
            decision = identities.decide(asks, [*documents, *known], *limits)
            if missing and decision != "Deny":
                raise unknown(missing[0])  # whatever is in it may allow or deny this
            limit = identities.decide(asks, limits[0]) if limits else ""
            results += _result(action, resource, decision, limit)
    answer: Reply = identities.answer(asked, f"<EvaluationResults>{results}</EvaluationResults>")
    return answer


def _check_given(document: str) -> None:
    try:
        check_permissions(document)
    except AwsError as error:
        raise AwsError("InvalidInput", error.message) from None


def _value(entry: dict[str, Any]) -> Any:
    values = entry.get("ContextKeyValues", [])
    return values if str(entry.get("ContextKeyType", "")).endswith("List") or len(values) != 1 else values[0]


def _read(arns: list[str], managed: ManagedPolicies) -> tuple[list[str], list[str]]:
    """Documents of managed policies, and the ARNs of those of which only the name is known."""
    known, missing = [], []
    for arn in arns:
        try:
            known.append(managed.document(arn))
        except AwsError as error:
            if error.code != "NotImplemented":
                continue  # was deleted with its stack
            missing.append(arn)
    return known, missing


def _attached(arn: str, account: str) -> tuple[list[str], list[str], str]:
    """Inline documents, ARNs of managed policies and the boundary of a user, group or role; NoSuchEntity."""
    parts = arn.split(":", 5)
    kind, _, path = (parts[5] if len(parts) == 6 else "").partition("/")
    if parts[:3] != ["arn", "aws", "iam"] or kind not in ("user", "group", "role"):
        raise AwsError("InvalidInput", f"Invalid Entity Arn: {arn} does not clearly define entity type and name.")
    name = path.rpartition("/")[2]
    found = identities.kept(kind).get(name) if parts[4] == account else None
    if found is None:
        raise AwsError("NoSuchEntity", f"The {kind} with name {name} cannot be found.", 404)
    inline, managed = _own(kind, name, found)
    if kind == "user":
        for group_name, group in identities.kept("group").items():
            if name in group["Users"]:
                more, attached = _own("group", group_name, group)
                inline, managed = [*inline, *more], [*managed, *attached]
    return inline, managed, found.get("PermissionsBoundary") or ""


def _own(kind: str, name: str, record: dict[str, Any]) -> tuple[list[str], list[str]]:
    inline = record["InlinePolicies"] if kind == "role" else identities.kept(f"policies of {kind}").get(name) or {}
    return list(inline.values()), list(record.get("AttachedPolicies", []))


def _result(action: str, resource: str, decision: str, limit: str) -> str:
    detail = "PermissionsBoundaryDecisionDetail"
    allowed = f"<AllowedByPermissionsBoundary>{str(limit == 'Allow').lower()}</AllowedByPermissionsBoundary>"
    return (
        f"<member><EvalActionName>{escape(action)}</EvalActionName>"
        f"<EvalResourceName>{escape(resource)}</EvalResourceName><EvalDecision>{_WORDS[decision]}</EvalDecision>"
        f"<MatchedStatements/><MissingContextValues/>{f'<{detail}>{allowed}</{detail}>' if limit else ''}</member>"
    )
