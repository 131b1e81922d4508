"""The notebook, executed by a real kernel against a real localcloud."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.e2e.conftest import House
from tests.support.command import ROOT


def test_the_notebook_runs_from_top_to_bottom(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "upsert_and_start.ipynb", as_version=4)
    # The tiny model stands in for the real one, so fewer steps are enough; every cell runs as it is written.
    start = next(cell for cell in notebook.cells if "executions.start" in cell.source)
    start.source = start.source.replace(
        "**PARAMETERS}", '**PARAMETERS, "MaxSteps": "4", "EvaluationRows": "8", "MaxNewTokens": "8", "FewShot": "2"}'
    )
    monkeypatch.setenv("FMOPS_HOME", str(house.home))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(house.directory)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("text/html" in output.get("data", {}) for output in outputs), "the report is shown inline"
    answer = notebook.cells[-1].outputs[-1]["data"]["text/plain"]
    assert isinstance(answer, str)
    assert len(answer) > 2


def test_the_notebook_is_committed_without_outputs() -> None:
    notebook = nbformat.read(Path(ROOT / "notebooks" / "upsert_and_start.ipynb"), as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    assert len(notebook.cells) >= 14
