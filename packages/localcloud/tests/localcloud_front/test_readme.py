"""README.md is true: its examples run, and it names every file and every dial."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import localcloud
from localcloud import control

PACKAGE = Path(localcloud.__file__).parent
README = Path(__file__).parents[2] / "README.md"
PRINTED = (
    ["Hello Succeeded", "['hello from a job']"],
    ["[('Hello', 'Succeeded')]"],
    ["123456789012"],
)


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(PRINTED)), ids=["boto3", "sdk", "in-process"])
def test_an_example_runs_as_it_stands(number: int, running: control.Info, tmp_path: Path) -> None:
    assert len(examples()) == len(PRINTED)
    (tmp_path / "hello.py").write_text("print('hello from a script')")
    (tmp_path / "example.py").write_text(examples()[number])
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SAGEMAKER_"))}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "example.py"],
        cwd=tmp_path,
        env={
            **inherited,
            **control.client_environment(running.url, running.secret, "123456789012", "us-east-1"),
            "PYTHONPATH": str(PACKAGE.parent),
            "SAGEMAKER_VALIDATE_ROLE": "false",
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-len(PRINTED[number]) :] == PRINTED[number]


def test_every_file_is_named_once_in_its_layer() -> None:
    files = README.read_text().split("## Files")[1]
    named = re.findall(r"[a-z0-9_]+\.py", files)
    modules = sorted(path.name for path in PACKAGE.rglob("*.py") if not path.name.startswith("__"))
    assert len(modules) > 120
    assert sorted(name for name in named if name != "test_layers.py") == modules


def test_every_dial_is_in_the_table() -> None:
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    dials = set(re.findall(r"LOCALCLOUD_[A-Z_]+[A-Z]", source)) - {"LOCALCLOUD_HOME"}
    table = set(re.findall(r"^\| `(LOCALCLOUD_[A-Z_]+)` \|", README.read_text(), re.MULTILINE))
    assert len(dials) >= 12
    assert table == dials
