"""One step from its first attempt to its end: cache, attempts, and what is written down about it."""

from __future__ import annotations

import logging
import time
from typing import Any

from localcloud.context import Request
from localcloud.engine import cache, steps
from localcloud.engine.expressions import ExpressionError
from localcloud.engine.retry import Retries
from localcloud.engine.work import Abandoned, StepFailed, StepStopped, Work

MAX_REASON = 1024

_log = logging.getLogger(__name__)


def perform(work: Work) -> None:
    """Do a step and write its end down; never raises. An end of localcloud in between leaves the step open."""
    try:
        _succeed(work)
    except Abandoned:
        return
    except StepStopped:
        _end(work, {"StepStatus": "Stopped"})
    except StepFailed as failure:
        reason = failure.reason[:MAX_REASON] or None  # a Fail step without a message has none
        _end(work, {"StepStatus": "Failed", "FailureReason": reason})
    except ExpressionError as error:
        _end(work, {"StepStatus": "Failed", "FailureReason": f"ClientError: {error}"[:MAX_REASON]})
    except Exception as error:
        if work.closing.is_set():
            return
        _log.exception("step %s of %s", work.step.name, work.arn)
        _end(work, {"StepStatus": "Failed", "FailureReason": f"InternalServerError: {error!r}"[:MAX_REASON]})


def _end(work: Work, changes: dict[str, Any]) -> None:
    if not work.closing.is_set():
        work.note(changes)


def _succeed(work: Work) -> None:
    request = steps.request_of(work)
    key = None
    if work.step.type in cache.ATTRIBUTES:
        key = work.doc.get("_cache_key") or cache.cache_key(work.step.type, request)
    if key and work.step.cache and not work.memory and _hit(work, key):
        return
    if key:
        work.note({"_cache_key": key})
    metadata, output = _attempts(work, request)
    work.note({"StepStatus": "Succeeded", "Metadata": metadata, "_output": output})
    if key:
        entry = {
            "SourcePipelineExecutionArn": work.arn,
            "Time": time.time(),
            "Metadata": metadata,
            "Output": output,
        }
        cache.remember(work.ctx, _pipeline(work), work.step.name, key, entry)


def _attempts(work: Work, request: Request) -> steps.Done:
    retries = Retries(work.step.raw.get("RetryPolicies") or [])
    while True:
        try:
            return steps.RUN[work.step.type](work, request)
        except StepFailed as failure:
            delay = None if work.stopping.is_set() else retries.delay(failure.kind, time.time())
            if delay is None:
                raise
            work.note({"AttemptCount": work.doc["AttemptCount"] + 1, "_work": {}})
            work.pause(delay)
            request = steps.request_of(work)


def _hit(work: Work, key: str) -> bool:
    """End the step with an earlier result, if one counts."""
    config = work.step.cache or {}
    entry = cache.recall(work.ctx, _pipeline(work), work.step.name, key, config.get("ExpireAfter"), time.time())
    if entry is None:
        return False
    work.note(
        {
            "StepStatus": "Succeeded",
            "CacheHitResult": {"SourcePipelineExecutionArn": entry["SourcePipelineExecutionArn"]},
            "Metadata": entry["Metadata"],
            "_output": entry["Output"],
        }
    )
    return True


def _pipeline(work: Work) -> str:
    return work.arn.split(":pipeline/", 1)[1].partition("/execution/")[0]
