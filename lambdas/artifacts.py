"""Runs in AWS Lambda, beside deploy.py: looks at what a package deploys before anything is created.

So the reason is said early, once, and without a machine that was started for nothing.
"""

from __future__ import annotations

from typing import Any

from endpoints import Refused
from plan import ACCELERATED, adapter_uri


def check_artifact(s3: Any, package: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refused when the model's archive, or the adapter's files, are not in S3, or the machine can't run the server."""
    containers = (package.get("InferenceSpecification") or {}).get("Containers") or []
    machine = settings["endpoint_instance_type"]
    if any("/djl-inference:" in item.get("Image", "") for item in containers) and not ACCELERATED.match(machine):
        raise Refused(
            f"{_version(package)} can't be deployed on {machine}: its server is the LMI image, which needs a GPU."
        )
    if settings["endpoint_mode"] == "adapter":
        names = {key.rsplit("/", 1)[-1] for key in list_keys(s3, adapter_uri(package))}
        for needed in ("adapter_config.json", "adapter_model.safetensors"):
            if needed not in names:
                raise Refused(f"{_version(package)} can't be deployed: {needed} is not in {adapter_uri(package)}.")
        return
    for container in containers:
        if container.get("ModelDataUrl"):
            _check_object(s3, package, container["ModelDataUrl"])


def _check_object(s3: Any, package: dict[str, Any], uri: str) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        size = s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
    except s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NoSuchBucket"):
            raise Refused(f"{_version(package)} can't be deployed: its model archive {uri} does not exist.") from None
        raise
    if not size:
        raise Refused(f"{_version(package)} can't be deployed: its model archive {uri} is empty.")
    with s3.get_object(Bucket=bucket, Key=key, Range="bytes=0-1")["Body"] as body:
        if body.read() != b"\x1f\x8b":
            raise Refused(f"{_version(package)} can't be deployed: {uri} is not a gzip archive, it is damaged.")


def list_keys(s3: Any, uri: str) -> list[str]:
    """The keys under an S3 prefix."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def _version(package: dict[str, Any]) -> str:
    return f"Version {package['ModelPackageArn'].rsplit('/', 1)[-1]}"
