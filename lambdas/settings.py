"""Reads how to deploy: from the input, else from the package, else from the environment. Runs in AWS Lambda.

    read_settings({"endpoint_instance_count": 2}, {"endpoint_name": "chat"}, {"ENDPOINT_SETTINGS": '{...}'})

The names and what they take are the dials of pipeline.yaml's `endpoint:` (common/endpoint_dials.py). Values arrive as
text or numbers, since pipeline parameters, metadata and environment variables write them differently.
"""

from __future__ import annotations

import json
from typing import Any

from common.dials import DialError
from common.endpoint_dials import ENDPOINT, between

SETTINGS = {dial.setting: dial for dial in ENDPOINT if dial.setting}
# Alarms' names and instance types travel as one text, separated by commas; the endpoint's name must be given.
MAY_BE_EMPTY = ("endpoint_alarms", "endpoint_async_output_uri", "endpoint_fallback_instance_types")


def read_settings(event: dict[str, Any], metadata: dict[str, str], environment: dict[str, str]) -> dict[str, Any]:
    """Every setting by its name, as text, int or float. Raises ValueError: all that is wrong, with what is allowed."""
    defaults = json.loads(environment.get("ENDPOINT_SETTINGS") or "{}")
    settings: dict[str, Any] = {}
    problems = []
    for name, dial in SETTINGS.items():
        given = (source.get(name) for source in (event, metadata, defaults))
        value = next((value for value in given if value not in (None, "")), "")
        if value == "" and name in MAY_BE_EMPTY:
            settings[name] = ""
            continue
        if value == "":
            problems.append(f"{name} is neither in the input, nor in the package's metadata, nor in $ENDPOINT_SETTINGS")
            continue
        try:
            read = dial.read(value)
        except DialError as error:
            problems.append(f"{name}: {error}")
            continue
        settings[name] = ",".join(read) if isinstance(read, list) else read
    problems += _between(settings)
    if problems:
        raise ValueError("; ".join(problems))
    return settings


def _between(settings: dict[str, Any]) -> list[str]:
    """What no single setting can say; looked at where all the settings that it needs were read."""
    names = {dial.key: name for name, dial in SETTINGS.items()}
    needed = (
        "endpoint_mode", "endpoint_instance_type", "endpoint_fallback_instance_types", "endpoint_instance_count",
        "endpoint_maximum_instance_count", "endpoint_traffic", "endpoint_step_percent",
    )  # fmt: skip
    if not settings.keys() >= set(needed):
        return []
    given = [SETTINGS[name].read(settings[name]) for name in needed]
    return [f"{names[key]}: {problem}" for key, problem in between(*given)]
