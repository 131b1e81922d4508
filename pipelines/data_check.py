"""Whether a file of rows can be used as it stands: by Prepare (`fmops data check FILE`), or by a job of Amazon Bedrock
(`--for nova`), whose limits preparation/bedrock_check.py knows.

    lines, good = check_for_bedrock(Path("train.jsonl"), "nova", epochs=2)
    lines, good = check_for_sagemaker(config, Path("my.csv"))

The scripts that the pipeline ships do the work, in a process of their own. No account, no network.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.bedrock_families import FAMILIES, find_family
from configuration.errors import UsageProblem
from pipelines.data import ROOT, prepare

if TYPE_CHECKING:
    from configuration.config import Config

SAGEMAKER = "sagemaker"
TARGETS = (SAGEMAKER, *FAMILIES)


def check_for_sagemaker(config: Config, path: Path) -> tuple[list[str], bool]:
    """What Prepare would say of a file or folder, and whether it would take it; raises UsageProblem without any."""
    _there(path)
    return _said(prepare(config, path, "--check"), "prepare.py")


def check_for_bedrock(path: Path, target: str, epochs: int | None = None) -> tuple[list[str], bool]:
    """What a job of that family, or on that base model, would refuse of a file, and whether it would take it.

    Raises UsageProblem without a file, or for a target that is not known.
    """
    if find_family(target) is None:
        raise UsageProblem(f"--for {target}: no such target; allowed: {', '.join(TARGETS)}, or a base model's id.")
    _there(path)
    command = [sys.executable, str(ROOT / "preparation" / "bedrock_check.py"), str(path.absolute()), "--for", target]
    command += [] if epochs is None else ["--epochs", str(epochs)]
    known = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": known, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return _said(done, "bedrock_check.py")


def _there(path: Path) -> None:
    if not path.exists():
        raise UsageProblem(f"{path}: there is no such file.")


def _said(done: subprocess.CompletedProcess[str], script: str) -> tuple[list[str], bool]:
    if done.returncode not in (0, 1):
        raise UsageProblem(done.stderr.strip().rpartition(f"{script}: error: ")[2])
    told = [done.stdout.rstrip(), done.stderr.strip().removeprefix(f"{script}: error: ")]
    return "\n".join(filter(None, told)).splitlines(), done.returncode == 0
