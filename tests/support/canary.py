"""Versions that a canary has to catch: copies of a registered one whose inference code raises, or takes seconds."""

from __future__ import annotations

import io
import tarfile
import time
from typing import TYPE_CHECKING

from tests.lambdas.support import load

if TYPE_CHECKING:
    from tests.e2e.conftest import House

CLOCK_SPEED = 6
"""localcloud's: alarms look at whole minutes, which last ten seconds here."""
BAD_WAIT_SECONDS = 240
"""How long the canary of a spoiled version would serve its share, if no alarm rolled it back."""
ENDPOINT = f"""endpoint:
  instance_type: ml.m5.large
  scaling: {{maximum: 1}}
  rollout: {{traffic: canary, step_percent: 10, wait_seconds: {BAD_WAIT_SECONDS}, keep_seconds: 30}}
  alarms: {{error_rate: 0.01, latency_seconds: 1.5}}
  network_isolation: true
"""
BODY = {"inputs": "turn on the kitchen light", "parameters": {"max_new_tokens": 2}}
GROUP = "arn:aws:sagemaker:us-east-1:111122223333:model-package/fmops-models"

# What breaks a version: its own inference code, with something at its end.
BROKEN = "\n\ndef predict_fn(data, model):\n    raise RuntimeError('this version is broken')\n"
SLOW = """
import time as _time
_predict = predict_fn
def predict_fn(data, model):
    _time.sleep(3)
    return _predict(data, model)
"""


def spoil(house: House, version: int, extra: str) -> int:
    """Register a copy of a version whose inference code has `extra` at its end; returns its number."""
    sagemaker, s3 = house.client("sagemaker"), house.client("s3")
    package = sagemaker.describe_model_package(ModelPackageName=f"{GROUP}/{version}")
    container = package["InferenceSpecification"]["Containers"][0]
    bucket, _, key = container["ModelDataUrl"].removeprefix("s3://").partition("/")
    archive = _spoiled(s3.get_object(Bucket=bucket, Key=key)["Body"].read(), extra)
    key = f"training/spoiled-{time.time_ns()}/output/model.tar.gz"
    s3.put_object(Bucket=bucket, Key=key, Body=archive)
    kept = {name: value for name, value in container.items() if name != "ModelDataETag"}
    created = sagemaker.create_model_package(
        ModelPackageGroupName="fmops-models",
        ModelApprovalStatus="PendingManualApproval",
        CustomerMetadataProperties={
            **{
                name: value
                for name, value in package["CustomerMetadataProperties"].items()
                if not name.startswith("digest_")
            },
            "endpoint_wait_seconds": str(BAD_WAIT_SECONDS),
        },
        ModelMetrics=package["ModelMetrics"],
        InferenceSpecification={
            **package["InferenceSpecification"],
            "Containers": [{**kept, "ModelDataUrl": f"s3://{bucket}/{key}"}],
        },
    )
    # As a run's Describe step does: the digests of what this version deploys.
    arn = created["ModelPackageArn"]
    pinned = load("digests").digests(s3, sagemaker.describe_model_package(ModelPackageName=arn))
    sagemaker.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties=pinned)
    return int(arn.rsplit("/", 1)[1])


def _spoiled(archive: bytes, extra: str) -> bytes:
    """A model archive with `extra` at the end of its code/inference.py."""
    spoiled = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as old,
        tarfile.open(fileobj=spoiled, mode="w:gz", compresslevel=1) as new,
    ):
        for member in old:
            data = old.extractfile(member)
            content = data.read() if data else b""
            if member.name.removeprefix("./") == "code/inference.py":
                content += extra.encode()
                member.size = len(content)
            new.addfile(member, io.BytesIO(content) if data else None)
    return spoiled.getvalue()
