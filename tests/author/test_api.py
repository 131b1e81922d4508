"""The Python API: what it means before anything is sent, and what it shows in a notebook."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fmops
from fmops.notebook import in_notebook, sandboxed, table
from fmops.report import Report

ROOT = Path(__file__).resolve().parents[2]


def test_importing_it_takes_nothing_heavy_along() -> None:
    heavy = "{'sagemaker', 'boto3', 'botocore', 'localcloud', 'torch', 'pydantic', 'IPython', 'rich'}"
    code = (
        "import fmops, sys; fmops.Pipeline, fmops.Run, fmops.Version, fmops.Endpoint, fmops.Report;"
        f"print(sorted({{name.split('.')[0] for name in sys.modules}} & {heavy}), fmops.__version__)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[] 0.1.0\n"


def test_every_public_name_says_what_it_does_and_is_typed() -> None:
    looked_at = 0
    for name in fmops.__all__:
        thing = getattr(fmops, name)
        assert inspect.getdoc(thing), name
        if not thing.__module__.startswith("fmops"):
            continue
        for attribute, value in vars(thing).items():
            function = value.fget if isinstance(value, property) else getattr(value, "func", value)
            if attribute.startswith("_") or not inspect.isfunction(function):
                continue
            looked_at += 1
            assert function.__annotations__.get("return"), f"{name}.{attribute}"
            assert inspect.getdoc(function) or attribute in ("number", "arn", "group", "config"), f"{name}.{attribute}"
    assert looked_at >= 40
    with pytest.raises(AttributeError, match="no attribute 'Pipelines'"):
        fmops.Pipelines  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "local", "environment", "flag"),
    [
        ({}, False, None, ""),
        ({"env": "local"}, True, "local", " --local"),
        ({"local": True}, True, "local", " --local"),
        ({"local": True, "env": "dev"}, True, "dev", " --local --env dev"),
        ({"env": "prod"}, False, "prod", " --env prod"),
    ],
)
def test_environment_and_place(arguments: dict[str, Any], local: bool, environment: str | None, flag: str) -> None:
    pipeline = fmops.Pipeline(ROOT / "pipeline.yaml", **arguments)
    assert (pipeline.local, pipeline.loaded.environment, pipeline.flag) == (local, environment, flag)
    assert pipeline.endpoint.name == f"{pipeline.config.aws.resource_prefix}-endpoint"


def test_it_validates_and_defines_offline(definition_text: str) -> None:
    pipeline = fmops.Pipeline(str(ROOT / "pipeline.yaml"))
    assert pipeline.validate() == []
    assert pipeline.definition() == definition_text
    assert json.loads(pipeline.definition())["Version"] == "2020-12-01"


def test_mistakes_are_errors_that_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(fmops.UsageProblem, match="there is no such file"):
        fmops.Pipeline(tmp_path / "absent.yaml").validate()
    with pytest.raises(fmops.UserError, match="it has: dev, local, prod"):
        fmops.Pipeline(ROOT / "pipeline.yaml", env="staging").definition()


def test_foreign_text_is_escaped_and_a_report_is_shut_in(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text('<html><script>alert("x")</script>', "utf-8")
    shown = Report(page, {"metrics": {}, "rows": 0})._repr_html_()
    assert shown.startswith('<iframe sandbox="" srcdoc="&lt;html&gt;&lt;script&gt;alert(&quot;x&quot;)')
    assert "<script>" not in shown
    assert sandboxed('">').count('"&gt;') == 0 or "&quot;&gt;" in sandboxed('">')
    assert "&lt;b&gt;" in table([("<b>", "x")], ("a", "b"))
    assert not in_notebook()
