"""The table of dials, whole: every value of pipeline.yaml that somebody may want to change, and who reads it.

    dial("training.lora_rank").allowed()        # 'a whole number from 1 to 1024'
    by_parameter()["LoraRank"].key              # 'training.lora_rank'

A new dial is one entry in `common/*_dials.py` (or `account_dials.py`), one typed field in the configuration, one line
in pipeline.yaml (`make reference` writes its comment and docs/dials.md), and its use.
"""

from __future__ import annotations

import functools
from typing import Any

from common.bedrock_dials import BEDROCK, SERVICE
from common.data_dials import DATA
from common.dials import Dial
from common.endpoint_dials import ENDPOINT
from common.evaluation_dials import EVALUATION, JUDGE, REMOTE
from common.gate_dials import GATE
from common.training_dials import TRAINING
from configuration.account_dials import ACCOUNT, IMAGES, MODEL, REGISTRY

TABLE: tuple[Dial, ...] = (
    *ACCOUNT, *DATA, *MODEL, SERVICE, *TRAINING, *BEDROCK, *EVALUATION, *JUDGE, *REMOTE, *GATE, *REGISTRY, *ENDPOINT,
    *IMAGES,
)  # fmt: skip
"""In the order of pipeline.yaml."""


@functools.cache
def by_key() -> dict[str, Dial]:
    return {dial.key: dial for dial in TABLE}


@functools.cache
def by_parameter() -> dict[str, Dial]:
    """The dials that a run may override, by the name of the pipeline's parameter, in the order of the definition."""
    return {dial.parameter: dial for dial in TABLE if dial.parameter}


@functools.cache
def by_setting() -> dict[str, Dial]:
    """The deploy function's settings by name."""
    return {dial.setting: dial for dial in TABLE if dial.setting}


def dial(key: str) -> Dial:
    return by_key()[key]


def configured(config: Any, dial: Dial) -> Any:
    """The dial's value in a configuration; None also where a section above it is null."""
    value = config
    for part in dial.key.split("."):
        value = None if value is None else getattr(value, part)
    return value
