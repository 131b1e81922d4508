"""Looks at what a run reads, and clears what it needs no more. Runs in AWS Lambda (python3.12) as <prefix>-storage.

    {"command": "look", "input_data_uri": "s3://...", "base_model": "s3://...", ...all that decides about the training}
 -> {"manifest": "9f86d0...", "run": "4a1c9e...", "objects": "12"}
    {"command": "clear", "uri": "s3://<artifacts bucket>/checkpoints/<pipeline>/<run>/"}
 -> {"cleared": "24 objects"}

SageMaker's step cache compares the names of inputs, not what lies under them: a nightly run over `raw/` would go on
using last month's rows. `manifest` changes with every object under the input, and is part of Prepare's request. `run`
names one training: what is under its inputs, its parameters and its code. Checkpoints live under it, so that a job is
given no other run's, and a run that is started again goes on from its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from aws import described
from documents import s3_parts

MANIFEST, RUN = 64, 32
"""Hex characters; a run is part of a key."""
CHECKPOINTS = "/checkpoints/"


def handler(event: Mapping[str, object], context: object = None) -> dict[str, str]:
    """Lambda's entry point."""
    import boto3

    s3 = boto3.client("s3")
    if event.get("command") == "clear":
        return clear(s3, str(event["uri"]))
    return look(s3, {key: str(value) for key, value in event.items() if key != "command"})


def look(s3: Any, run: Mapping[str, str]) -> dict[str, str]:
    """Digests of what lies under the inputs, alone and together with everything else that decides about a training."""
    rows = objects(s3, run["input_data_uri"])
    if not rows:
        raise ValueError(f"There is nothing under {run['input_data_uri']}, so there is nothing to train on.")
    model = objects(s3, run["base_model"])
    if not model and run["base_model"].startswith("s3://"):
        raise ValueError(f"There is no base model under {run['base_model']}; upload one in Hugging Face layout.")
    whole = {**run, "rows": rows, "model": model}
    return {
        "manifest": _digest(rows)[:MANIFEST],
        "run": _digest(whole)[:RUN],
        "objects": str(len(rows)),
    }


def objects(s3: Any, uri: str) -> dict[str, list[object]]:
    """Key -> [ETag, size] of everything under an S3 prefix; nothing for a name on a hub or an absent bucket."""
    if not uri.startswith("s3://"):
        return {}
    bucket, prefix = s3_parts(uri)
    if described(s3.head_bucket, Bucket=bucket) is None:
        raise ValueError(f"There is no bucket {bucket}, which {uri} names.")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {item["Key"]: [item["ETag"], item["Size"]] for page in pages for item in page.get("Contents", [])}


def clear(s3: Any, uri: str) -> dict[str, str]:
    """Delete a finished training's checkpoints. What can't be deleted is told, and expires with the bucket's rule."""
    bucket, prefix = s3_parts(uri)
    if CHECKPOINTS not in uri or not prefix.endswith("/"):
        raise ValueError(f"{uri} is not a run's folder of checkpoints; nothing else is cleared")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    gone, left = 0, 0
    for page in pages:
        keys = [{"Key": item["Key"]} for item in page.get("Contents", [])]
        if keys:
            errors = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True}).get("Errors", [])
            gone, left = gone + len(keys) - len(errors), left + len(errors)
    return {"cleared": f"{gone} objects" + (f", {left} could not be deleted" if left else "")}


def _digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
