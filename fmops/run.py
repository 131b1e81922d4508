"""One run: watch it, read its logs, look at its report, find the version that it registered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmops.notebook import display, in_notebook, table

if TYPE_CHECKING:
    from fmops.pipeline import Pipeline
    from fmops.report import Report
    from fmops.version import Version

LOCAL_POLL_SECONDS, AWS_POLL_SECONDS = 1.0, 5.0
HEAD = ("step", "status", "time", "")


@dataclass(frozen=True)
class Run:
    """One execution of the pipeline. In a notebook it shows itself as a table of its steps."""

    pipeline: Pipeline
    arn: str

    @property
    def id(self) -> str:
        """The short id at the end of the execution's ARN."""
        return self.arn.rsplit("/", 1)[1]

    def describe(self) -> dict[str, Any]:
        """DescribePipelineExecution's answer."""
        return dict(self._sagemaker.describe_pipeline_execution(PipelineExecutionArn=self.arn))

    @property
    def status(self) -> str:
        """Executing, Stopping, Stopped, Failed or Succeeded."""
        return str(self.describe()["PipelineExecutionStatus"])

    def steps(self) -> list[dict[str, Any]]:
        """The steps that have begun, oldest first, as ListPipelineExecutionSteps answers them."""
        from pipelines import executions

        return executions.steps(self.pipeline.session, self.arn)

    def watch(self) -> None:
        """Show the run to its end: a table that refreshes in a notebook or terminal, a line per change elsewhere.

        Raises UserError with the reason unless the run succeeds.
        """
        from configuration.errors import UserError
        from pipelines import executions, results

        ended = self._follow()
        if ended["PipelineExecutionStatus"] == "Succeeded":
            return
        reason = executions.failure(self.pipeline.session, self.arn, ended) or "no reason given"
        rejected = results.rejected_rows_uri(self.pipeline.session, self.arn)
        raise UserError(
            f"The execution ended {ended['PipelineExecutionStatus']}: {reason}\n"
            + (f"Rejected rows: {rejected}\n" if rejected else "")
            + f"Its logs: fmops logs {self.id}{self.pipeline.flag}"
        )

    def _follow(self) -> dict[str, Any]:
        from pipelines.terminal import console as new_console
        from pipelines.watch import Watch

        poll = LOCAL_POLL_SECONDS if self.pipeline.local else AWS_POLL_SECONDS
        console = new_console(width=100) if in_notebook() else new_console()
        watch = Watch(self.pipeline.session, self.arn, console)
        if not in_notebook():
            return watch.until_finished(poll)
        show = display()
        return watch.until_finished_with(lambda rows: show(table(rows, HEAD)), poll)

    def logs(self, step: str | None = None, follow: bool = False) -> Iterator[str]:
        """The lines that the run's jobs have logged, `Train: ...`; with `follow` until the run ends."""
        from configuration.errors import UserError
        from pipelines import executions
        from pipelines.logs import LogTail

        tails: dict[str, LogTail] = {}
        while True:
            ended = self.status in executions.FINISHED
            for item in self.steps():
                job = executions.job(item)
                if job and step in (None, item["StepName"]):
                    tail = tails.setdefault(item["StepName"], LogTail(self.pipeline.session, job))
                    yield from (f"{item['StepName']}: {line}" for line in tail.read())
            if ended or not follow:
                break
            time.sleep(LOCAL_POLL_SECONDS)
        if not tails:
            named = f"step {step!r}" if step else "execution"
            raise UserError(f"This {named} has no job logs (execution {self.id}).")

    def stop(self) -> None:
        """Stop the run; its running jobs are stopped too. A run that has ended stays as it is."""
        from pipelines import executions

        status = self.status
        if status in executions.FINISHED:
            self.pipeline.say(f"Execution {self.id} has ended already ({status}).")
            return
        self._sagemaker.stop_pipeline_execution(
            PipelineExecutionArn=self.arn, ClientRequestToken=self.id.ljust(32, "0")
        )
        self.pipeline.say(f"Stopping execution {self.id}.")

    def report(self, directory: Path | str | None = None) -> Report:
        """The run's metrics and HTML report, fetched into `directory` (default: `reports/` in the pipeline's home)."""
        from fmops.report import Report

        return Report.fetch(self, Path(directory) if directory else self.pipeline.home / "reports")

    @property
    def version(self) -> Version:
        """The version that the run registered. Raises UserError where it registered none."""
        from configuration.errors import UserError

        found = self.find_version()
        if found is None:
            raise UserError(
                f"Execution {self.id} has registered no version. See: fmops status {self.id}{self.pipeline.flag}"
            )
        return found

    def find_version(self) -> Version | None:
        """The version that the run registered, or None."""
        from fmops.version import Version
        from pipelines import executions, registry

        arn = executions.model_package_arn(self.pipeline.session, self.arn)
        return Version(self.pipeline, registry.describe(self.pipeline.session, arn)) if arn else None

    @property
    def _sagemaker(self) -> Any:
        from pipelines.aws import client

        return client(self.pipeline.session, "sagemaker")

    def __repr__(self) -> str:
        return f"Run({self.id}, {self.status})"

    def _repr_html_(self) -> str:
        from pipelines.terminal import console as new_console
        from pipelines.watch import Watch

        return table(Watch(self.pipeline.session, self.arn, new_console()).rows(), HEAD)
