"""AWS on this machine: one loopback process that answers boto3, the AWS CLI and the SageMaker SDK.

`python -m localcloud --home DIR --port N` runs it; `localcloud.control` starts and stops it in the background;
`LocalCloud(home)` runs it inside this process, for tests:

    with LocalCloud(home) as cloud:
        boto3.client("sagemaker", endpoint_url=cloud.url, ...)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localcloud.server import LocalCloud as LocalCloud

__all__ = ["LocalCloud"]


def __getattr__(name: str) -> Any:
    # The server brings the emulator along; whoever only wants `localcloud.control` must not pay for it.
    if name == "LocalCloud":
        from localcloud.server import LocalCloud

        return LocalCloud
    raise AttributeError(f"module 'localcloud' has no attribute {name!r}")
