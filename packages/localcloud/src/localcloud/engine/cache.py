"""Step caching as SageMaker defines it: which attributes make the key, and for how long a result counts.

The key is over the resolved values of the attributes that AWS lists per step type ("Default cache key attributes by
pipeline step type"), within one account, region, pipeline and step name. Only successful steps are kept, the most
recent one counts, and its age is that of the step that really ran, not of a later hit.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from localcloud.context import Context
from localcloud.store import Document

KIND = "pipeline-cache"
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "Processing": ("AppSpecification", "Environment", "ProcessingInputs"),
    "Training": (
        "AlgorithmSpecification",
        "CheckpointConfig",
        "DebugHookConfig",
        "DebugRuleConfigurations",
        "Environment",
        "HyperParameters",
        "InputDataConfig",
    ),
    # AWS lists none for Lambda, though the SDK writes a CacheConfig for it: the function and everything it is given.
    "Lambda": ("FunctionArn", "Arguments", "OutputParameters"),
}

_DURATION = re.compile(
    r"P?(?:(?P<y>\d+)Y)?(?:(?P<mo>\d+)M)?(?:(?P<w>\d+)W)?(?:(?P<d>\d+)D)?"
    r"(?:T(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+)S)?)?",
    re.IGNORECASE,
)
_SECONDS = {"y": 365 * 86400, "mo": 30 * 86400, "w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1}


def duration_seconds(text: str) -> int:
    """`P30D`, `PT1H`, `P4DT12H`, and AWS's own loose `30d`, `T16m`, in seconds; ValueError otherwise."""
    match = _DURATION.fullmatch(text)
    parts = {key: int(value) for key, value in match.groupdict().items() if value} if match else {}
    if not parts:
        raise ValueError(f"'{text}' is not an ISO 8601 duration such as PT1H or P30D")
    return sum(_SECONDS[key] * amount for key, amount in parts.items())


def cache_key(step_type: str, request: dict[str, Any]) -> str:
    """The sha256 over the attributes that count for a step type; absent ones don't count."""
    attributes = {name: request[name] for name in ATTRIBUTES[step_type] if request.get(name) is not None}
    text = json.dumps([step_type, attributes], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def remember(ctx: Context, pipeline: str, step: str, key: str, entry: Document) -> None:
    """Keep a successful step: `{"SourcePipelineExecutionArn", "Time", "Metadata", "Output"}`."""
    ctx.cloud.store.put(KIND, ctx.account, ctx.region, f"{pipeline}/{step}/{key}", entry)


def recall(ctx: Context, pipeline: str, step: str, key: str, expire_after: str | None, now: float) -> Document | None:
    """The kept entry for a key, if it is young enough."""
    entry = ctx.cloud.store.get(KIND, ctx.account, ctx.region, f"{pipeline}/{step}/{key}")
    if entry is None or (expire_after is not None and now - float(entry["Time"]) > duration_seconds(expire_after)):
        return None
    return entry
