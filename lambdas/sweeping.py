"""Deletes what an evaluation left running on Bedrock. Runs in AWS Lambda, beside customize.py.

EvaluateBedrock deletes what it has created itself, however it ends; this is for the case that it was killed. What it
created is tagged with its execution and with a time after which nobody needs it; a version's own deployment has no such
tags, and is never touched. A throughput that was committed to can't be deleted: it is told.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from customization import EXECUTION, Customization, execution_status

EVALUATION, EXPIRES = "fmops:evaluation", "fmops:expires"
RUNNING = ("Executing", "Stopping")


def sweep(clients: Customization) -> list[dict[str, str]]:
    """Delete deployments and throughputs of evaluations that are over: `[{"arn", "swept"}]`."""
    swept = []
    for arn, remove in _hosted(clients):
        tags = {tag["key"]: tag["value"] for tag in clients.bedrock.list_tags_for_resource(resourceARN=arn)["tags"]}
        if EVALUATION not in tags or not _is_over(clients, tags):
            continue
        try:
            remove()
        except clients.bedrock.exceptions.ClientError as error:
            swept.append({"arn": arn, "swept": f"not yet: {error.response['Error'].get('Message', '')}"})
        else:
            swept.append({"arn": arn, "swept": "deleted"})
    return swept


def _is_over(clients: Customization, tags: dict[str, str]) -> bool:
    expires = tags.get(EXPIRES, "")
    if expires.isdigit() and int(expires) < time.time():
        return True
    execution = tags.get(EXECUTION, "")
    return bool(execution) and execution_status(clients, execution) not in RUNNING


def _hosted(clients: Customization) -> Iterator[tuple[str, Any]]:
    """Every deployment and throughput of this function's models, with what deletes it."""
    bedrock, prefix = clients.bedrock, clients.environment["PREFIX"]
    for page in bedrock.get_paginator("list_custom_model_deployments").paginate(nameContains=prefix):
        for item in page["modelDeploymentSummaries"]:
            arn = item["customModelDeploymentArn"]
            if item["status"] != "Deleting":
                yield (
                    arn,
                    lambda arn=arn: bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=arn),
                )
    for page in bedrock.get_paginator("list_provisioned_model_throughputs").paginate(nameContains=prefix):
        for item in page["provisionedModelSummaries"]:
            arn = item["provisionedModelArn"]
            yield arn, lambda arn=arn: bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
