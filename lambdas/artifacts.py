"""Looks at what a package deploys before anything is created. Runs in AWS Lambda, beside deploy.py.

So the reason is said early, once, and without a machine that was started for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws import Refused, described, list_keys
from documents import Package, Settings, machines, s3_parts, version_of
from plan import adapter_uri

from common.machines import emulates_bf16, gpu_count, is_accelerated, is_gpu

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
DEGREE, DTYPE = "OPTION_TENSOR_PARALLEL_DEGREE", "OPTION_DTYPE"
GZIP_MAGIC = b"\x1f\x8b"


def check_artifact(s3: Any, package: Package, settings: Settings) -> None:
    """Refused when the model's archive, or the adapter's files, are not in S3, or the machine can't run the server."""
    version = f"Version {version_of(package['ModelPackageArn'])}"
    containers = package.get("InferenceSpecification", {}).get("Containers", [])
    lmi = [item for item in containers if "/djl-inference:" in item.get("Image", "")]
    for machine in machines(settings):
        if lmi and not is_accelerated(machine):
            raise Refused(f"{version} can't be deployed on {machine}: its server is the LMI image, which needs a GPU.")
    problem = contradiction(lmi[0].get("Environment", {}), settings, package) if lmi else ""
    if problem:
        raise Refused(f"{version} can't be deployed: {problem}. Set it in pipeline.yaml, upsert and train: fmops start")
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


def contradiction(server: Mapping[str, str], settings: Settings, package: Package) -> str:
    """What the server's settings, written at the registration, say against this deployment; empty: nothing."""
    degree = int(server.get(DEGREE, "1"))
    for machine in machines(settings):
        if is_gpu(machine) and gpu_count(machine) != degree:
            return f"its server was set up for {degree} GPUs ({DEGREE}), and {machine} has {gpu_count(machine)}"
        if server.get(DTYPE) == "bf16" and emulates_bf16(machine):
            return f"its server was set up to compute in bf16 ({DTYPE}), which {machine} has not"
    if settings["endpoint_mode"] == "serverless":
        return "its server needs a GPU, and serverless endpoints have none"
    if settings["endpoint_mode"] != "adapter":
        return ""
    if server.get("OPTION_ENABLE_LORA") != "true":
        return "its server was set up without adapters (OPTION_ENABLE_LORA), so endpoint_mode can't be adapter"
    rank = package.get("CustomerMetadataProperties", {}).get("training_lora_rank", "0")
    largest = server.get("OPTION_MAX_LORA_RANK", "16")
    if int(rank) > int(largest):
        return f"its adapter has rank {rank}, and its server takes {largest} at most (OPTION_MAX_LORA_RANK)"
    return ""


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
