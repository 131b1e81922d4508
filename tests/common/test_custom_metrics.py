"""A user's own metrics: what the file may hold, and what is said of one that can't be used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from common.custom_metrics import CustomMetricError, declared, load, try_out
from common.metric_names import Metric

FILE = Path(__file__).resolve().parents[1] / "support" / "own_metrics.py"
HEAD = "def f(prediction, target, row):\n    return 1.0\n"
ROW: dict[str, Any] = {"messages": [], "group": "g"}


def test_the_table_is_read_without_running_the_file() -> None:
    source = FILE.read_text("utf-8")
    expected = (Metric("area_right", "Area named"), Metric("longer_by", "Longer by", lower_is_better=True, share=False))
    assert declared(f"raise SystemExit\n{source}", "x.py") == expected
    found = load(source, "x.py")
    assert tuple(custom.metric for custom in found) == expected
    assert found[0].value("the attic", '{"arguments": {"area": "attic"}}', ROW) == 1.0
    assert found[0].value("the attic", "a text", ROW) is None
    assert found[1].value("four", "no", ROW) == 2.0
    assert [custom.metric for custom in try_out(source, str(FILE))] == list(expected)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def f(:\n", "m.py, line 1: "),
        ("x = 1\n", "m.py: needs one table METRICS"),
        (f"{HEAD}METRICS = dict(a=1)\n", "m.py: needs one table METRICS"),
        (f"{HEAD}METRICS = {{}}\n", "m.py, line 3: METRICS: 0 metrics; 1 to 20 go"),
        (
            f"{HEAD}METRICS = {{'a': {{'function': f}}, 'a': {{'function': f}}}}\n",
            "line 3: METRICS: a stands there twice",
        ),
        (f"{HEAD}METRICS = {{\n'A b': {{'function': f}}}}\n", "m.py, line 4: METRICS: a metric's name is"),
        (f"{HEAD}METRICS = {{**x}}\n", "not what ** brings"),
        (f"{HEAD}METRICS = {{'{'a' * 41}': {{'function': f}}}}\n", "up to 40 characters"),
        (f"{HEAD}METRICS = {{'exact_match': {{'function': f}}}}\n", "fmops has something of that name"),
        (f"{HEAD}METRICS = {{'rows': {{'function': f}}}}\n", "fmops has something of that name"),
        (f"{HEAD}METRICS = {{'a': f}}\n", "METRICS['a']: f; allowed: {\"function\""),
        (f"{HEAD}METRICS = {{'a': {{'function': g}}}}\n", "METRICS['a']: function: g; allowed: a function's name"),
        (f"{HEAD}METRICS = {{'a': {{'function': 'f'}}}}\n", "function: 'f'; allowed"),
        (f"{HEAD}METRICS = {{'a': {{'share': False}}}}\n", "METRICS['a']: has no \"function\""),
        (f"{HEAD}METRICS = {{'a': {{'function': f, 'share': 0}}}}\n", "share: 0; allowed: True or False"),
        (f"{HEAD}METRICS = {{'a': {{'function': f, 'shares': True}}}}\n", "'shares'; allowed: function, label"),
    ],
)
def test_a_table_that_is_wrong_is_named_with_file_line_and_reason(source: str, words: str) -> None:
    with pytest.raises(CustomMetricError) as caught:
        declared(source, "m.py")
    assert words in str(caught.value)
    assert str(caught.value).startswith("m.py")


def one(body: str, options: str = "") -> str:
    return (
        f"import math\n\ndef f(prediction, target, row):\n    {body}\n\nMETRICS = {{'a': {{'function': f{options}}}}}\n"
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            one("return 1 / 0"),
            "m.py, line 4: the metric 'a', of the answer 'said' where 'wanted' was wanted, failed: ZeroD",
        ),
        (one("return row['slice']"), "failed: KeyError: 'slice'"),
        (one("return math.nan"), "is nan; allowed: a number from 0 to 1"),
        (one("return math.inf", ", 'share': False"), "is inf; allowed: a finite number"),
        (one("return 2"), 'is 2.0; allowed: a number from 0 to 1, or set "share": False'),
        (one("return '1'"), "is '1'; allowed: a number, or None"),
        (one("return [1]"), "is [1]; allowed: a number, or None"),
        (one("return row.clear()"), ""),
    ],
)
def test_a_value_that_is_none_is_named_with_the_answer(source: str, words: str) -> None:
    [custom] = load(source, "m.py")
    row = dict(ROW)
    if not words:
        assert custom.value("said", "wanted", row) is None
        assert row == ROW, "a function gets a row of its own"
        return
    with pytest.raises(CustomMetricError) as caught:
        custom.value("said", "wanted", row)
    assert words in str(caught.value)


def test_a_file_that_can_not_be_run_is_named_with_its_line() -> None:
    with pytest.raises(
        CustomMetricError, match=r"m\.py, line 1: can't be loaded: ModuleNotFoundError: .*inside of the"
    ):
        load(f"import nothing_of_this_name\n{HEAD}METRICS = {{'a': {{'function': f}}}}\n", "m.py")
    with pytest.raises(CustomMetricError, match=r"m\.py, line 3: can't be loaded: ValueError: no"):
        load(f"{HEAD}raise ValueError('no')\nMETRICS = {{'a': {{'function': f}}}}\n", "m.py")


def test_samples_are_of_text_and_of_json_and_one_has_to_work() -> None:
    for_json = one("import json; return float(json.loads(target)['name'] in prediction)")
    assert len(try_out(for_json, "m.py")) == 1
    with pytest.raises(CustomMetricError, match=r"m\.py, line 4: the metric 'a', .* failed: ZeroDivisionError"):
        try_out(one("return 1 / 0"), "m.py")
    with pytest.raises(CustomMetricError, match="takes 2 positional arguments"):
        try_out("def f(a, b):\n    return 1\n\nMETRICS = {'a': {'function': f}}\n", "m.py")


def test_nothing_is_written_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text(one("return None"))
    try_out(path.read_text(), str(path))
    assert [file.name for file in tmp_path.iterdir()] == ["m.py"]
    assert sys.modules["custom_metrics"].__file__ == str(path)
