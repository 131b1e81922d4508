"""The grammar of IAM's policy documents: what CreatePolicy, PutRolePolicy, CreateRole ... take, and how AWS refuses.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html; the words, and which fault comes
first, are the ones that moto's suite recorded of AWS (tests/test_iam/test_iam_policies.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from localcloud.errors import AwsError

Document = dict[str, Any]
Exists = Callable[[str], bool]
"""Whether the user or role of an ARN exists."""
_TOP = {"Version", "Id", "Statement"}
_PAIRS = (("Action", "NotAction"), ("Resource", "NotResource"), ("Principal", "NotPrincipal"))
_ELEMENTS = {"Sid", "Effect", "Condition", *(name for pair in _PAIRS for name in pair)}
_VERSIONS = ("2008-10-17", "2012-10-17")
_OPERATOR = re.compile(
    r"(?:(?:ForAnyValue|ForAllValues):)?(?:(?:String(?:Not)?(?:Equals|EqualsIgnoreCase|Like)|Bool|BinaryEquals"
    r"|(?:Numeric|Date)(?:Equals|NotEquals|LessThan|LessThanEquals|GreaterThan|GreaterThanEquals)"
    r"|(?:Not)?IpAddress|Arn(?:Not)?(?:Equals|Like))(?:IfExists)?|Null)"
)
_VENDOR = re.compile(r"[a-zA-Z0-9.-]+")
_PARTITIONS = re.compile(r"\*|aws(?:-[a-z]+)*")
_IAM_PATHS = (
    *("user/", "federated-user/", "role/", "group/", "instance-profile/", "mfa/", "server-certificate/", "policy/"),
    *("sms-mfa/", "saml-provider/", "oidc-provider/", "report/", "access-report/"),
)
_TRUST_ACTIONS = frozenset(
    f"sts:{name}".lower()
    for name in (
        *("AssumeRole", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity"),
        *("TagSession", "SetSourceIdentity", "SetContext"),
    )
)
_KINDS = {"AWS", "Service", "Federated", "CanonicalUser"}
_PRINCIPAL = re.compile(r"\*|[0-9]{12}|arn:aws[a-z-]*:(?:iam|sts)::[0-9]{12}:(?:root|[a-z-]+/[^*?]+)")
_SERVICE = re.compile(r"[a-z0-9][a-z0-9.-]*\.amazonaws\.com(?:\.cn)?")


def malformed(message: str) -> AwsError:
    """IAM's refusal of a document."""
    return AwsError("MalformedPolicyDocument", message)


def check_permissions(text: str) -> None:
    """AwsError MalformedPolicyDocument when an identity's policy is none."""
    document, statements = _parsed(text)
    if document.get("Version") != _VERSIONS[-1]:
        raise malformed("Policy document must be version 2012-10-17 or greater.")
    for statement in statements:
        if "Principal" in statement or "NotPrincipal" in statement:
            raise malformed("Policy document should not specify a principal.")
    faults = [fault for one in statements for name in _PAIRS[1] for fault in map(_fault, _texts(one, name)) if fault]
    if any(fault == _LEGACY for fault in faults):
        raise malformed(_LEGACY)
    _check_actions_exist(statements)
    if faults:
        raise malformed(faults[0])
    _check_actions(statements)
    for statement in statements:
        if not any(_texts(statement, name) for name in _PAIRS[1]):
            raise malformed("Policy statement must contain resources.")


def check_trust(text: str, exists: Exists) -> None:
    """AwsError MalformedPolicyDocument when a role's trust policy is none, or names a principal that isn't there."""
    _, statements = _parsed(text)
    for statement in statements:
        for name in _PAIRS[1]:
            if name in statement:
                raise malformed(f"Has prohibited field {name}")
        if "NotPrincipal" in statement:
            if statement["Effect"] == "Allow":
                raise malformed("Allow with NotPrincipal is not allowed.")
            raise malformed("AssumeRole policy must not contain NotPrincipal field.")
        if not statement.get("Principal"):
            raise malformed("Missing required field Principal")
    _check_actions_exist(statements)
    _check_actions(statements)
    for statement in statements:
        if any(action.lower() not in _TRUST_ACTIONS for name in _PAIRS[0] for action in _texts(statement, name)):
            raise malformed("AssumeRole policy may only specify STS AssumeRole actions.")
        _check_principal(statement["Principal"], exists)


def check_resource(text: str) -> None:
    """AwsError MalformedPolicyDocument when the policy of a bucket, key, topic, queue, bus or log group is none."""
    _, statements = _parsed(text)
    for statement in statements:
        if not statement.get("Principal") and not statement.get("NotPrincipal"):
            raise malformed("Missing required field Principal")
        if not any(_texts(statement, name) for name in _PAIRS[1]):
            raise malformed("Missing required field Resource")
    _check_actions_exist(statements)


def _parsed(text: str) -> tuple[Document, list[Document]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise malformed("Syntax errors in policy.") from None
    if not isinstance(document, dict) or document.keys() - _TOP or not isinstance(document.get("Id", ""), str):
        raise malformed("Syntax errors in policy.")
    found = document.get("Statement")
    statements = [found] if isinstance(found, dict) else found
    version = document.get("Version", _VERSIONS[0])
    if not isinstance(statements, list) or not statements or version not in _VERSIONS:
        raise malformed("Syntax errors in policy.")
    if not all(isinstance(statement, dict) and _is_statement(statement) for statement in statements):
        raise malformed("Syntax errors in policy.")
    sids = [statement["Sid"] for statement in statements if statement.get("Sid")]
    if len(sids) != len(set(sids)):
        raise malformed("Statement IDs (SID) in a single policy must be unique.")
    return document, statements


def _is_statement(statement: Document) -> bool:
    if statement.keys() - _ELEMENTS or any(one in statement and other in statement for one, other in _PAIRS):
        return False
    if statement.get("Effect") not in ("Allow", "Deny") or not isinstance(statement.get("Sid", ""), str):
        return False
    texts = [statement[name] for pair in _PAIRS[:2] for name in pair if name in statement]
    if not all(isinstance(item, str) for value in texts for item in (value if isinstance(value, list) else [value])):
        return False
    return "Condition" not in statement or _is_condition(statement["Condition"])


def _is_condition(condition: Any) -> bool:
    if not isinstance(condition, dict):
        return False
    for operator, keys in condition.items():
        if not _OPERATOR.fullmatch(operator) or not isinstance(keys, dict):
            return False
        values = [item for value in keys.values() for item in (value if isinstance(value, list) else [value])]
        if not all(isinstance(item, str | bool | int | float) for item in values):
            return False
    return True


def _texts(statement: Document, name: str) -> list[str]:
    found = statement.get(name, [])
    return [found] if isinstance(found, str) else found


def _check_actions_exist(statements: list[Document]) -> None:
    for statement in statements:
        if not any(_texts(statement, name) for name in _PAIRS[0]):
            raise malformed("Policy statement must contain actions.")


def _check_actions(statements: list[Document]) -> None:
    for statement in statements:
        keys = [key for keys in statement.get("Condition", {}).values() for key in keys]
        if any(":" not in key for key in keys):
            raise malformed(_PREFACE)
        for action in (action for name in _PAIRS[0] for action in _texts(statement, name)):
            vendor, colon, name = action.partition(":")
            if action == "*":
                continue
            if not colon:
                raise malformed(_PREFACE)
            if ":" in name:
                raise malformed("Actions/Condition can contain only one colon.")
            if not _VENDOR.fullmatch(vendor):
                raise malformed(f"Vendor {vendor} is not valid")


_PREFACE = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
_LEGACY = "The policy failed legacy parsing"


def _fault(resource: str) -> str:
    """What is wrong with an element of Resource; empty when nothing is."""
    if resource == "*":
        return ""
    _, *parts = resource.split(":", 5)
    if not parts:
        return f'Resource {resource} must be in ARN format or "*".'
    if not _PARTITIONS.fullmatch(parts[0]):
        shown = ":".join([*parts[1:], *["*"] * (5 - len(parts))])
        return f'Partition "{parts[0]}" is not valid for resource "arn:{parts[0]}:{shown}".'
    if len(parts) == 1:
        return "Resource vendor must be fully qualified and cannot contain regexes."
    if len(parts) < 5 or not resource.startswith("arn:"):
        return _LEGACY
    service, region, path = parts[1], parts[2], parts[4]
    if service == "iam" and region:
        return f"IAM resource {resource} cannot contain region information."
    if service == "s3" and region and not path.startswith("accesspoint/"):
        return f"Resource {resource} can not contain region information."
    # A pattern may begin before the kind's name ends.
    if service == "iam" and not re.match(r"[a-z-]*[*?$]", path) and not path.startswith(_IAM_PATHS):
        return f'IAM resource path must either be "*" or start with {", ".join(_IAM_PATHS)}.'
    return ""


def _check_principal(principal: Any, exists: Exists) -> None:
    if principal == "*":
        return
    if not isinstance(principal, dict) or principal.keys() - _KINDS:
        raise malformed("Syntax errors in policy.")
    for kind, value in principal.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(item, str) for item in values):
            raise malformed("Syntax errors in policy.")
        for item in values:
            known = kind == "Federated" and bool(item)
            known = known or (kind == "Service" and _SERVICE.fullmatch(item) is not None)
            known = known or (kind == "AWS" and _PRINCIPAL.fullmatch(item) is not None and exists(item))
            if not known:
                shown = "SERVICE" if kind == "Service" else kind
                raise malformed(f'Invalid principal in policy: "{shown}":"{item}"')
