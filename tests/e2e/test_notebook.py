"""The notebook, executed by a real kernel against a real localcloud."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.e2e.conftest import House, write_config
from tests.support.command import ROOT

# The tiny model stands in for the real one, so fewer steps are enough; every cell runs as it is written.
LOCAL = """environments:
  local:
    training: {max_steps: 4, batch_size: 4, max_seq_length: 256}
    evaluation: {rows: 8, few_shot: 2, max_new_tokens: 8}
    endpoint: {rollout: {wait_seconds: 1, keep_seconds: 0}}
"""


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "upsert_and_start.ipynb", as_version=4)
    write_config(tmp_path, environments=LOCAL)
    monkeypatch.setenv("FMOPS_HOME", str(house.home))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    html = [
        output["data"]["text/html"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "text/html" in output.get("data", {})
    ]
    assert any("<table>" in text and "QualityGate" in text for text in html), "the run's steps are shown as a table"
    [report] = [text for text in html if "<iframe" in text]
    assert 'sandbox=""' in report, "the page may not act in the notebook"
    assert "&lt;html" in report
    answer = notebook.cells[-1].outputs[-1]["data"]["text/plain"]
    assert isinstance(answer, str)
    assert len(answer) > 2


def test_the_notebook_is_committed_without_outputs() -> None:
    notebook = nbformat.read(Path(ROOT / "notebooks" / "upsert_and_start.ipynb"), as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    assert len(notebook.cells) >= 14


def test_the_install_cell_brings_what_the_code_asks_for() -> None:
    """That a kernel goes on with what it had loaded was seen in an empty environment: it has to be restarted."""
    from examples.base_model import INSTALL

    notebook = nbformat.read(ROOT / "notebooks" / "upsert_and_start.ipynb", as_version=4)
    install = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert INSTALL.removeprefix("pip install ") in install
    assert install.rstrip().splitlines()[-1].lstrip().startswith('raise SystemExit("Installed. Now restart the kernel')
