"""Pins what a reviewer judged: the digests of a version's archive, adapter, base model, image and settings.

Runs in AWS Lambda, beside card.py, which records them when the version is registered, and beside deploy.py, which
compares them before every deployment, also from a queue and on the way back. Who may write to the artifacts' bucket
can so no longer change what an approval puts into service.

S3 keeps no SHA-256 of what a training job uploads, and an archive is too large to be read here. An object's ETag
changes with its content, and its version id with every write, so these are compared, with the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws import Refused, described, stored
from documents import Package, digest_of, s3_parts, version_of
from plan import adapter_uri

MODEL, ADAPTER, BASE, IMAGE, CONTAINER = (
    "digest_model",
    "digest_adapter",
    "digest_base",
    "digest_image",
    "digest_container",
)
NAMES = {
    MODEL: "its model archive",
    ADAPTER: "its adapter",
    BASE: "its base model",
    IMAGE: "its container image",
    CONTAINER: "its container's settings",
}
"""The metadata that holds them, and what people read."""
DESCRIBED = ("Image", "ModelDataUrl", "Environment")


def digests(s3: Any, package: Package, adapter: str = "") -> dict[str, str]:
    """The digest of everything that a version deploys; what is not there has none.

    `adapter` is where the adapter lies while the package doesn't name it yet.
    """
    containers = package.get("InferenceSpecification", {}).get("Containers", [])
    container: Mapping[str, Any] = containers[0] if containers else {}
    found = {
        MODEL: _object(s3, str(container.get("ModelDataUrl", ""))),
        ADAPTER: _prefix(s3, adapter or _adapter(package)),
        BASE: _prefix(s3, package.get("CustomerMetadataProperties", {}).get("base_model", "")),
        IMAGE: str(container.get("ImageDigest", "")),
        CONTAINER: f"sha256:{digest_of({key: container[key] for key in DESCRIBED if container.get(key)})}",
    }
    return {name: value for name, value in found.items() if value}


def check_digests(s3: Any, package: Package) -> None:
    """Refused when anything that the version deploys is not what was registered."""
    metadata = package.get("CustomerMetadataProperties", {})
    version = f"Version {version_of(package['ModelPackageArn'])}"
    recorded = {name: metadata[name] for name in NAMES if metadata.get(name)}
    if CONTAINER not in recorded:
        raise Refused(
            f"{version} can't be deployed: no digests were recorded when it was registered, so nothing shows that it "
            "is what was reviewed. Register it with the pipeline: fmops start"
        )
    now = digests(s3, package)
    # What has a digest now must have had one: else it was added, or its record was taken away. SageMaker itself may
    # write the image's digest down later.
    compared = [name for name in NAMES if name in recorded or (name in now and name != IMAGE)]
    for name in compared:
        if now.get(name) != recorded.get(name):
            change = "was changed after the registration" if name in now else "is gone"
            raise Refused(
                f"{version} can't be deployed: {NAMES[name]} {change}. Registered {recorded.get(name, 'nothing')}, "
                f"found {now.get(name, 'nothing')}. Find out who wrote it, then train and review again: fmops start"
            )


def _adapter(package: Package) -> str:
    try:
        return adapter_uri(package)
    except ValueError:  # registered without one
        return ""


def _object(s3: Any, uri: str) -> str:
    if not uri.startswith("s3://"):
        return ""
    bucket, key = s3_parts(uri)
    found = described(s3.head_object, Bucket=bucket, Key=key)
    if found is None:
        return ""
    version = found.get("VersionId")
    tag = str(found["ETag"]).strip('"')
    parts = [f"etag:{tag}", f"bytes:{found['ContentLength']}", *([f"version:{version}"] if version else [])]
    return " ".join(parts)


def _prefix(s3: Any, uri: str) -> str:
    """One digest of all objects under a prefix: their names, ETags and sizes."""
    if not uri.startswith("s3://"):
        return ""
    content = stored(s3, uri if uri.endswith("/") else f"{uri}/")
    return f"sha256:{digest_of(content)}" if content else ""
