"""Has Bedrock tune a model while a pipeline waits. Runs in AWS Lambda (python3.12) as <prefix>-customize.

It is invoked by three parties, and waits for nothing:
    the pipeline's CustomizeBedrock step     its messages in the queue <prefix>-customize: begin, and stop
    Bedrock                                  EventBridge's "Model Customization Job State Change": the step is answered
    a timer                                  {"command": "settle"}: those events are best effort; what is left is swept

A message's body is `{"token", "pipelineExecutionArn", "arguments", "Status"?}`. The job's name holds the token, so that
the same message twice makes one job and an event that comes before CreateModelCustomizationJob has returned finds it.
A message that fails comes again; the last time its step is told why. Modules call each other one way: customize ->
customization -> curves; customize -> sweeping.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from customization import Customization, begin_job, owned, settle_job, settle_jobs, stop_job
from sweeping import sweep

EVENT = "Model Customization Job State Change"
MOST_RECEIVES = 8
"""After which the queue gives a message up (deployment.yaml): then the step must not wait on."""


def handler(event: Mapping[str, Any], context: object = None) -> dict[str, object]:
    """Lambda's entry point; of the queue's messages it answers which failed."""
    import boto3

    clients = Customization(boto3.client("bedrock"), boto3.client("sagemaker"), boto3.client("s3"), os.environ)
    answered = hear(clients, event)
    print(json.dumps({"answer": answered}))
    return answered


def hear(clients: Customization, event: Mapping[str, Any]) -> dict[str, object]:
    """Whoever invoked the function gets what it asked for."""
    if "Records" in event:
        return {"batchItemFailures": [failure for record in event["Records"] for failure in _message(clients, record)]}
    if event.get("detail-type") == EVENT:
        name = str(event["detail"]["jobName"])
        return {"settled": [settle_job(clients, name)] if owned(clients, name) else []}
    if event.get("command") == "settle":
        return {"settled": settle_jobs(clients), "swept": sweep(clients)}
    raise ValueError(f"{event.get('command')!r} is not a command: settle")


def _message(clients: Customization, record: Mapping[str, Any]) -> list[dict[str, str]]:
    """Do what a message asks; what failed in a way that may pass comes again."""
    body = json.loads(record["body"])
    token, execution = str(body["token"]), str(body["pipelineExecutionArn"])
    try:
        # The API reference writes Status, examples write status.
        if (body.get("Status") or body.get("status")) == "Stopping":
            stop_job(clients, execution, token)
        else:
            begin_job(clients, execution, token, body["arguments"])
    except Exception as error:
        print(json.dumps({"message": record["messageId"], "failed": f"{type(error).__name__}: {error}"}))
        if int(record.get("attributes", {}).get("ApproximateReceiveCount", 1)) >= MOST_RECEIVES:
            clients.fail(token, f"the customization job could not be begun or stopped: {error}")
            return []
        return [{"itemIdentifier": record["messageId"]}]
    return []
