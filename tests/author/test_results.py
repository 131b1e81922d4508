"""What the command line shows of evaluation.json, for each kind of data."""

from __future__ import annotations

from typing import Any

import pytest

from common.metric_names import METRICS, Metric, measured
from common.rows import Kind
from pipelines.registry import versions_table
from pipelines.results import cell, metrics_table
from pipelines.terminal import console as new_console

MODELS = ("candidate", "base", "base_few_shot", "improvement")


def shown(table: Any) -> str:
    console = new_console(width=80)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


@pytest.mark.parametrize("kind", ["messages", "preference", "text"])
def test_the_tables_show_what_was_measured(kind: Kind) -> None:
    import datetime

    estimate = {"value": 0.625, "low": 0.5, "high": 0.75}
    report = {"rows": 12, "metrics": {metric.name: dict.fromkeys(MODELS, estimate) for metric in measured(kind)}}
    text = shown(metrics_table(report))
    for metric in METRICS:
        assert (metric.name in text) == (metric in measured(kind))
    package = {"ModelPackageVersion": 1, "ModelApprovalStatus": "Approved",
               "CreationTime": datetime.datetime(2026, 11, 26, tzinfo=datetime.UTC)}  # fmt: skip
    text = shown(versions_table([(package, report, "fmops-endpoint")]))
    assert ("prefers" in text) == (kind == "preference")
    assert ("exact match" in text) == (kind != "text")
    assert "0.625" in text


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_shares_are_percentages(metric: Metric) -> None:
    assert cell(metric, {"value": 0.5}) == ("50.0%" if metric.share else "0.500")
    assert cell(metric, None) == "-"
