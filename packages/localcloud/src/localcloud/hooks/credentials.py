"""Access keys that MiniStack keeps: those of IAM users, and the temporary ones of STS; links that need no other key."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from localcloud.hooks import states
from localcloud.hooks.patches import Patches

_SESSIONS = "sts_sessions"
Found = tuple[str, str, str]
"""(secret, account, session token or "")"""


class Expired(Exception):
    """The temporary key was good once."""


def find(access_key: str) -> Found | None:
    """A key that IAM or STS gave out and that is active; Expired. On MiniStack's event loop."""
    from ministack.services import iam, sts

    session = sts._sessions.get(access_key)
    if session is not None:
        ends = session.get("Expiration")
        if isinstance(ends, int | float) and time.time() > ends:
            raise Expired
        account = session.get("AccountId") or str(session.get("Arn", "::::")).split(":")[4]
        return str(session["SecretAccessKey"]), str(account), str(session.get("SessionToken") or "")
    for (account, key), record in iam._access_keys.to_dict().items():
        if key == access_key and record.get("Status") == "Active":
            return str(record["SecretAccessKey"]), str(account), ""
    return None


def register(access_key: str, secret: str, token: str, account: str, arn: str) -> None:
    """Let STS and whoever asks it know a temporary key that was made elsewhere. On MiniStack's event loop."""
    from ministack.services import sts

    if access_key not in sts._sessions:
        name = arn.rpartition("/")[2]
        session = {"Arn": arn, "UserId": f"AROA{access_key[4:]}:{name}", "SecretAccessKey": secret}
        more = {"SessionToken": token, "AccountId": account, "PrincipalType": "AssumedRole"}
        sts.register_session(access_key, {**session, **more})


def keep_sessions(patches: Patches) -> None:
    """Have temporary keys outlive a restart, as they do on AWS: MiniStack itself forgets them."""
    from ministack.services import sts

    sts._sessions.update(states.load(_SESSIONS) or {})
    original = sts.register_session

    def kept(access_key: str, session: dict[str, Any]) -> None:
        original(access_key, session)
        states.save(_SESSIONS, sts._sessions)

    patches.put(sts, "register_session", kept)


def accounts_of_users(patches: Patches) -> None:
    """Have a user's key act in the user's account: MiniStack itself takes the default one."""
    from ministack.core import iam_evaluator, responses

    original = responses._account_from_sts_session

    def account(access_key_id: str) -> str | None:
        found: str | None = original(access_key_id) or iam_evaluator.find_iam_access_key_account(access_key_id)
        return found

    patches.put(responses, "_account_from_sts_session", account)


def sign_links(patches: Patches, signed: Callable[[str], str]) -> None:
    """Have the links to functions' and layers' code go through `signed(url)`, so that nobody makes one up."""
    from ministack.services import lambda_svc

    for name in ("_presigned_code_url", "_layer_content_url"):
        patches.put(lambda_svc, name, _signing(getattr(lambda_svc, name), signed))


def _signing(make: Any, signed: Callable[[str], str]) -> Callable[..., str]:
    return lambda *arguments: signed(make(*arguments))
