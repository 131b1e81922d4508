"""Runs in AWS Lambda, beside deploy.py: a shared base model and a LoRA adapter, as inference components (mode adapter).

    <endpoint>-base      the base model; scaling changes the number of its copies, down to none where the minimum is 0
    <endpoint>-adapter   the adapter of the version that serves; callers name it as InferenceComponentName

SageMaker sends no event when a component is ready, so `settle` makes the next step each time it is called: by the
endpoint's event, by the timer, and by `fmops ... --wait`.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import ledger as log
from artifacts import list_keys
from endpoints import describe_package
from plan import ACCELERATED, START_TIMEOUT_SECONDS, VARIANT, adapter_uri, optional, tags
from protection import put_alarms, put_scaling, remove_scaling

MEMORY_MB = 1024
"""The least memory that a component asks for; the instance's memory is not shared with others here."""


def base_name(endpoint: str) -> str:
    return f"{endpoint}-base"


def adapter_name(endpoint: str) -> str:
    return f"{endpoint}-adapter"


def settle(clients: Any, ledger: log.Ledger, environment: dict[str, str]) -> str:
    """Make the next step towards the newest deployment; returns what is waited for, or nothing when all is done."""
    wanted = log.in_state(ledger.read(), "deploying", "in_service")
    if not wanted:
        return ""
    entry = wanted[-1]
    settings, endpoint = entry["settings"], ledger.endpoint
    package = describe_package(clients.sagemaker, entry["model_package_arn"])
    waiting = _put(clients.sagemaker, _base_request(entry, environment), ledger, entry)
    if waiting:
        return _report(ledger, entry, waiting)
    archive = adapter_archive(clients.s3, adapter_uri(package), environment["DEPLOYMENTS_URI"])
    request = {
        "InferenceComponentName": adapter_name(endpoint),
        "Specification": {
            "BaseInferenceComponentName": base_name(endpoint),
            "Container": {"ArtifactUrl": archive},
        },
    }
    request |= {"EndpointName": endpoint, **optional("Tags", tags(environment))}
    waiting = _put(clients.sagemaker, request, ledger, entry)
    if waiting:
        return _report(ledger, entry, waiting)
    ledger.change(lambda document: _in_service(document, entry["id"]))
    put_alarms(clients.cloudwatch, settings, adapter_name(endpoint))
    put_scaling(clients, settings, base_name(endpoint))
    return ""


def _base_request(entry: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    settings = entry["settings"]
    share = (
        "NumberOfAcceleratorDevicesRequired"
        if ACCELERATED.match(settings["endpoint_instance_type"])
        else "NumberOfCpuCoresRequired"
    )
    return {
        "InferenceComponentName": base_name(settings["endpoint_name"]),
        "EndpointName": settings["endpoint_name"],
        "VariantName": VARIANT,
        "Specification": {
            "ModelName": entry["model_name"],
            "StartupParameters": {
                "ModelDataDownloadTimeoutInSeconds": START_TIMEOUT_SECONDS,
                "ContainerStartupHealthCheckTimeoutInSeconds": START_TIMEOUT_SECONDS,
            },
            "ComputeResourceRequirements": {"MinMemoryRequiredInMb": MEMORY_MB, share: 1},
        },
        # One copy to begin with, also where scaling may take it away later.
        "RuntimeConfig": {"CopyCount": max(1, settings["endpoint_instance_count"])},
        **optional("Tags", tags(environment)),
    }


def _put(sagemaker: Any, request: dict[str, Any], ledger: log.Ledger, entry: dict[str, Any]) -> str:
    """Create or update a component; returns what is waited for, "failed: ..." when it can't be, else nothing.

    An update that was asked for and did not last has failed: SageMaker keeps what served before.
    """
    name = request["InferenceComponentName"]
    found = find(sagemaker, name)
    if found is None:
        try:
            sagemaker.create_inference_component(**request)
        except sagemaker.exceptions.ClientError:
            if find(sagemaker, name) is None:
                raise
        return f"{name} is being created"
    status = found["InferenceComponentStatus"]
    if status in ("Creating", "Updating", "Deleting"):
        return f"{name} is {status}"
    reason = f"failed: {found.get('FailureReason') or f'{name} went back to what it was'}"
    if _same(found["Specification"], request["Specification"]):
        return reason if status == "Failed" else ""
    if name in entry.get("asked", ()):
        return reason
    if status == "Failed":
        sagemaker.delete_inference_component(InferenceComponentName=name)
        return f"{name} had failed and is made anew"
    sagemaker.update_inference_component(InferenceComponentName=name, Specification=request["Specification"])

    def remember(document: log.Document) -> None:
        asked = log.find(document, entry["id"])
        if asked:
            asked["asked"] = [*asked.get("asked", []), name]

    ledger.change(remember)
    return f"{name} is being updated"


def _same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    if "BaseInferenceComponentName" in wanted:
        return bool(found.get("Container", {}).get("ArtifactUrl") == wanted["Container"]["ArtifactUrl"])
    return bool(found.get("ModelName") == wanted["ModelName"])


def _report(ledger: log.Ledger, entry: dict[str, Any], waiting: str) -> str:
    """A component that failed ends its deployment; the one before comes back with the next call."""
    if not waiting.startswith("failed: "):
        return waiting

    def apply(document: log.Document) -> None:
        found = log.find(document, entry["id"])
        if found and found["state"] == "deploying":
            found.update(state="rolled_back", reason=waiting.removeprefix("failed: ")[:1000], changed=log.now())

    document = ledger.change(apply)
    return f"going back: {waiting}" if log.in_state(document, "in_service") else ""


def _in_service(document: log.Document, identity: str) -> None:
    serving = log.find(document, identity)
    for item in log.in_state(document, "deploying", "in_service"):
        if item is serving:
            item.pop("asked", None)  # when it comes back one day, it has to be asked for again
            if item["state"] != "in_service":
                item.update(state="in_service", reason="", changed=log.now())
        elif item["state"] == "in_service":
            reason = item.pop("leaving", "")
            item.update(state="rolled_back" if reason else "replaced", reason=reason, changed=log.now())


def find(sagemaker: Any, name: str) -> dict[str, Any] | None:
    """DescribeInferenceComponent, or None where there is none."""
    try:
        found: dict[str, Any] = sagemaker.describe_inference_component(InferenceComponentName=name)
    except sagemaker.exceptions.ClientError as error:
        if "Could not find" in error.response["Error"].get("Message", ""):
            return None
        raise
    return found


def delete(clients: Any, endpoint: str) -> str:
    """Delete the endpoint's components, adapters first; returns what is waited for, nothing when there are none."""
    pages = clients.sagemaker.get_paginator("list_inference_components").paginate(EndpointNameEquals=endpoint)
    names = [item["InferenceComponentName"] for page in pages for item in page["InferenceComponents"]]
    found = [item for name in names if (item := find(clients.sagemaker, name)) is not None]
    if not found:
        return ""
    adapters = [item for item in found if item["Specification"].get("BaseInferenceComponentName")]
    for item in adapters or found:
        name = item["InferenceComponentName"]
        if not adapters:
            remove_scaling(clients.autoscaling, endpoint, name)
        if item["InferenceComponentStatus"] in ("InService", "Failed"):
            clients.sagemaker.delete_inference_component(InferenceComponentName=name)
    return f"{', '.join(sorted(names))} are being deleted"


def adapter_archive(s3: Any, source: str, deployments: str) -> str:
    """The adapter's files as one tar.gz, which is what ArtifactUrl takes; made once, named by what is in it."""
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    objects = {key: s3.head_object(Bucket=bucket, Key=key)["ETag"] for key in sorted(list_keys(s3, source))}
    digest = hashlib.sha256(repr(objects).encode()).hexdigest()[:16]
    target, _, folder = deployments.removeprefix("s3://").partition("/")
    key = f"{folder}adapters/{digest}.tar.gz"
    try:
        s3.head_object(Bucket=target, Key=key)
    except s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
            raise
        _write_archive(s3, bucket, prefix, list(objects), target, key)
    return f"s3://{target}/{key}"


def _write_archive(s3: Any, bucket: str, prefix: str, keys: list[str], target: str, key: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "adapter.tar.gz"
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            for name in keys:
                file = Path(scratch) / "file"
                s3.download_file(bucket, name, str(file))
                archive.add(file, arcname=name.removeprefix(prefix).lstrip("/"), filter=_plain)
        s3.upload_file(str(path), target, key)


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.mtime = info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o644
    return info
