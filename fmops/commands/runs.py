"""`fmops start | status | logs | stop | report`: one execution of the pipeline."""

from __future__ import annotations

from pathlib import Path

import click

from fmops.commands.options import parse_pairs, target_options
from fmops.pipeline import Pipeline
from fmops.run import Run
from pipelines.terminal import say

_execution = click.argument("execution", required=False)


@click.command()
@click.option("-p", "--parameter", "pairs", multiple=True, metavar="Name=Value", help="Override a pipeline parameter.")
@click.option("--data", type=click.Path(path_type=Path), help="A local CSV, JSONL or Parquet file to train on.")
@click.option("--wait", is_flag=True, help="Watch the execution to its end; exit 1 unless it succeeds.")
@target_options
def start(pipeline: Pipeline, pairs: tuple[str, ...], data: Path | None, wait: bool) -> None:
    """Start the pipeline, with overrides or your own data.

    With --local, localcloud, its resources, the pipeline and the base model are set up first.
    """
    run = pipeline.start(data, parse_pairs("-p", pairs, "Epochs=2"))
    if wait:
        watch_or_leave(run)
        say(f"Next: fmops report {run.id}{pipeline.flag}")
    else:
        say(f"Next: fmops status {run.id} --wait{pipeline.flag}")


def watch_or_leave(run: Run) -> None:
    """`watch`, where Ctrl-C leaves the execution running and says how to come back to it or stop it."""
    from configuration.errors import UserError

    try:
        run.watch()
    except KeyboardInterrupt:
        raise UserError(
            f"Stopped watching; execution {run.id} continues.\n"
            f"Watch again: fmops status {run.id} --wait{run.pipeline.flag}\n"
            f"Stop it: fmops stop {run.id}{run.pipeline.flag}"
        ) from None


@click.command()
@_execution
@click.option("--wait", is_flag=True, help="Watch the execution to its end; exit 1 unless it succeeds.")
@target_options
def status(pipeline: Pipeline, execution: str | None, wait: bool) -> None:
    """Show an execution's steps (default: the latest)."""
    from pipelines import executions
    from pipelines.terminal import console as new_console
    from pipelines.watch import Watch

    run = pipeline.run(execution)
    if wait:
        watch_or_leave(run)
        return
    console = new_console()
    answer = run.describe()
    console.print(
        f"{pipeline.config.name}, execution {run.id}: {answer['PipelineExecutionStatus']}"
        f", started {answer['CreationTime']:%Y-%m-%d %H:%M:%S}",
        highlight=False,
    )
    console.print(Watch(pipeline.session, run.arn, console).table(run.steps()))
    reason = executions.failure(pipeline.session, run.arn, answer)
    if reason:
        console.print(reason, markup=False, highlight=False)


@click.command()
@_execution
@click.option("--step", help="Only this step, for example Train.")
@click.option("--follow", is_flag=True, help="Keep printing until the execution ends.")
@target_options
def logs(pipeline: Pipeline, execution: str | None, step: str | None, follow: bool) -> None:
    """Print the logs of an execution's jobs."""
    for line in pipeline.run(execution).logs(step, follow):
        say(line)


@click.command()
@_execution
@target_options
def stop(pipeline: Pipeline, execution: str | None) -> None:
    """Stop an execution and its running jobs."""
    pipeline.run(execution).stop()


@click.command()
@_execution
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), help="Output directory [default: .fmops/reports]."
)
@target_options
def report(pipeline: Pipeline, execution: str | None, output: Path | None) -> None:
    """Show an execution's metrics; fetch its HTML report."""
    from pipelines import registry
    from pipelines.deployments import WORDS
    from pipelines.results import gate_lines, metrics_table
    from pipelines.terminal import console as new_console

    run = pipeline.run(execution)
    found = run.report(output)
    new_console().print(metrics_table(found.evaluation))
    for line in gate_lines(found.evaluation):
        say(line)
    version = run.find_version()
    if version:
        mine = version.deployments()
        where = f", {WORDS[mine[-1]['state']]} on {mine[-1]['settings']['endpoint_name']}" if mine else ""
        status = version.package["ModelApprovalStatus"]
        say(f"Version {version.number} of {version.group}: {registry.STATUS.get(status, status)}{where}")
    say(f"Report: {found.path}")
