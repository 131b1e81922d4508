"""Whose work MiniStack is doing: the account and region that its stores are read and written in."""

from __future__ import annotations

from contextlib import AbstractContextManager

DEFAULT_ACCOUNT = "000000000000"
DEFAULT_REGION = "us-east-1"


def scoped(account: str, region: str) -> AbstractContextManager[None]:
    """`with scoped(account, region):` does what that caller asks for."""
    from ministack.core.responses import request_scope

    found: AbstractContextManager[None] = request_scope(account, region)
    return found


def here() -> tuple[str, str]:
    """The account and region of the work under way."""
    from ministack.core.responses import get_account_id, get_region

    return get_account_id(), get_region()


def account_of(access_key: str) -> str:
    """The account that an access key belongs to: 12 digits are the account, a session key is its role's."""
    from ministack.core.responses import get_account_id, set_request_account_id

    with scoped(DEFAULT_ACCOUNT, DEFAULT_REGION):
        set_request_account_id(access_key)
        account: str = get_account_id()
    return account
