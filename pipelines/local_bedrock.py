"""What stands in for Bedrock's models on this machine: a file that localcloud reads whenever it needs one.

It names the base model that arrives through pip, and how it is trained (local_trainer.py with pipeline.yaml's dials).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.training_dials import TRAINING
from steps.common import configured_text

if TYPE_CHECKING:
    from configuration.config import Config

VARIABLE, FILE = "LOCALCLOUD_BEDROCK", "bedrock.json"
TRAINER = Path(__file__).with_name("local_trainer.py")


def point_at(home: Path) -> None:
    """Tell localcloud, before it starts, where the file lies; it need not be there yet."""
    os.environ.setdefault(VARIABLE, str(home / FILE))


def has_another(home: Path) -> bool:
    """Whether the shell names a file of its own."""
    return os.environ.get(VARIABLE, str(home / FILE)) != str(home / FILE)


def write(config: Config, home: Path, model: Path) -> None:
    """Write the file and the dials that it names."""
    settings = home / "bedrock-training.json"
    told = {dial.argument: configured_text(config, dial) for dial in TRAINING if dial.argument}
    told |= {"method": "lora", "merge": "true"}
    chosen = {name: value for name, value in told.items() if value is not None and name != "start_from"}
    settings.write_text(json.dumps(chosen, indent=2), "utf-8")
    train = [sys.executable, str(TRAINER), "--settings", str(settings)]
    (home / FILE).write_text(json.dumps({"model": str(model), "train": train}, indent=2), "utf-8")
