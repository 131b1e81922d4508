"""What a run found: its metrics with intervals, and the HTML report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmops.run import Run


@dataclass(frozen=True)
class Report:
    """evaluation.json and report.html of one run, on this machine. In a notebook it shows the page, sandboxed."""

    path: Path
    """report.html."""
    evaluation: dict[str, Any]
    """evaluation.json; docs/contracts.md has its shape."""

    @classmethod
    def fetch(cls, run: Run, directory: Path) -> Report:
        """Fetch both files into `directory/<execution id>/`; what became of the version goes into the page.

        Raises UserError where the run did not reach Evaluate.
        """
        from pipelines import results
        from pipelines.version_section import add_version

        session = run.pipeline.session
        report = cls(results.download_report(session, run.arn, directory), results.evaluation(session, run.arn))
        version = run.find_version()
        if version:
            from pipelines.deployments import WORDS

            add_version(report.path, version.package, version.deployments(), WORDS)
        return report

    @property
    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """metric -> model (candidate, base, base_few_shot, improvement) -> value, low and high (95%)."""
        return dict(self.evaluation["metrics"])

    def __str__(self) -> str:
        from pipelines.results import gate_lines, metrics_table
        from pipelines.terminal import console as new_console

        console = new_console(width=100)
        with console.capture() as shown:
            console.print(metrics_table(self.evaluation))
        decision = "\n".join(gate_lines(self.evaluation))
        return f"{shown.get()}{decision}\nReport: {self.path}"

    def _repr_html_(self) -> str:
        from fmops.notebook import sandboxed

        return sandboxed(self.path.read_text("utf-8"))
