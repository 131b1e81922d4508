"""Asynchronous endpoints: requests wait on disk, are answered into S3, and tell an SNS topic.

Document kind "async-inference", name = "<endpoint>/<time>-<id>", doc = what InvokeEndpointAsync was given and where the
answer goes. It is removed when the answer (or the failure) is written and told, so a request that was under way when
localcloud was killed is answered again: at least once, as on AWS. Requests of a deleted endpoint go with it. Who hands
them on is in localcloud.hosting.backlog.
"""

from __future__ import annotations

import base64
import datetime
import json
import logging
import tempfile
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from localcloud.context import Context, Response
from localcloud.errors import AwsError, validation
from localcloud.hosting.metrics import Load
from localcloud.hosting.model_server import Answer
from localcloud.jobs.transfer import TransferError, join_uri, upload_file
from localcloud.store import Document

KIND = "async-inference"
_LOG = logging.getLogger("localcloud.hosting")


def check(request: dict[str, Any]) -> None:
    """ValidationException for an endpoint configuration whose AsyncInferenceConfig can't be carried out."""
    config = request.get("AsyncInferenceConfig")
    if not config:
        return
    output = config["OutputConfig"]
    if not output.get("S3OutputPath"):
        raise validation("AsyncInferenceConfig without OutputConfig.S3OutputPath is not supported by localcloud")
    for member in ("S3OutputPath", "S3FailurePath"):
        if not output.get(member, "s3://").startswith("s3://"):
            raise validation(f"OutputConfig.{member} must begin with s3://.")
    if (output.get("NotificationConfig") or {}).get("IncludeInferenceResponseIn"):
        raise validation("NotificationConfig.IncludeInferenceResponseIn is not supported by localcloud")


def accept(ctx: Context, request: dict[str, Any], endpoint: Document) -> tuple[str, Response]:
    """Keep a request until it is answered: (its name in the store, InvokeEndpointAsync's answer).

    ValidationError for one that can't be kept.
    """
    name, config = request["EndpointName"], endpoint["_fleet"]["AsyncInferenceConfig"]["OutputConfig"]
    if bool(request.get("Body")) == bool(request.get("InputLocation")):
        raise AwsError("ValidationError", "Exactly one of InputLocation and Body must be specified.")
    if not request.get("InputLocation", "s3://").startswith("s3://"):
        raise AwsError("ValidationError", "An InputLocation that does not begin with s3:// is not supported here.")
    identifier = str(uuid.uuid4())
    output = join_uri(config["S3OutputPath"], request.get("S3OutputPathExtension", ""))
    doc: Document = {key: value for key, value in request.items() if key != "Body"}
    doc["InferenceId"] = request.get("InferenceId") or identifier
    doc["OutputLocation"] = join_uri(output, request.get("Filename") or f"{identifier}.out")
    if config.get("S3FailurePath"):
        doc["FailureLocation"] = join_uri(config["S3FailurePath"], f"{identifier}-error.out")
    if request.get("Body"):
        doc["Body"] = base64.b64encode(request["Body"]).decode()
    doc |= {"Received": time.time(), "EndpointCreated": endpoint["CreationTime"]}
    key = f"{name}/{time.time_ns():020d}-{identifier}"
    ctx.cloud.store.create(KIND, ctx.account, ctx.region, key, doc)
    return key, {k: doc[k] for k in ("InferenceId", "OutputLocation", "FailureLocation") if k in doc}


def backlog(ctx: Context, name: str, instances: int) -> Iterable[Load]:
    """How many requests an endpoint has waiting or under way: the metrics that scaling looks at."""
    size = ctx.cloud.store.count(KIND, ctx.account, ctx.region, f"{name}/")
    dimensions = {"EndpointName": name}
    yield ctx, "ApproximateBacklogSize", dimensions, [size]
    yield ctx, "ApproximateBacklogSizePerInstance", dimensions, [size / max(1, instances)]
    yield ctx, "HasBacklogWithoutCapacity", dimensions, [float(size > 0 and not instances)]


def succeed(ctx: Context, name: str, doc: Document, answer: Answer, endpoint: Document) -> None:
    """Write a request's answer and tell of it; TransferError when it can't be written."""
    _write(ctx, doc["OutputLocation"], answer.body)
    _tell(ctx, name, doc, endpoint, answer, None)


def fail(ctx: Context, name: str, doc: Document, reason: str, endpoint: Document) -> None:
    """Write why a request was not answered, where there is a place for that, and tell of it."""
    if doc.get("FailureLocation"):
        try:
            _write(ctx, doc["FailureLocation"], reason.encode())
        except TransferError as error:
            _LOG.warning("endpoint %s: a failure could not be written: %s", name, error)
    _tell(ctx, name, doc, endpoint, None, reason)


def _tell(
    ctx: Context, name: str, doc: Document, endpoint: Document, answer: Answer | None, failure: str | None
) -> None:
    output = (endpoint["_fleet"].get("AsyncInferenceConfig") or {}).get("OutputConfig") or {}
    topic = (output.get("NotificationConfig") or {}).get("SuccessTopic" if failure is None else "ErrorTopic")
    if topic:
        message = json.dumps(_notification(ctx, name, doc, answer, failure))
        try:
            ctx.cloud.delegate.publish(ctx.account, ctx.region, topic, message)
        except AwsError as error:
            _LOG.warning("endpoint %s: %s was not notified: %s", name, topic, error.message)


def _write(ctx: Context, uri: str, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=ctx.cloud.home) as file:
        file.write(data)
        file.flush()
        upload_file(ctx, Path(file.name), uri)


def _notification(ctx: Context, name: str, doc: Document, answer: Answer | None, failure: str | None) -> dict[str, Any]:
    """What SageMaker sends to the topics."""
    asked: dict[str, Any] = {"endpointName": name}
    if doc.get("ContentType"):
        asked["contentType"] = doc["ContentType"]
    if doc.get("InputLocation"):
        asked["inputLocation"] = doc["InputLocation"]
    message: dict[str, Any] = {
        "awsRegion": ctx.region,
        "eventTime": _time(time.time()),
        "receivedTime": _time(doc["Received"]),
        "invocationStatus": "Completed" if failure is None else "Failed",
        "requestParameters": asked,
        "inferenceId": doc["InferenceId"],
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }
    if answer is not None:
        message["responseParameters"] = {"contentType": answer.content_type, "outputLocation": doc["OutputLocation"]}
    if failure is not None:
        message["failureReason"] = failure
        if doc.get("FailureLocation"):
            message["responseParameters"] = {"failureLocation": doc["FailureLocation"]}
    return message


def _time(seconds: float) -> str:
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z"
