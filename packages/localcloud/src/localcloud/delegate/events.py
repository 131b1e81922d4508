"""EventBridge: start the SageMaker pipelines that rules and schedules name as their target."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from localcloud.context import Cloud, Context
from localcloud.errors import AwsError
from localcloud.hooks import bus
from localcloud.hooks.patches import Patches
from localcloud.protocol import call

Document = dict[str, Any]
_PIPELINE_ARN = re.compile(r"arn:aws[a-z-]*:sagemaker:([a-z0-9-]+):(\d{12}):pipeline/(.+)", re.IGNORECASE)
_log = logging.getLogger("localcloud")


class Events:
    """Targets that MiniStack doesn't know: pipelines, started on threads of their own."""

    def __init__(self) -> None:
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="localcloud-target")

    def install(self, cloud: Cloud, patches: Patches) -> None:
        """Take the targets that are pipelines."""

        def take(target: Document, whole: Callable[[], Document]) -> bool:
            found = _PIPELINE_ARN.fullmatch(target.get("Arn", ""))
            if found is None:
                return False
            region, account, name = found.groups()
            self._workers.submit(_start_pipeline, Context(account, region, cloud), name, target, whole())
            return True

        bus.take_targets(patches, take)

    def stop(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)


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
