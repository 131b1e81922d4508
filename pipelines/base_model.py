"""What the run's own check would find about a base model that lies on this machine; no account, no network.

for finding in findings(config, Path("my-model")): print(finding)     # as Prepare and Train do (common/model_check.py)
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from common.base_model import TOKENIZER_FILES
from common.findings import Finding
from common.weight_files import OUTLINE

if TYPE_CHECKING:
    from configuration.config import Config

NEEDED = ("torch", "transformers")


def findings(config: Config, given: Path | None) -> list[Finding]:
    """Refusals, warnings and facts about the model in the directory `given`; of a config.json by itself there are none.

    Where the libraries for it aren't installed, or the directory has no weights, a warning says what wasn't checked.
    """
    if given is None or not given.is_dir():
        return []
    weights = any(given.glob("*.safetensors")) or (given / OUTLINE).is_file()
    if not weights and not any((given / name).is_file() for name in TOKENIZER_FILES):
        return []
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        said = f"{given} was not looked at, only its config.json: {' and '.join(absent)} not installed here"
        return [Finding("warning", "model", f"{said} (pip install 'fmops[local]'); Prepare will")]
    from common.method_check import Wanted
    from common.model_check import check_model

    found = check_model(given, Wanted.of(config.training), weights=weights)
    if not weights:
        found.append(Finding("warning", "weights", f"there are none in {given}, so they were not checked"))
    return found
