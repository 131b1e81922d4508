"""IAM and STS: their requests and answers, what they keep, and how they read policies; in the scope of the caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from localcloud.errors import AwsError
from localcloud.forms import Form
from localcloud.hooks.patches import Patches

Record = dict[str, Any]
Reply = tuple[int, dict[str, str], bytes]
Decision = str
"""`Allow`, `Deny` or `ImplicitDeny`."""


@dataclass(frozen=True)
class Asked:
    """One request to IAM or STS: the operation, its form, and who asks (`userArn`, `accountId`, `isTemporary` ...)."""

    service: str
    operation: str
    form: Form
    caller: Record


Next = Callable[[], Awaitable[Reply]]
"""MiniStack's own answer to the form as it is then."""


def answer_with(patches: Patches, service: str, answer: Callable[[Asked, Next], Awaitable[Reply]]) -> None:
    """Have `answer(asked, next)` answer the requests to `iam` or `sts`; an AwsError of it is written as AWS does."""
    module = _service(service)
    original = module.handle_request

    async def handle(method: str, path: str, headers: dict[str, str], body: bytes, query: Form) -> Reply:
        form: Form = {**query, **parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)}
        operation = str((form.get("Action") or [""])[0])
        asked = Asked(service, operation, form, _service("sts")._caller_identity(headers, query))

        async def after() -> Reply:
            # As a query: MiniStack itself drops what is empty in a body.
            reply: Reply = await original("GET", path, headers, b"", form)
            return reply

        try:
            if not operation:
                raise AwsError("InvalidAction", f"{service} takes its requests as a form with an Action")
            return await answer(asked, after)
        except AwsError as error:
            from xml.sax.saxutils import escape

            refused: Reply = _service("iam")._error(error.status, error.code, escape(error.message), ns=service)
            return refused

    patches.put(module, "handle_request", handle)


def answer(asked: Asked, inner: str) -> Reply:
    """An answer of ours, of which `inner` is the XML within its result."""
    name = asked.operation
    found: Reply = _service("iam")._xml(200, f"{name}Response", f"<{name}Result>{inner}</{name}Result>", asked.service)
    return found


def accounts_alone_are_root(patches: Patches) -> None:
    """Have a key be its account's own by its 12 digits only: MiniStack also takes the one in its environment for that.

    Whoever starts localcloud from a shell that has a user's key would be root with it, of the default account.
    """
    from ministack.core import iam_evaluator
    from ministack.services import sts

    for module in (iam_evaluator, sts):
        patches.put(module, "is_root_access_key", lambda key: len(key) == 12 and key.isascii() and key.isdigit())


STORES = {
    "user": "_users",
    "role": "_roles",
    "group": "_groups",
    "policy": "_policies",
    "instance profile": "_instance_profiles",
    "access key": "_access_keys",
    "login profile": "_login_profiles",
    "mfa device": "_mfa_devices",
    "policies of user": "_user_inline_policies",
    "policies of group": "_group_inline_policies",
}


def kept(kind: str) -> dict[str, Any]:
    """What the caller's account has of one of STORES, by name (policies: by ARN, access keys: by id)."""
    return dict(getattr(_service("iam"), STORES[kind]).items())


def role_of(account: str, name: str) -> Record | None:
    """A role of whichever account."""
    found: Record | None = _service("iam")._roles.get_scoped(account, None, name)
    return found


def policy(arn: str) -> Record | None:
    """A managed policy of the caller's account or of AWS."""
    found: Record | None = _service("iam")._lookup_policy(arn)
    return found


def add_managed_policy(resource: str, document: str, **more: Any) -> None:
    """Add a policy of AWS's, `service-role/NAME` for example; `more` are members of its record.

    MiniStack forgets it when it is reset.
    """
    iam = _service("iam")
    record: Record = iam._make_aws_managed_record(resource, document)
    version = more.get("DefaultVersionId", "v1")
    content = {**record["Versions"]["v1"], "VersionId": version, "CreateDate": more.get("UpdateDate", "")}
    iam._aws_managed_policies[record["Arn"]] = {**record, **more, "Versions": {version: content}}


def boundary_uses(arn: str) -> int:
    """How many users and roles of the account have a policy as their permissions boundary."""
    found: dict[str, int] = _service("iam")._boundary_usage_counts()
    return found.get(arn, 0)


def decide(context: Record, policies: list[str], *limits: list[str]) -> Decision:
    """What policies say of `{action, resource, principal, account, region, keys}`; each limit has to allow it, too."""
    from ministack.core import iam_evaluator as evaluator

    parsed = [[evaluator.parse_policy_document(document) for document in layer] for layer in (policies, *limits)]
    found: Decision = evaluator.evaluate(_context(context), *parsed).decision
    return found


def holds(conditions: Record, context: Record) -> bool:
    """Whether a statement's Condition holds for such a request."""
    from ministack.core import iam_evaluator as evaluator

    found: bool = evaluator._conditions_met(conditions, _context(context))
    return found


def matches(action: str, patterns: list[str]) -> bool:
    """Whether one of the patterns of a policy's Action names an action."""
    from ministack.core import iam_evaluator as evaluator

    return any(evaluator.fnmatch_iam(action, pattern) for pattern in patterns)


def _context(request: Record) -> Any:
    from ministack.core import iam_evaluator as evaluator

    arn = request["principal"]
    kind = "AssumedRole" if ":assumed-role/" in arn else "User" if ":user/" in arn else "Root"
    keys = {name.lower(): value for name, value in request["keys"].items()}
    return evaluator.EvalContext(
        principal_arn=arn,
        principal_type=request.get("kind", kind),
        principal_account=request["account"],
        action=request["action"],
        resource_arn=request["resource"],
        region=request["region"],
        service_context=keys,
    )


def _service(name: str) -> Any:
    from ministack.services import iam, sts

    return {"iam": iam, "sts": sts}[name]
