"""A user's file of metrics, as tests name it in pipeline.yaml."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass
class Call:
    """What a target asks for."""

    arguments: dict[str, Any]


def area_right(prediction: str, target: str, row: dict[str, Any]) -> bool | None:
    try:
        call = Call(**{"arguments": json.loads(target)["arguments"]})
    except (ValueError, TypeError, KeyError):
        return None
    return str(call.arguments["area"]) in prediction


def characters(prediction: str, target: str, row: dict[str, Any]) -> float:
    return len(prediction) - len(target)


METRICS = {
    "area_right": {"function": area_right, "label": "Area named"},
    "longer_by": {"function": characters, "share": False, "lower_is_better": True},
}
