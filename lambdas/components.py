"""A shared base model and a LoRA adapter, as inference components (mode adapter). Runs in AWS Lambda, beside deploy.py.

    <endpoint>-base      the base model; scaling changes the number of its copies, to zero where that is the minimum
    <endpoint>-adapter   the adapter of the version in service; callers name it as InferenceComponentName

SageMaker sends no event when a component is ready, so `advance` makes the next step each time it is called: by the
endpoint's event, by the timer, and by `fmops ... --wait`.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from artifacts import DEGREE
from aws import Clients, Refused, describe_package, described, list_keys
from digests import check_digests
from documents import Component, ComponentSpecification, Deployment, Log, Package, Request, s3_parts
from ledger import Ledger, end_service, find_deployment, in_state, move
from plan import START_TIMEOUT_SECONDS, VARIANT, Environment, adapter_container, adapter_uri, optional, tags
from protection import put_alarms, put_scaling, remove_scaling

from common.machines import is_accelerated

MEMORY_MB = 1024
"""The least memory that a component asks for; the instance's memory is not shared with others here."""
FAILED = "failed: "


def base_name(endpoint: str) -> str:
    return f"{endpoint}-base"


def adapter_name(endpoint: str) -> str:
    return f"{endpoint}-adapter"


def advance(clients: Clients, ledger: Ledger, environment: Environment) -> str:
    """Make the next step towards the newest deployment; returns what is waited for, or nothing when all is done."""
    wanted = in_state(ledger.read(), "deploying", "in_service")
    if not wanted:
        return ""
    entry = wanted[-1]
    settings, endpoint = entry["settings"], ledger.endpoint
    base, adapter = base_name(endpoint), adapter_name(endpoint)
    package = describe_package(clients.sagemaker, entry["model_package_arn"])
    waiting = _put(
        clients.sagemaker, base, _base_specification(entry, package), _base_copies(entry, environment), ledger, entry
    )
    if waiting:
        return _report(ledger, entry, waiting)
    try:
        check_digests(clients.s3, package)
    except Refused as error:
        return _report(ledger, entry, FAILED + str(error))
    archive = adapter_archive(clients.s3, adapter_uri(package), environment["DEPLOYMENTS_URI"])
    specification: ComponentSpecification = {
        "BaseInferenceComponentName": base,
        "Container": {"ArtifactUrl": archive},
    }
    others = {"EndpointName": endpoint, **optional("Tags", tags(environment))}
    waiting = _put(clients.sagemaker, adapter, specification, others, ledger, entry)
    if waiting:
        return _report(ledger, entry, waiting)
    ledger.change(lambda log: _enter_service(log, entry["id"]))
    put_alarms(clients.cloudwatch, settings, adapter)
    put_scaling(clients, settings, base)
    return ""


def _base_specification(entry: Deployment, package: Package) -> ComponentSpecification:
    accelerated = is_accelerated(entry["settings"]["endpoint_instance_type"])
    share = "NumberOfAcceleratorDevicesRequired" if accelerated else "NumberOfCpuCoresRequired"
    # One copy of the model lies over as many GPUs as its server was set up for.
    devices = int(adapter_container(package).get("Environment", {}).get(DEGREE, "1")) if accelerated else 1
    return {
        "ModelName": entry["model_name"],
        "StartupParameters": {
            "ModelDataDownloadTimeoutInSeconds": START_TIMEOUT_SECONDS,
            "ContainerStartupHealthCheckTimeoutInSeconds": START_TIMEOUT_SECONDS,
        },
        "ComputeResourceRequirements": {"MinMemoryRequiredInMb": MEMORY_MB, share: devices},
    }


def _base_copies(entry: Deployment, environment: Environment) -> Request:
    settings = entry["settings"]
    return {
        "EndpointName": settings["endpoint_name"],
        "VariantName": VARIANT,
        # One copy to begin with, also where scaling may remove it later.
        "RuntimeConfig": {"CopyCount": max(1, settings["endpoint_instance_count"])},
        **optional("Tags", tags(environment)),
    }


def _put(
    sagemaker: Any, name: str, specification: ComponentSpecification, others: Request, ledger: Ledger, entry: Deployment
) -> str:
    """Create or update a component; returns what is waited for, "failed: ..." when it can't be, else nothing.

    An update that was asked for and did not last has failed: SageMaker keeps what served before.
    """
    found = describe_component(sagemaker, name)
    if found is None:
        try:
            sagemaker.create_inference_component(InferenceComponentName=name, Specification=specification, **others)
        except sagemaker.exceptions.ClientError:
            if describe_component(sagemaker, name) is None:
                raise
        return f"{name} is being created"
    status = found["InferenceComponentStatus"]
    if status in ("Creating", "Updating", "Deleting"):
        return f"{name} is {status}"
    reason = FAILED + (found.get("FailureReason") or f"{name} was rolled back by SageMaker")
    if _same(found["Specification"], specification):
        return reason if status == "Failed" else ""
    if name in entry.get("asked", ()):
        return reason
    if status == "Failed":
        sagemaker.delete_inference_component(InferenceComponentName=name)
        return f"{name} had failed and is being recreated"
    sagemaker.update_inference_component(InferenceComponentName=name, Specification=specification)

    def remember(log: Log) -> None:
        asked = find_deployment(log, entry["id"])
        if asked:
            asked["asked"] = [*asked.get("asked", []), name]

    ledger.change(remember)
    return f"{name} is being updated"


def _same(found: ComponentSpecification, wanted: ComponentSpecification) -> bool:
    if "BaseInferenceComponentName" in wanted:
        return found.get("Container", {}).get("ArtifactUrl") == wanted["Container"]["ArtifactUrl"]
    return found.get("ModelName") == wanted["ModelName"]


def _report(ledger: Ledger, entry: Deployment, waiting: str) -> str:
    """A component that failed ends its deployment; the previous one comes back with the next call."""
    if not waiting.startswith(FAILED):
        return waiting

    def apply(log: Log) -> None:
        found = find_deployment(log, entry["id"])
        if found and found["state"] == "deploying":
            move(found, "rolled_back", waiting.removeprefix(FAILED))

    log = ledger.change(apply)
    return f"rolling back: {waiting}" if in_state(log, "in_service") else ""


def _enter_service(log: Log, identity: str) -> None:
    serving = find_deployment(log, identity)
    for item in in_state(log, "deploying", "in_service"):
        if item is serving:
            item.pop("asked", None)  # when it comes back one day, it has to be asked for again
            if item["state"] != "in_service":
                move(item, "in_service", "")
        elif item["state"] == "in_service":
            end_service(item)


def describe_component(sagemaker: Any, name: str) -> Component | None:
    """DescribeInferenceComponent, or None where there is none."""
    found: Component | None = described(sagemaker.describe_inference_component, InferenceComponentName=name)
    return found


def delete_components(clients: Clients, endpoint: str) -> str:
    """Delete the endpoint's components, adapters first; returns what is waited for, nothing when there are none."""
    pages = clients.sagemaker.get_paginator("list_inference_components").paginate(EndpointNameEquals=endpoint)
    names = [item["InferenceComponentName"] for page in pages for item in page["InferenceComponents"]]
    found = [item for name in names if (item := describe_component(clients.sagemaker, name)) is not None]
    if not found:
        return ""
    adapters = [item for item in found if item["Specification"].get("BaseInferenceComponentName")]
    for item in adapters or found:
        name = item["InferenceComponentName"]
        if not adapters:
            remove_scaling(clients.autoscaling, endpoint, name)
        if item["InferenceComponentStatus"] in ("InService", "Failed"):
            _delete_component(clients.sagemaker, name)
    return f"{', '.join(sorted(names))} are being deleted"


def _delete_component(sagemaker: Any, name: str) -> None:
    """DeleteInferenceComponent, unless a twin of this call was faster."""
    try:
        sagemaker.delete_inference_component(InferenceComponentName=name)
    except sagemaker.exceptions.ClientError:
        left = describe_component(sagemaker, name)
        if left is not None and left["InferenceComponentStatus"] != "Deleting":
            raise


def adapter_archive(s3: Any, source: str, deployments: str) -> str:
    """The adapter's files as one tar.gz, which is what ArtifactUrl takes; made once, named by what is in it."""
    bucket, prefix = s3_parts(source)
    objects = {key: s3.head_object(Bucket=bucket, Key=key)["ETag"] for key in sorted(list_keys(s3, bucket, prefix))}
    digest = hashlib.sha256(repr(objects).encode()).hexdigest()[:16]
    target, folder = s3_parts(deployments)
    key = f"{folder}adapters/{digest}.tar.gz"
    if described(s3.head_object, Bucket=target, Key=key) is None:
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
