"""Looks at what a run reads, and clears what it needs no more. Runs in AWS Lambda (python3.12) as <prefix>-storage.

    {"command": "look", "input_data_uri": "s3://...", "base_model": "s3://...", "outlines": "s3://.../outlines/",
     "service": "sagemaker" | "bedrock", "bedrock_base_model": "amazon.nova-...", "otherwise": "s3://...",
     ...all that decides about the training}
 -> {"manifest": "9f86d0...", "base": "60303a...", "run": "4a1c9e...", "objects": "12",
     "base_model": "s3://.../outlines/5d41.../", "bedrock_family": "none" | "amazon.nova-..."}
    {"command": "clear", "uri": "s3://<artifacts bucket>/checkpoints/<pipeline>/<run>/"}
 -> {"cleared": "24 objects"}

SageMaker's step cache compares the names of inputs, not what lies under them: a nightly run over `raw/` would go on
using last month's rows. `manifest` changes with every object under the input, and is part of Prepare's request; `base`
changes with the base model's files, and is part of EvaluateBase's. `run` names one training: what is under its inputs,
its parameters and its code. Checkpoints live under it, so that a job is given no other run's, and a run that is started
again goes on from its own. `base_model` is where the base model's outline lies, which Prepare checks (outline.py);
empty for one on a hub. Where Bedrock trains nothing of the other branch is looked at: there is no outline, so that
Prepare gets `otherwise`, and its rows are written as `bedrock_family` wants them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws import list_keys, stored
from documents import digest_of, s3_parts
from outline import write_outline

from common.bedrock_families import FAMILIES, family_of

RUN = 32
"""Hex characters of a run's name, which is part of a key."""
AT_ONCE = 1000
"""Objects that one DeleteObjects takes."""
CHECKPOINTS = "/checkpoints/"
NO_FAMILY = "none"


def handler(event: Mapping[str, object], context: object = None) -> dict[str, str]:
    """Lambda's entry point."""
    import boto3

    s3 = boto3.client("s3")
    if event.get("command") == "clear":
        return clear(s3, str(event["uri"]))
    return look(s3, {key: str(value) for key, value in event.items() if key != "command"})


def look(s3: Any, run: Mapping[str, str]) -> dict[str, str]:
    """Digests of what lies under the inputs, alone and together with everything else that decides about a training."""
    run = dict(run)
    outlines, otherwise = run.pop("outlines", ""), run.pop("otherwise", "")
    on_bedrock, base = run.pop("service", "") == "bedrock", run.pop("bedrock_base_model", "")
    rows, model, outline = _found(s3, run["input_data_uri"]), {}, ""
    if not rows:
        raise ValueError(f"There is nothing under {run['input_data_uri']}, so there is nothing to train on.")
    if on_bedrock:
        outline = otherwise
    elif run["base_model"].startswith("s3://"):  # else it is on a hub
        model = _found(s3, run["base_model"])
        if not model:
            raise ValueError(f"There is no base model under {run['base_model']}; upload one in Hugging Face layout.")
        if outlines:
            outline = write_outline(s3, run["base_model"], model, outlines)
    whole = {**run, "rows": rows, "model": model}
    return {
        "manifest": digest_of(rows),
        "base": digest_of(model),
        "run": digest_of(whole)[:RUN],
        "objects": str(len(rows)),
        "base_model": outline,
        "bedrock_family": _checked(base) if on_bedrock else NO_FAMILY,
    }


def _checked(base: str) -> str:
    """The base model's id, by which Prepare finds its family."""
    if family_of(base) is None:
        known = ", ".join(sorted(name for name, found in FAMILIES.items() if not found.retired))
        raise ValueError(f"{base} belongs to no family whose customization jobs are known; known: {known}")
    return base


def _found(s3: Any, uri: str) -> dict[str, list[object]]:
    found = stored(s3, uri)
    if found is None:
        raise ValueError(f"There is no bucket {s3_parts(uri)[0]}, which {uri} names.")
    return found


def clear(s3: Any, uri: str) -> dict[str, str]:
    """Delete a finished training's checkpoints. What can't be deleted is told, and expires with the bucket's rule."""
    bucket, prefix = s3_parts(uri)
    if CHECKPOINTS not in uri or not prefix.endswith("/"):
        raise ValueError(f"{uri} is not a run's folder of checkpoints; nothing else is cleared")
    keys = [{"Key": key} for key in list_keys(s3, bucket, prefix)]
    left = 0
    for begin in range(0, len(keys), AT_ONCE):
        request = {"Objects": keys[begin : begin + AT_ONCE], "Quiet": True}
        left += len(s3.delete_objects(Bucket=bucket, Delete=request).get("Errors", []))
    gone = len(keys) - left
    return {"cleared": f"{gone} objects" + (f", {left} could not be deleted" if left else "")}
