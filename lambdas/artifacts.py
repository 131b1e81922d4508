"""Looks at what a package deploys before anything is created. Runs in AWS Lambda, beside deploy.py.

So the reason is said early, once, and without a machine that was started for nothing.
"""

from __future__ import annotations

from typing import Any

from aws import Refused, described, list_keys
from documents import Package, Settings, s3_parts, version_of
from plan import ACCELERATED, adapter_uri

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
GZIP_MAGIC = b"\x1f\x8b"


def check_artifact(s3: Any, package: Package, settings: Settings) -> None:
    """Refused when the model's archive, or the adapter's files, are not in S3, or the machine can't run the server."""
    version = f"Version {version_of(package['ModelPackageArn'])}"
    containers = package.get("InferenceSpecification", {}).get("Containers", [])
    machine = settings["endpoint_instance_type"]
    if any("/djl-inference:" in item.get("Image", "") for item in containers) and not ACCELERATED.match(machine):
        raise Refused(f"{version} can't be deployed on {machine}: its server is the LMI image, which needs a GPU.")
    if settings["endpoint_mode"] == "adapter":
        uri = adapter_uri(package)
        names = {key.rsplit("/", 1)[-1] for key in list_keys(s3, *s3_parts(uri))}
        for needed in ADAPTER_FILES:
            if needed not in names:
                raise Refused(f"{version} can't be deployed: {needed} is not in {uri}.")
        return
    for container in containers:
        if container.get("ModelDataUrl"):
            _check_archive(s3, version, container["ModelDataUrl"])


def _check_archive(s3: Any, version: str, uri: str) -> None:
    bucket, key = s3_parts(uri)
    found = described(s3.head_object, Bucket=bucket, Key=key)
    if found is None:
        raise Refused(f"{version} can't be deployed: its model archive {uri} does not exist.")
    if not found["ContentLength"]:
        raise Refused(f"{version} can't be deployed: its model archive {uri} is empty.")
    with s3.get_object(Bucket=bucket, Key=key, Range="bytes=0-1")["Body"] as body:
        if body.read() != GZIP_MAGIC:
            raise Refused(f"{version} can't be deployed: {uri} is not a gzip archive, it is damaged.")
