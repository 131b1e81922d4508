"""The Resource Groups Tagging API knows SageMaker's resources too, from localcloud's own store of tags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from localcloud import tags
from localcloud.context import Cloud, Context
from localcloud.errors import AwsError
from localcloud.hooks import scope, tagged
from localcloud.hooks.patches import Patches
from localcloud.protocol import call


def install(cloud: Cloud, patches: Patches) -> None:
    """List them, and tag them by AddTags and DeleteTags."""

    def here() -> Context:
        return Context(*scope.here(), cloud)

    def listed() -> Iterator[tuple[str, list[dict[str, str]]]]:
        yield from tags.all_of(here())

    def write(arn: str, values: dict[str, str]) -> None:
        new = [{"Key": key, "Value": value} for key, value in values.items()]
        call(here(), "sagemaker", "AddTags", {"ResourceArn": arn, "Tags": new})

    def remove(arn: str, keys: list[str]) -> None:
        call(here(), "sagemaker", "DeleteTags", {"ResourceArn": arn, "TagKeys": keys})

    tagged.add(patches, "sagemaker", listed, write, remove)


def get_resources(request: dict[str, Any]) -> None:
    """AwsError when resources are asked for by type of which nothing is known: an empty list would be a lie."""
    for kind in request.get("ResourceTypeFilters") or []:
        service = kind.partition(":")[0]
        if service not in tagged.services():
            what = f"localcloud does not implement tagging:GetResources with resources of {service}"
            raise AwsError("NotImplemented", what, 501)
