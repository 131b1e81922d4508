"""EventBridge: the targets that MiniStack doesn't reach, which are SageMaker pipelines and log groups."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from localcloud.context import Cloud, Context
from localcloud.delegate.trust import lets_act
from localcloud.errors import AwsError
from localcloud.hooks import bus, logs
from localcloud.hooks.patches import Patches
from localcloud.protocol import call

Document = dict[str, Any]
_PIPELINE_ARN = re.compile(r"arn:aws[a-z-]*:sagemaker:([a-z0-9-]+):(\d{12}):pipeline/(.+)", re.IGNORECASE)
_LOG_GROUP_ARN = re.compile(r"arn:aws[a-z-]*:logs:[a-z0-9-]+:\d{12}:log-group:([^:]+)(?::\*)?")
_log = logging.getLogger("localcloud")


class Events:
    """Pipelines are started on threads of their own; a log group gets its event at once."""

    def __init__(self) -> None:
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="localcloud-target")

    def install(self, cloud: Cloud, patches: Patches) -> None:
        """Take the targets that are pipelines or log groups."""

        def take(target: Document, whole: Callable[[], Document]) -> bool:
            group = _LOG_GROUP_ARN.fullmatch(target.get("Arn", ""))
            if group is not None:
                _write(group[1], whole())
                return True
            found = _PIPELINE_ARN.fullmatch(target.get("Arn", ""))
            if found is None:
                return False
            region, account, name = found.groups()
            self._workers.submit(_start_pipeline, Context(account, region, cloud), name, target, whole())
            return True

        bus.take_targets(patches, take)

    def stop(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)


def _write(group: str, event: Document) -> None:
    """The event as the one line of a stream of its own, where group and policy let EventBridge write it."""
    if not logs.has_group(group):
        _log.error("event target %s got no event: there is no such log group", group)
    elif not any(lets_act(policy, "events.amazonaws.com", "logs:PutLogEvents") for policy in logs.resource_policies()):
        _log.error("event target %s got no event: no resource policy of the logs lets events.amazonaws.com", group)
    else:
        logs.append(group, str(uuid.uuid4()), [(int(time.time() * 1000), json.dumps(event))])


def _start_pipeline(ctx: Context, name: str, target: dict[str, Any], event: dict[str, Any]) -> None:
    parameters = (target.get("SageMakerPipelineParameters") or {}).get("PipelineParameterList") or []
    try:
        request: dict[str, Any] = {"PipelineName": name, "ClientRequestToken": str(uuid.uuid4())}
        if parameters:
            request["PipelineParameters"] = [
                {"Name": item["Name"], "Value": resolve(item["Value"], event)} for item in parameters
            ]
        call(ctx, "sagemaker", "StartPipelineExecution", request)
    except AwsError as error:
        _log.error("event target %s was not started: %s", target.get("Arn"), error)
    except Exception as error:
        _log.error("event target %s was not started: %s: %s", target.get("Arn"), type(error).__name__, error)


def resolve(value: str, event: dict[str, Any]) -> str:
    """A parameter's value: `$.detail.x` takes it from the event, everything else is as it stands."""
    if not value.startswith("$."):
        return value
    found: Any = event
    for name in value[2:].split("."):
        found = found.get(name) if isinstance(found, dict) else None
    if found is None:
        raise AwsError("ValidationException", f"{value} is not in the event")
    return found if isinstance(found, str) else json.dumps(found)
