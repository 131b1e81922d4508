"""What all of Bedrock's resources share: ids, ARNs, tokens, tags, lists in pages, being found by name or by ARN."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from localcloud import paging, tokens
from localcloud.bedrock.problems import absent, invalid, problem
from localcloud.context import Context, Request
from localcloud.errors import AwsError
from localcloud.store import Document

_LETTERS = string.ascii_lowercase + string.digits
_PAGE = 100
TAGS = "bedrock-tags"
_MOST_TAGS = 50
"""Of one resource: botocore TooManyTagsException."""
TOKEN = "clientRequestToken"  # noqa: S105


@dataclass(frozen=True)
class Kind:
    """One kind of resource. A document is kept under its id of 12 letters and knows its own ARN and name."""

    kind: str
    """Of the store."""
    arn: str
    """The member that is its ARN."""
    name: str
    """The member that is its name."""
    noun: str
    created: str = "creationTime"
    taken: str = "ConflictException"
    """What a name or a token that is in use is answered with: not every Create knows ConflictException."""

    def create(self, ctx: Context, doc: Document, given: list[dict[str, str]] | None) -> None:
        """Keep a new document, with its tags; ConflictException where one has its name."""
        store = ctx.cloud.store
        with store.transaction():
            if any(kept[self.name] == doc[self.name] for kept in self.all(ctx)):
                raise self.name_taken(doc[self.name])
            store.create(self.kind, ctx.account, ctx.region, identifier(doc[self.arn]), doc)
            keep_tags(ctx, doc[self.arn], given)

    def name_taken(self, name: str) -> AwsError:
        return problem(self.taken, f"The {self.noun} name {name} is already in use in this account and region.")

    def all(self, ctx: Context) -> list[Document]:
        """Every document of the caller's account and region, oldest first."""
        return ctx.cloud.store.list(self.kind, ctx.account, ctx.region)

    def sought(self, ctx: Context, wanted: str) -> Document | None:
        """The document of a name or an ARN."""
        member = self.arn if wanted.startswith("arn:") else self.name
        return next((doc for doc in self.all(ctx) if doc[member] == wanted), None)

    def find(self, ctx: Context, wanted: str) -> Document:
        """The same; ResourceNotFoundException where there is none."""
        doc = self.sought(ctx, wanted)
        if doc is None:
            raise absent(f"Could not find a {self.noun} for {wanted}. Check its name or ARN and try again.")
        return doc

    def change(self, ctx: Context, doc: Document, change: Callable[[Document], None]) -> Document:
        """Change a document in place; ResourceNotFoundException when it has gone."""
        changed = ctx.cloud.store.update(self.kind, ctx.account, ctx.region, identifier(doc[self.arn]), change)
        if changed is None:
            raise absent(f"The {self.noun} {doc[self.name]} is no more.")
        return changed

    def delete(self, ctx: Context, doc: Document) -> None:
        with ctx.cloud.store.transaction():
            ctx.cloud.store.delete(self.kind, ctx.account, ctx.region, identifier(doc[self.arn]))
            ctx.cloud.store.delete(TAGS, ctx.account, ctx.region, doc[self.arn])

    def repeated(self, ctx: Context, request: Request) -> Document | None:
        """The document that the same request made before; refused when only its token is the same."""
        for doc in self.all(ctx):
            try:
                if tokens.repeats(doc.get("_asked"), request, TOKEN):
                    return doc
            except AwsError as error:
                raise problem(self.taken, error.message) from None
        return None


def new_id() -> str:
    """Twelve lower-case letters and digits, as in Bedrock's ARNs."""
    return "".join(secrets.choice(_LETTERS) for _ in range(12))


def identifier(arn: str) -> str:
    """The id at the end of an ARN."""
    return arn.rpartition("/")[2]


def asked(request: Request) -> Document:
    """What to keep of a request under `_asked`."""
    return tokens.asked(request, TOKEN)


def tags_of(ctx: Context, arn: str) -> dict[str, str]:
    """A resource's tags."""
    doc = ctx.cloud.store.get(TAGS, ctx.account, ctx.region, arn) or {}
    return dict(doc.get("tags") or {})


def check_tags(arn: str, *lists: list[dict[str, str]] | None, kept: dict[str, str] | None = None) -> None:
    """TooManyTagsException and ValidationException for what can't be kept beside the tags that are there."""
    for given in lists:
        keys = [tag["key"] for tag in given or ()]
        if len(set(keys)) < len(keys):
            raise invalid("Two tags have the same key.")
        if any(key.lower().startswith("aws:") for key in keys):
            raise invalid("Tag keys that begin with aws: are reserved.")
        count = len(set(keys) | set(kept or ()))
        if count > _MOST_TAGS:
            text = f"The resource would have {count} tags; it can have {_MOST_TAGS}."
            raise problem("TooManyTagsException", text, resourceName=arn)


def keep_tags(ctx: Context, arn: str, given: list[dict[str, str]] | None) -> None:
    """Add tags to a resource; a key that is there gets the new value."""
    with ctx.cloud.store.transaction():
        kept = tags_of(ctx, arn)
        check_tags(arn, given, kept=kept)
        if given:
            kept |= {tag["key"]: tag["value"] for tag in given}
            ctx.cloud.store.put(TAGS, ctx.account, ctx.region, arn, {"tags": kept})


def remove_tags(ctx: Context, arn: str, keys: list[str]) -> None:
    """Take tags from a resource; keys that it doesn't have change nothing."""
    with ctx.cloud.store.transaction():
        kept = {key: value for key, value in tags_of(ctx, arn).items() if key not in keys}
        ctx.cloud.store.put(TAGS, ctx.account, ctx.region, arn, {"tags": kept})


def listed(
    docs: list[Document],
    request: Request,
    key: str,
    summary: Callable[[Document], Document],
    kind: Kind,
    *,
    times: tuple[str, str] = ("creationTimeAfter", "creationTimeBefore"),
    equals: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A List operation's answer. `equals` maps members of the request to those of the documents.

    Newest first where the request names no order: which one AWS takes isn't published.
    """
    after, before = request.get(times[0]), request.get(times[1])
    part = str(request.get("nameContains") or "").lower()
    found = [
        doc
        for doc in docs
        if (after is None or doc[kind.created] > after)
        and (before is None or doc[kind.created] < before)
        and part in doc[kind.name].lower()
        and all(request.get(asked) in (None, doc.get(member)) for asked, member in (equals or {}).items())
    ]
    if request.get("sortOrder", "Descending") == "Descending":
        found.reverse()
    mark = paging.mark({name: value for name, value in request.items() if name not in ("nextToken", "maxResults")})
    start = paging.offset(request["nextToken"], mark) if request.get("nextToken") else 0
    if start is None:
        raise invalid("The nextToken does not belong to this request.")
    end = start + int(request.get("maxResults") or _PAGE)
    answer: dict[str, Any] = {key: [summary(doc) for doc in found[start:end]]}
    if end < len(found):
        answer["nextToken"] = paging.token(end, mark)
    return answer


def check_quota(count: int, most: int, what: str) -> None:
    """ServiceQuotaExceededException where there are as many already as a new account may have."""
    if count >= most:
        raise problem("ServiceQuotaExceededException", f"This account has {count} {what}; its quota is {most}.")


def due(ctx: Context, seconds: float) -> float:
    """The moment at which something that takes so many seconds of AWS's is done here."""
    return time.time() + ctx.cloud.clock.real(seconds)


def check_role(ctx: Context, role: str) -> None:
    """ValidationException for a role that doesn't let Bedrock in; one that isn't in IAM is let by, as for jobs."""
    if ctx.cloud.delegate.lets_in(role, "bedrock.amazonaws.com") is False:
        raise invalid(
            f"Could not assume the IAM role {role}. Its trust policy has to let bedrock.amazonaws.com assume it."
        )
