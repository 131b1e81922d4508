"""IAM's roles, as the services look at them that assume them; in the scope of the caller."""

from __future__ import annotations

import json
from typing import Any


def trust_of(name: str) -> Any:
    """A role's trust policy; None when there is no such role."""
    from ministack.services import iam

    role = iam._roles.get(name)
    if role is None:
        return None
    document = role.get("AssumeRolePolicyDocument") or "{}"
    return json.loads(document) if isinstance(document, str) else document
