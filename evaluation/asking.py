"""What score.py and reference.py share: the rows they draw, how they fail, what they tell of the machine. Runs in the
processing containers of EvaluateBase, EvaluateChampion and Evaluate.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data import draw, load_rows

from common.dials import Dial
from common.evaluation_dials import EVALUATION, OF_THE_BASE
from common.failure import JobError, report_failure
from common.rows import Kind
from common.seed_dial import SEED


def dials(examples: bool) -> list[Dial]:
    """The options that pipeline.yaml's `evaluation:` gives; `examples`: those of the base model, too."""
    return [dial for dial in (*EVALUATION, SEED) if dial.argument and (examples or dial.argument != OF_THE_BASE)]


def common_arguments(parser: argparse.ArgumentParser, loaded: bool = True) -> None:
    """The options that all scripts have beside their dials; `loaded`: those of models that are loaded here, too."""
    parser.add_argument("--data", type=Path, required=True, help="test rows (directory with .jsonl files)")
    parser.add_argument("--train-data", type=Path, required=loaded, help="training rows; examples are drawn from them")
    if loaded:
        parser.add_argument("--general", type=Path, help="rows that a model should not forget (directory)")
    parser.add_argument("--probes", type=Path, help="prompts with what no answer may say (directory)")
    parser.add_argument("--output", type=Path, required=True, help="directory to write to")
    parser.add_argument("--message-file", type=Path, help="file to write the reason of a failure to (ExitMessage)")


def take_rows(place: Path, count: int, seed: int) -> tuple[Kind, list[Any], int]:
    """The kind of the test rows, those that are asked, and how many there are in all."""
    kind, rows = load_rows(place)
    return kind, draw(rows, count, seed), len(rows)


def volume(model: Path) -> Path | None:
    """Where to unpack a model: beside it, for that is the job's volume, and /tmp a small disk of the machine's."""
    return model.parent if os.access(model.parent, os.W_OK) else None


def machine(model: Any) -> dict[str, str]:
    """What answers depend on beside the model: the device, the precision and the libraries."""
    import torch
    import transformers

    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "precision": str(model.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def guarded(
    program: str, work: Callable[[], object], message_file: Path | None, left: str = "nothing was written"
) -> int:
    """Does the work; what people can mend becomes one line on stderr and in the message file. Returns the exit code.

    `left`: what there is of work that was interrupted.
    """

    def fail(problem: str) -> int:
        report_failure(program, problem, [message_file] if message_file else [])
        return 1

    try:
        work()
    except JobError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return fail(f"interrupted; {left}")
    except MemoryError:
        return fail("out of memory; use a smaller --batch-size or a larger instance")
    except OSError as error:
        return fail(f"{error.strerror or error}: {error.filename or 'an output'}")
    except RuntimeError as error:
        if "out of memory" not in str(error).lower():
            raise
        return fail("the accelerator is out of memory; use a smaller --batch-size or a larger instance")
    return 0
