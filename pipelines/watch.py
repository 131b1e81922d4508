"""Shows an execution live: one line per step, with training progress read from the job's log.

On a terminal and in a notebook the table is redrawn in place; elsewhere (CI, a pipe) a line is printed per change.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipelines import executions
from pipelines.aws import client
from pipelines.logs import LogTail

if TYPE_CHECKING:
    import boto3
    from rich.console import Console
    from rich.table import Table

Row = tuple[str, str, str, str]
"""A step's name, status, time and detail, in words."""
_TRAIN = re.compile(
    r"\[train\] step=(?P<step>\d+)/(?P<steps>\d+).* train:loss=(?P<loss>\S+).*"
    r"train:completion_tokens_per_second=(?P<speed>\S+).* train:eta_seconds=(?P<eta>\S+)"
)
_EVAL = re.compile(r"\[eval\] step=\S+ validation:loss=(?P<loss>\S+)")
_SCORE = re.compile(r"\[score\] model=(?P<model>\S+) rows=(?P<rows>\d+)/(?P<total>\d+)")
_STYLES = {"Succeeded": "green", "Failed": "red", "Stopped": "yellow", "Executing": "cyan"}


class Progress:
    """The latest progress of the job behind one step, in words."""

    def __init__(self, session: boto3.Session, job: executions.Job) -> None:
        self._tail = LogTail(session, job)
        self._parts: dict[str, str] = {}

    def read(self) -> str:
        for line in self._tail.read():
            if found := _TRAIN.search(line):
                eta = divmod(round(float(found["eta"])), 60)
                self._parts["train"] = (
                    f"step {found['step']}/{found['steps']}  loss {float(found['loss']):.3f}  "
                    f"{float(found['speed']):.0f} tokens/s  {eta[0]}:{eta[1]:02d} to go"
                )
            elif found := _EVAL.search(line):
                self._parts["eval"] = f"validation loss {float(found['loss']):.3f}"
            elif found := _SCORE.search(line):
                self._parts["score"] = f"{found['model']} {found['rows']}/{found['total']} rows"
            elif line.startswith("[prepare]"):
                self._parts["prepare"] = line.removeprefix("[prepare]").strip()
        return "  ".join(self._parts.values())


class Watch:
    """Follows one execution to its end."""

    def __init__(self, session: boto3.Session, arn: str, console: Console) -> None:
        self._session = session
        self._arn = arn
        self._console = console
        self._progress: dict[str, Progress] = {}
        self._details: dict[str, str] = {}

    def until_finished(self, poll_seconds: float) -> dict[str, Any]:
        """Block until the execution ends; returns DescribePipelineExecution's answer."""
        if self._console.is_terminal:
            return self._redraw(poll_seconds)
        return self._print_changes(poll_seconds)

    def until_finished_with(self, show: Callable[[list[Row]], None], poll_seconds: float) -> dict[str, Any]:
        """The same, for a notebook: `show` gets the rows of the table again and again, and replaces what it showed."""
        while True:
            execution, steps = self._state()
            show(self._rows(steps))
            if execution["PipelineExecutionStatus"] in executions.FINISHED:
                return dict(execution)
            time.sleep(poll_seconds)

    def rows(self) -> list[Row]:
        """The steps as they are now."""
        return self._rows(self._state()[1])

    def _rows(self, steps: list[dict[str, Any]]) -> list[Row]:
        return [(step["StepName"], describe(step), f"{seconds(step):.0f} s", self.detail(step)) for step in steps]

    def _state(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        # The execution is read before its steps, so that a finished execution always comes with all of its steps.
        execution = client(self._session, "sagemaker").describe_pipeline_execution(PipelineExecutionArn=self._arn)
        steps = executions.steps(self._session, self._arn)
        for step in steps:
            job = executions.job(step)
            name = step["StepName"]
            if job and not step.get("CacheHitResult") and (step["StepStatus"] == "Executing" or name in self._progress):
                progress = self._progress.setdefault(name, Progress(self._session, job))
                self._details[name] = progress.read()
                if step["StepStatus"] in executions.FINISHED:
                    del self._progress[name]
        return execution, steps

    def _redraw(self, poll_seconds: float) -> dict[str, Any]:
        from rich.live import Live

        with Live(console=self._console, refresh_per_second=4) as live:
            while True:
                execution, steps = self._state()
                live.update(self.table(steps))
                if execution["PipelineExecutionStatus"] in executions.FINISHED:
                    return dict(execution)
                time.sleep(poll_seconds)

    def _print_changes(self, poll_seconds: float) -> dict[str, Any]:
        printed: dict[str, str] = {}
        last_detail = 0.0
        while True:
            execution, steps = self._state()
            report_progress = time.monotonic() - last_detail > 10
            for step in steps:
                name, status = step["StepName"], describe(step)
                detail = self.detail(step)
                if printed.get(name) != status or (report_progress and detail and step["StepStatus"] == "Executing"):
                    line = f"{name:<16} {status:<10} {seconds(step):>4.0f} s  {detail}".rstrip()
                    self._console.print(line, highlight=False, markup=False, soft_wrap=True)
                    printed[name] = status
                    last_detail = time.monotonic()
            if execution["PipelineExecutionStatus"] in executions.FINISHED:
                return dict(execution)
            time.sleep(poll_seconds)

    def detail(self, step: dict[str, Any]) -> str:
        """What to say beside a step's status: progress, outcome or the reason of a failure."""
        if step.get("FailureReason"):
            return str(step["FailureReason"])
        outcome = step.get("Metadata", {}).get("Condition", {}).get("Outcome")
        if outcome:
            return f"condition is {str(outcome).lower()}"
        registered = executions.registered_by(step)
        if registered:
            return f"version {str(registered).rsplit('/', 1)[1]}"
        return self._details.get(step["StepName"], "")

    def table(self, steps: list[dict[str, Any]]) -> Table:
        """The steps as a table: name, status, seconds, detail."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for step in steps:
            table.add_row(
                Text(step["StepName"]),
                Text(describe(step), style=_STYLES.get(step["StepStatus"], "")),
                Text(f"{seconds(step):.0f} s", justify="right"),
                Text(self.detail(step), overflow="fold"),
            )
        return table


def describe(step: dict[str, Any]) -> str:
    """A step's status; a cache hit is named as such."""
    return "Cache hit" if step.get("CacheHitResult") else str(step["StepStatus"])


def seconds(step: dict[str, Any]) -> float:
    """How long a step has run, in seconds."""
    begin = step.get("StartTime")
    if begin is None:
        return 0.0
    end = step.get("EndTime") or datetime.now(UTC)
    return max(0.0, float((end - begin).total_seconds()))
