"""No shipped script runs code that a model brings along: every call that could says that it may not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("common", "preparation", "training", "evaluation", "serving", "lambdas", "packages/localcloud/src")
HARMLESS = {"PeftModel", "GenerationConfig"}
"""Loaders without an option to run a model's code: weights onto a loaded model, and settings."""


def open_calls(source: str) -> list[str]:
    """Loading calls that don't say trust_remote_code=False."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("from_pretrained", "from_config", "pipeline")
        and ast.unparse(node.func.value) not in HARMLESS
        and not any(
            word.arg == "trust_remote_code" and isinstance(word.value, ast.Constant) and word.value.value is False
            for word in node.keywords
        )
    ]


def test_every_loading_call_says_no() -> None:
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    calls = sum(path.read_text("utf-8").count(".from_pretrained(") for path in files)
    assert calls >= 10, "where have they gone?"
    found = {str(path.relative_to(ROOT)): open_calls(path.read_text("utf-8")) for path in files}
    assert {name: open_ for name, open_ in found.items() if open_} == {}


@pytest.mark.parametrize(
    "source",
    [
        "AutoTokenizer.from_pretrained(x)",
        "transformers.AutoModelForCausalLM.from_pretrained(x, dtype=y)",
        "AutoConfig.from_pretrained(x, trust_remote_code=True)",
        "AutoConfig.from_pretrained(x, trust_remote_code=chosen)",
        "AutoModelForCausalLM.from_config(c)",
    ],
)
def test_the_check_notices(source: str) -> None:
    assert open_calls(source) == [source]
