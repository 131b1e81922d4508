"""EventBridge: emit `aws.*` events, and start SageMaker pipelines that rules and schedules name as their target."""

from __future__ import annotations

import json
import logging
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from localcloud.context import Context
from localcloud.errors import AwsError
from localcloud.protocol import call

if TYPE_CHECKING:
    from localcloud.context import Cloud

Document = dict[str, Any]
_PIPELINE_ARN = re.compile(r"arn:aws[a-z-]*:sagemaker:([a-z0-9-]+):(\d{12}):pipeline/(.+)", re.IGNORECASE)
_log = logging.getLogger("localcloud")


class Events:
    """The default bus, seen from inside."""

    def __init__(self) -> None:
        from ministack.services import eventbridge

        self._eventbridge = eventbridge
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="localcloud-target")
        self._original: Any = None

    def put(self, source: str, detail_type: str, detail: dict[str, Any], resources: list[str]) -> None:
        """Put an event, also one whose source is `aws.*`; on MiniStack's loop, in the caller's scope."""
        entry = {"Source": source, "DetailType": detail_type, "Detail": json.dumps(detail), "Resources": resources}
        self._eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)

    def install(self, cloud: Cloud) -> None:
        """Wrap the one function through which rules, cron rules and EventBridge Scheduler reach their targets."""
        self._original = self._eventbridge._invoke_target

        def invoke_target(target: Document, event: Document, rule: Document, view: Any = None) -> None:
            found = _PIPELINE_ARN.fullmatch(target.get("Arn", ""))
            if found is None:
                self._original(target, event, rule, view)
                return
            region, account, name = found.groups()
            whole = (view or self._eventbridge._pattern_event_view(event)).event_with_detail()
            # Called on the loop or a scheduler's thread: starting a pipeline must not hold either.
            self._workers.submit(_start_pipeline, Context(account, region, cloud), name, target, whole)

        self._eventbridge._invoke_target = invoke_target

    def stop(self) -> None:
        if self._original is not None:
            self._eventbridge._invoke_target = self._original
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
