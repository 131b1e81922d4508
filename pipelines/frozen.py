"""What an upsert writes into the pipeline for good, and so contradicts a run that overrides what it came from.

The server's image and settings, a disk's key, which channels a job has: they follow from pipeline.yaml when the
definition is built. A run that overrides the endpoint's machine or mode, the adapter's rank or a job's machine keeps
them. So the definition is built with the overrides in it, and where its steps would be others, the override is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from configuration.parameters import defaults, with_overrides

if TYPE_CHECKING:
    from configuration.config import Config

# Of all parameters those whose defaults have a part in the steps; tests/author/test_frozen.py finds them anew.
BUILT_FROM = frozenset(
    {
        "BaseModel",
        "EndpointInstanceType",
        "EndpointMode",
        "EvaluationInstanceType",
        "LoraRank",
        "ProcessingInstanceType",
        "TrainInstanceType",
    }
)


def contradictions(config: Config, given: Mapping[str, str]) -> Iterator[str]:
    """Each override that the steps, as they were upserted, don't go with."""
    now = defaults(config)
    suspects = [name for name in sorted(BUILT_FROM & set(given)) if given[name] != str(now[name])]
    if not suspects:
        return
    built = _steps(config)
    if _steps(with_overrides(config, {name: given[name] for name in suspects})) == built:
        return
    for name in suspects:
        # One at a time; what only several do together is told of the last.
        changed = _differences(built, _steps(with_overrides(config, {name: given[name]})))
        if changed or name == suspects[-1]:
            what = ", ".join(changed) or "the steps"
            yield (
                f"{name}={given[name]}: {what} were written into the pipeline for another value; set it in "
                "pipeline.yaml and upsert: fmops upsert"
            )


def _steps(config: Config) -> Any:
    from pipelines.finetuning import definition

    return json.loads(definition(config))["Steps"]


def _differences(built: Any, other: Any, path: tuple[str, ...] = ()) -> list[str]:
    """Where two trees of steps differ, in the API's words: `Train's VolumeKmsKeyId`."""
    if built == other:
        return []
    if isinstance(built, dict) and isinstance(other, dict) and path[-1:] != ("Environment",):
        found = []
        for key in {**built, **other}:
            found += _differences(built.get(key), other.get(key), (*path, key))
        return list(dict.fromkeys(found))
    if isinstance(built, list) and isinstance(other, list) and len(built) == len(other):
        found = []
        for one, two in zip(built, other, strict=True):
            name = one.get("Name") if isinstance(one, dict) else None
            found += _differences(one, two, (str(name),) if name and "Arguments" in one else path)
        return list(dict.fromkeys(found))
    return [f"{path[0]}'s {path[-1]}"]
