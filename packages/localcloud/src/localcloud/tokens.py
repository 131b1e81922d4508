"""Idempotency tokens: a request that is sent again gets the answer of the first, another one with its token none."""

from __future__ import annotations

import hashlib
import json

from localcloud.context import Request
from localcloud.errors import AwsError
from localcloud.store import Document


def asked(request: Request, member: str) -> Document:
    """What to keep of a request, to know it again by: `member` is its token's name."""
    rest = {key: value for key, value in request.items() if key != member}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return {"token": request.get(member), "request": digest}


def repeats(kept: Document | None, request: Request, member: str) -> bool:
    """Whether a request is the one that was kept, sent again; AwsError ConflictException when only its token is.

    What SageMaker answers to the second isn't published: botocore's models list ConflictException.
    """
    token = request.get(member)
    if not kept or token is None or kept["token"] != token:
        return False
    if kept != asked(request, member):
        raise AwsError("ConflictException", f"{member} was used before with another request.")
    return True
