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


def test_the_terminal_says_of_how_many_rows_and_shows_metrics_of_the_users_own() -> None:
    estimate = {"value": 0.625, "low": 0.5, "high": 0.75}
    models = dict.fromkeys(MODELS, estimate)
    report = {
        "rows": 12,
        "own_metrics": {"area_right": {"label": "Area", "lower_is_better": False, "share": True},
                        "longer_by": {"label": "Longer", "lower_is_better": True, "share": False}},
        "metrics": {"json_valid": {**models, "rows": 7}, "area_right": models, "longer_by": models, "unknown": models},
    }  # fmt: skip
    lines = shown(metrics_table(report)).splitlines()
    said = {line.split()[0]: line for line in lines if line.split()}
    assert "of 7 rows" in "\n".join(lines)
    assert said["area_right"].count("62.5%") == 4
    assert said["longer_by"].count("0.625") == said["unknown"].count("0.625") == 4
