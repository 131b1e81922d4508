"""Shipped folders import what their runtime has and nothing of ours; the author side is light to load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import bundled

ROOT = Path(__file__).resolve().parents[2]

# What each runtime brings beside the standard library, the folder's own modules and its part of common/, whose modules
# import nothing but each other and, late, torch, transformers and (where it is installed) py3langid.
ALLOWED = {
    "common": {"huggingface_hub", "py3langid", "torch", "transformers"},
    "preparation": {"numpy", "orjson", "pyarrow"},
    "training": {"accelerate", "flash_attn", "mlflow", "numpy", "peft", "safetensors", "torch", "transformers"},
    "evaluation": {
        "boto3",
        "botocore",
        "jinja2",
        "markupsafe",
        "numpy",
        "peft",
        "safetensors",
        "scipy",
        "sklearn",
        "torch",
        "transformers",
    },
    "serving": {"djl_python", "peft", "safetensors", "torch", "transformers"},
    "lambdas": {"boto3", "botocore"},
}
SCRIPTS = ["preparation/prepare.py", "training/train.py", "evaluation/score.py"]
AUTHOR_SIDE = {"sagemaker", "pipelines", "steps", "conditions", "localcloud"}


def imported(source: str) -> set[str]:
    """Top-level names of every import, wherever in the file it stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            names.add(ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else "?")
    return names


def foreign(folder: str, source: str, siblings: set[str]) -> set[str]:
    own = {*siblings, "common", *ALLOWED[folder]}
    return {name for name in imported(source) if name not in sys.stdlib_module_names and name not in own}


def scripts(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_shipped_folder_imports_only_what_its_runtime_has(folder: str) -> None:
    files = scripts(folder)
    siblings = {path.stem for path in files}
    found = {str(path.relative_to(ROOT)): foreign(folder, path.read_text("utf-8"), siblings) for path in files}
    assert {name: names for name, names in found.items() if names} == {}
    assert not siblings & (AUTHOR_SIDE | ALLOWED[folder] | {"common", "datasets", "evaluate"}), (
        "a module hides a package"
    )
    assert (ROOT / folder / "__init__.py").exists() == (folder == "common")


def at_import(source: str) -> set[str]:
    """Top-level names of the imports that run when a module is loaded, typing's aside."""
    body = [
        node
        for node in ast.parse(source).body
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    outside = [node for node in body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return imported("\n".join(ast.unparse(node) for node in outside))


def test_common_modules_are_loaded_with_the_standard_library_alone() -> None:
    found = {path.name: at_import(path.read_text("utf-8")) - set(sys.stdlib_module_names) for path in scripts("common")}
    assert {name: names for name, names in found.items() if names - {"common"}} == {}
    assert at_import("import torch\nif TYPE_CHECKING:\n    import numpy\ndef f():\n    import peft") == {"torch"}


def test_every_shipped_file_is_looked_at() -> None:
    counts = {folder: len(scripts(folder)) for folder in ALLOWED}
    assert sum(counts.values()) >= 20, counts
    assert counts["lambdas"] == 28
    assert all(counts.values())


@pytest.mark.parametrize(
    "source",
    [
        "import sagemaker",
        "from configuration.config import Config",
        "def f():\n    from steps import train",
        "import localcloud.server",
        "from . import sibling",
        "import importlib\nimportlib.import_module('sagemaker')",
        "x = __import__('pipelines')",
        "import importlib\nimportlib.import_module(name)",
        "try:\n    import pandas\nexcept ImportError:\n    pass",
        "from training.weights import load_model",
        "import commons",
    ],
)
def test_the_check_notices(source: str) -> None:
    assert foreign("lambdas", source, {"deploy"})


def test_the_check_lets_pass_what_is_allowed() -> None:
    assert foreign("lambdas", "import json, deploy\nfrom botocore.exceptions import ClientError", {"deploy"}) == set()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_shipped_script_answers_help_in_a_bare_interpreter(script: str, tmp_path: Path) -> None:
    """-S: no site-packages at all. -I would also hide the script's own folder, so it is put back by hand."""
    folder, name = script.split("/")
    path = bundled(folder) / name
    code = f"import runpy, sys; sys.path.insert(0, {str(path.parent)!r}); sys.argv[1:] = ['--help']; runpy.run_path({str(path)!r}, run_name='__main__')"  # noqa: E501
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "usage:" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("folder", ALLOWED)
def test_every_docstring_says_at_its_beginning_where_the_script_runs(folder: str) -> None:
    """In one of its first two paragraphs; the first says what the file does."""
    docstrings = {path.name: ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "" for path in scripts(folder)}
    beginnings = {name: " ".join(" ".join(text.split("\n\n")[:2]).lower().split()) for name, text in docstrings.items()}
    assert [name for name, text in beginnings.items() if "runs in" not in text] == []


def test_the_author_side_does_not_import_localcloud_when_it_is_loaded() -> None:
    code = (
        "import fmops.cli, sys; print(sorted({name.split('.')[0] for name in sys.modules}"
        " & {'sagemaker', 'boto3', 'botocore', 'localcloud', 'torch', 'pydantic'}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr


def test_no_two_shipped_folders_have_a_module_of_one_name() -> None:
    """Modules are imported flat, as in their containers; in one process the second would get the first one's."""
    seen: dict[str, str] = {}
    for folder in ("preparation", "training", "evaluation", "serving", "lambdas"):
        for path in sorted((ROOT / folder).glob("*.py")):
            assert path.name not in seen, f"{folder}/{path.name} and {seen[path.name]}/{path.name}"
            seen[path.name] = folder
    assert len(seen) > 100
