"""STS: who gets the keys of a role, and for how long.

https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html. What a caller may do is not looked at, but a
role's trust policy is: it decides whether a pipeline, a function or a person can work as that role at all.
"""

from __future__ import annotations

from typing import Any

from localcloud import forms
from localcloud.delegate import trust
from localcloud.delegate.managed_policies import ManagedPolicies
from localcloud.delegate.policy_grammar import check_permissions
from localcloud.errors import AwsError
from localcloud.hooks import identities, scope
from localcloud.hooks.identities import Asked, Next, Reply
from localcloud.protocol import not_implemented, operation_model
from localcloud.shapes import check_request

Request = dict[str, Any]
_HOUR = 3600
_MADE_UP = frozenset({"AssumeRoleWithWebIdentity", "AssumeRoleWithSAML", "AssumeRoot", "GetWebIdentityToken"})
"""Tokens of others can't be checked here, and nobody could check one of ours."""
_IGNORED = ("SerialNumber", "TokenCode", "SourceIdentity", "ProvidedContexts", "TransitiveTagKeys")
"""Members that MiniStack takes and does nothing with."""


class Sessions:
    """Checks what MiniStack's STS is asked. On the event loop."""

    def __init__(self, managed: ManagedPolicies) -> None:
        self._managed = managed

    async def answer(self, asked: Asked, after: Next) -> Reply:
        """The answer to a request; AwsError as STS refuses."""
        if asked.operation in _MADE_UP:
            raise not_implemented("sts", asked.operation)
        request = checked("sts", asked)
        for name in _IGNORED:
            if name in request:
                raise AwsError("NotImplemented", f"localcloud does not implement {name} of sts:{asked.operation}", 501)
        if asked.operation == "AssumeRole":
            self._assume(request, asked.caller)
        elif asked.operation in ("GetSessionToken", "GetFederationToken"):
            self._own(asked, request)
        return await after()

    def _assume(self, request: Request, caller: dict[str, Any]) -> None:
        arn = request["RoleArn"]
        parts = arn.split(":", 5)
        if len(parts) < 6 or parts[:3] != ["arn", "aws", "iam"] or parts[3] or not parts[5].startswith("role/"):
            raise AwsError("ValidationError", f"{arn} is invalid")
        role = identities.role_of(parts[4], arn.rpartition("/")[2])
        tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
        keys = {f"aws:RequestTag/{name}": value for name, value in tags.items()}
        keys |= {"sts:RoleSessionName": request["RoleSessionName"], "aws:TagKeys": list(tags)}
        keys |= {"sts:ExternalId": request["ExternalId"]} if "ExternalId" in request else {}
        context = {"resource": arn, "principal": caller["userArn"], "account": caller["accountId"], "keys": keys}
        context |= {"region": scope.here()[1]}
        for action in ("sts:AssumeRole", *(["sts:TagSession"] if tags else [])):
            # The ARN has to be the role's own, with its path; that one isn't there is nothing that AWS tells.
            known = role is not None and role["Arn"] == arn
            if not known or not trust.allows(str((role or {})["AssumeRolePolicyDocument"]), action, context):
                who = f"User: {caller['userArn']}"
                raise AwsError("AccessDenied", f"{who} is not authorized to perform: {action} on resource: {arn}", 403)
        assert role is not None
        self._check_duration(request.get("DurationSeconds", _HOUR), role, caller)
        self._check_policies(request, parts[4])

    def _check_duration(self, seconds: int, role: dict[str, Any], caller: dict[str, Any]) -> None:
        if ":assumed-role/" in caller["userArn"] and seconds > _HOUR:
            reason = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining"
            raise AwsError("ValidationError", reason)
        if seconds > role.get("MaxSessionDuration", _HOUR):
            reason = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
            raise AwsError("ValidationError", reason)

    def _own(self, asked: Asked, request: Request) -> None:
        caller = asked.caller
        if caller["isTemporary"]:
            raise AwsError("AccessDenied", f"Cannot call {asked.operation} with session credentials", 403)
        if caller["userArn"].endswith(":root"):
            # What an account's own key asks beyond an hour is cut to that.
            asked.form["DurationSeconds"] = [str(min(request.get("DurationSeconds", _HOUR), _HOUR))]
        self._check_policies(request, caller["accountId"])

    def _check_policies(self, request: Request, account: str) -> None:
        if "Policy" in request:
            check_permissions(request["Policy"])
        self._managed.load()
        with scope.scoped(account, scope.here()[1]):
            for given in request.get("PolicyArns", []):
                if identities.policy(given.get("arn", "")) is None:
                    reason = "At least one Policy ARN in the PolicyArns parameter does not match an existing policy"
                    raise AwsError("ValidationError", reason)


def checked(service: str, asked: Asked) -> Request:
    """The members of a request to IAM or STS, against the service's model; AwsError ValidationError, InvalidAction."""
    try:
        shape = operation_model(service, asked.operation).input_shape
    except AwsError:
        raise AwsError("InvalidAction", f"Could not find operation {asked.operation} for {service}") from None
    try:
        return check_request(shape, forms.members(shape, forms.pairs(asked.form)))
    except AwsError as error:
        code = "ValidationError" if error.code == "ValidationException" else error.code
        raise AwsError(code, error.message, error.status) from None
