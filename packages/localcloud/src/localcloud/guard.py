"""Which requests don't come from an AWS client of this machine: refused before anything of them is looked at.

A browser runs other people's pages. It can send simple requests anywhere (cross-site request forgery), and a page whose
name resolves to 127.0.0.1 may read the answers (DNS rebinding). It says so itself in Origin, Sec-Fetch-Site and Host;
no AWS client sends the first two.
"""

from __future__ import annotations

import re
from typing import Any

from localcloud.errors import AwsError

_HOST = re.compile(r"(127\.0\.0\.1|\[::1\]|([a-z0-9_.-]+\.)?localhost)(:[0-9]{1,5})?", re.IGNORECASE)
_ADMIN = frozenset({"_ministack", "_localstack", "_localcloud", "_aws", "_alb", "_kube", "health"})
"""First segments of paths by which the emulator behind us is run, and data reached around its services."""
_FETCHED_BY = frozenset({"none", "same-origin"})


def check(scope: dict[str, Any], headers: list[tuple[str, str]]) -> None:
    """AwsError 403 for a request that a web page may have caused, or that goes to another name than this machine's."""
    hosts = [value for name, value in headers if name == "host"]
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise _denied("localcloud answers as 127.0.0.1, [::1], localhost and *.localhost alone: use its endpoint URL")
    if any(name == "origin" for name, _ in headers):
        raise _denied("localcloud answers no pages in a browser (the request has an Origin)")
    if any(name == "sec-fetch-site" and value.strip().lower() not in _FETCHED_BY for name, value in headers):
        raise _denied("localcloud answers no pages in a browser (Sec-Fetch-Site says that another site asks)")
    if scope["method"].upper() in ("OPTIONS", "TRACE", "CONNECT"):
        raise _denied(f"localcloud answers no {scope['method']} requests")
    if b"#" in scope.get("raw_path", b"") + scope.get("query_string", b""):
        raise AwsError("InvalidURI", "A request target has no fragment (#)")


def is_admin(path: str) -> bool:
    """Whether a path is the emulator's own, by its first segment as a whole: a bucket may be called health-data."""
    return next((part for part in path.split("/") if part not in ("", ".", "..")), "").lower() in _ADMIN


def not_available(path: str) -> AwsError:
    return _denied(f"{path} is not available in localcloud")


def _denied(reason: str) -> AwsError:
    return AwsError("AccessDenied", reason, 403)
