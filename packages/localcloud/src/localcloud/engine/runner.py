"""Runs executions: one thread each, which starts a step's thread as soon as all it waits for has succeeded.

A step that fails stops only what depends on it: independent branches go on, then the execution is Failed. A Fail step
lets running steps finish and starts no more. Stopping asks running jobs to stop, waits for them (and for a Lambda
function to end), and makes the execution Stopped. When localcloud ends, open steps stay open and a restart goes on.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any

from localcloud.context import Context
from localcloud.engine import attempt, journal
from localcloud.engine.definition import Definition, Step, parse
from localcloud.engine.scope import ExecutionScope
from localcloud.engine.work import Work
from localcloud.store import Document

# AWS's default is 50 at once; this machine is one machine.
MAX_PARALLEL = 16
MAX_REASON = 1300
FAILED = "Step failure: One or multiple steps failed."
"""All that an execution says; each step has its own reason."""
_CLOSE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Runners:
    """The executions of one localcloud that are at work, by ARN."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runners: dict[str, _Runner] = {}

    def launch(self, ctx: Context, arn: str) -> None:
        """Run an execution, or let its runner know that its document has changed."""
        with self._lock:
            runner = self._runners.get(arn)
            if runner is None:
                self._start(ctx, arn)
            else:
                runner.nudged = True
                runner.done.put(None)

    def leave(self, runner: _Runner) -> None:
        """Make room for another runner, and start it if the document changed after this one's last look."""
        with self._lock:
            if not runner.closing.is_set():
                del self._runners[runner.arn]
                if runner.nudged:
                    self._start(runner.ctx, runner.arn)

    def close(self) -> None:
        """End the runners; what they run stays open, for the next start."""
        with self._lock:
            runners = list(self._runners.values())
            for runner in runners:
                runner.closing.set()
        for runner in runners:
            runner.done.put(None)
        end = time.monotonic() + _CLOSE_SECONDS
        for runner in runners:
            for thread in (*runner.threads.values(), runner.thread):
                thread.join(max(0.0, end - time.monotonic()))

    def _start(self, ctx: Context, arn: str) -> None:
        self._runners[arn] = _Runner(self, ctx, arn)
        self._runners[arn].thread.start()


def launch(ctx: Context, arn: str) -> None:
    """Run an execution, or let its runner know that its document has changed."""
    ctx.cloud.service(Runners, Runners).launch(ctx, arn)


def scope(ctx: Context, execution: Document, definition: Definition) -> ExecutionScope:
    """What expressions of an execution see."""
    return ExecutionScope(ctx, execution, definition)


class _Runner:
    """One execution at work."""

    def __init__(self, runners: Runners, ctx: Context, arn: str) -> None:
        self._runners = runners
        self.ctx, self.arn, self.key = ctx, arn, journal.key_of(arn)
        self.done: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.stopping, self.closing = threading.Event(), threading.Event()
        self.nudged = False
        self.threads: dict[str, threading.Thread] = {}
        self.thread = threading.Thread(target=self._run, name=f"execution-{arn.rsplit('/', 1)[1]}", daemon=True)

    def _run(self) -> None:
        try:
            self._drive()
        except Exception as error:
            if self.closing.is_set():
                return
            _log.exception("execution %s", self.arn)
            changes = {
                "PipelineExecutionStatus": "Failed",
                "FailureReason": f"InternalServerError: {error}"[:MAX_REASON],
            }
            journal.set_execution(self.ctx, self.key, changes)
        finally:
            self._runners.leave(self)

    def _drive(self) -> None:
        """Kahn's algorithm over the documents: start what waits for nothing unfinished, look again when a step ends."""
        text = self.ctx.cloud.store.get(journal.DEFINITION_KIND, self.ctx.account, self.ctx.region, self.key)
        assert text is not None, f"{self.arn} has no definition"
        definition = parse(text["PipelineDefinition"])
        while not self.closing.is_set():
            self.nudged = False
            execution = journal.execution(self.ctx, self.key)
            if execution is None or execution["PipelineExecutionStatus"] in journal.FINAL:
                return
            if execution["PipelineExecutionStatus"] == "Stopping":
                self.stopping.set()
            docs = {doc["StepName"]: doc for doc in journal.steps(self.ctx, self.key)}
            limit = (execution.get("ParallelismConfiguration") or {}).get("MaxParallelExecutionSteps", MAX_PARALLEL)
            for step in self._startable(definition, docs, execution.get("_selected")):
                if len(self.threads) >= min(limit, MAX_PARALLEL):
                    break
                self._begin(step, execution, definition, docs.get(step.name))
            if not self.threads:
                self._finish(docs)
                return
            finished = self.done.get()
            if finished is not None:
                self.threads.pop(finished).join()

    def _startable(self, definition: Definition, docs: dict[str, Document], selected: list[str] | None) -> list[Step]:
        """Steps to start now: first those that a restart found open, then those whose turn has come."""
        open_steps = [
            definition.steps[name]
            for name, doc in docs.items()
            if doc["StepStatus"] not in journal.FINAL and name not in self.threads
        ]
        reached_fail = any(doc["_type"] == "Fail" for doc in docs.values())
        if self.stopping.is_set() or reached_fail:
            return open_steps
        ready = [
            step
            for name, step in definition.steps.items()
            if name not in docs and (selected is None or name in selected) and _ready(step, docs)
        ]
        return [*open_steps, *ready]

    def _begin(self, step: Step, execution: Document, definition: Definition, doc: Document | None) -> None:
        begun = doc or journal.begin(self.ctx, self.arn, step)
        found = ExecutionScope(self.ctx, execution, definition)
        work = Work(self.ctx, execution, step, found, self.stopping, self.closing, begun)

        def target() -> None:
            try:
                attempt.perform(work)
            finally:
                self.done.put(step.name)

        self.threads[step.name] = threading.Thread(target=target, name=f"step-{step.name}", daemon=True)
        self.threads[step.name].start()

    def _finish(self, docs: dict[str, Document]) -> None:
        ended = {"PipelineExecutionStatus": "Stopped"}
        journal.set_execution(self.ctx, self.key, ended, only_from=("Stopping",))
        failed = [doc for doc in docs.values() if doc["StepStatus"] != "Succeeded"]
        changes: dict[str, Any] = {"PipelineExecutionStatus": "Succeeded"}
        if failed:
            changes = {"PipelineExecutionStatus": "Failed", "FailureReason": FAILED}
        journal.set_execution(self.ctx, self.key, changes, only_from=("Executing",))


def _ready(step: Step, docs: dict[str, Document]) -> bool:
    """Whether all that a step waits for has succeeded, and the Condition around it went its way."""
    if any(docs.get(name, {}).get("StepStatus") != "Succeeded" for name in step.depends_on):
        return False
    if step.parent is None:
        return True
    parent = docs.get(step.parent, {})
    return parent.get("StepStatus") == "Succeeded" and str(parent["_output"]["Outcome"]) == step.branch
