"""`fmops start | status | logs | stop | report`: one execution of the pipeline."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.options import Target, parse_parameters, target_options

if TYPE_CHECKING:
    from rich.console import Console

_execution = click.argument("execution", required=False)


@click.command()
@click.option("-p", "--parameter", "pairs", multiple=True, metavar="Name=Value", help="Override a pipeline parameter.")
@click.option("--data", type=click.Path(path_type=Path), help="A local CSV, JSONL or Parquet file to train on.")
@click.option("--wait", is_flag=True, help="Watch the execution to its end; exit 1 unless it succeeds.")
@target_options
def start(target: Target, pairs: tuple[str, ...], data: Path | None, wait: bool) -> None:
    """Start the pipeline, with overrides or your own data.

    With --local, localcloud, the ground, the pipeline and the base model are set up first.
    """
    from pipelines import executions, ground

    parameters = parse_parameters(pairs)
    if data:
        click.echo(ground.check_data(target.config, data))
    if target.local:
        from pipelines.local_ground import prepare_ground

        prepare_ground(target.config, target.session, target.home, click.echo)
    if data:
        parameters["InputDataUri"] = ground.upload_data(target.config, target.session, data)
    arn = executions.start(target.session, target.config, parameters)
    identifier = executions.execution_id(arn)
    click.echo(f"Started {target.config.name}, execution {identifier}.")
    if wait:
        watch_or_leave(target, arn)
        click.echo(f"Next: fmops report {identifier}{target.flag}")
    else:
        click.echo(f"Next: fmops status {identifier} --wait{target.flag}")


def watch(target: Target, arn: str, console: Console | None = None) -> None:
    """Show an execution to its end; UserError with its reason unless it succeeded."""
    from rich.console import Console

    from pipelines import executions, results
    from pipelines.errors import UserError
    from pipelines.watch import Watch

    poll = 1.0 if target.local else 5.0
    execution = Watch(target.session, arn, console or Console()).until_finished(poll)
    if execution["PipelineExecutionStatus"] != "Succeeded":
        reason = execution.get("FailureReason") or "no reason given"
        rejected = results.rejected_rows_uri(target.session, arn)
        raise UserError(
            f"The execution ended {execution['PipelineExecutionStatus']}: {reason}\n"
            + (f"Rejected rows: {rejected}\n" if rejected else "")
            + f"Its logs: fmops logs {executions.execution_id(arn)}{target.flag}"
        )


def watch_or_leave(target: Target, arn: str) -> None:
    """`watch`, where Ctrl-C leaves the execution running and says how to come back to it or stop it."""
    from pipelines import executions
    from pipelines.errors import UserError

    try:
        watch(target, arn)
    except KeyboardInterrupt:
        identifier = executions.execution_id(arn)
        raise UserError(
            f"Stopped watching; execution {identifier} goes on.\n"
            f"Watch again: fmops status {identifier} --wait{target.flag}\n"
            f"Stop it: fmops stop {identifier}{target.flag}"
        ) from None


@click.command()
@_execution
@click.option("--wait", is_flag=True, help="Watch the execution to its end; exit 1 unless it succeeds.")
@target_options
def status(target: Target, execution: str | None, wait: bool) -> None:
    """Show an execution's steps (the latest one unless named)."""
    from rich.console import Console

    from pipelines import executions
    from pipelines.watch import Watch

    arn = executions.resolve(target.session, target.config.name, execution)
    if wait:
        watch_or_leave(target, arn)
        return
    console = Console()
    answer = target.session.client("sagemaker").describe_pipeline_execution(PipelineExecutionArn=arn)
    console.print(
        f"{target.config.name}, execution {executions.execution_id(arn)}: {answer['PipelineExecutionStatus']}"
        f", started {answer['CreationTime']:%Y-%m-%d %H:%M:%S}",
        highlight=False,
    )
    console.print(Watch(target.session, arn, console).table(executions.steps(target.session, arn)))
    if answer.get("FailureReason"):
        console.print(answer["FailureReason"], markup=False, highlight=False)


@click.command()
@_execution
@click.option("--step", help="Only this step, for example Train.")
@click.option("--follow", is_flag=True, help="Go on printing until the execution ends.")
@target_options
def logs(target: Target, execution: str | None, step: str | None, follow: bool) -> None:
    """Print the logs of an execution's jobs."""
    from pipelines import executions
    from pipelines.errors import UserError
    from pipelines.logs import LogTail

    arn = executions.resolve(target.session, target.config.name, execution)
    client = target.session.client("sagemaker")
    tails: dict[str, LogTail] = {}
    while True:
        finished = client.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"]
        for item in executions.steps(target.session, arn):
            job = executions.job(item)
            if job and step in (None, item["StepName"]):
                tail = tails.setdefault(item["StepName"], LogTail(target.session, job))
                for line in tail.read():
                    click.echo(f"{item['StepName']}: {line}")
        if not follow or finished in executions.FINISHED:
            break
        time.sleep(1.0)
    if not tails:
        named = f"step {step!r}" if step else "execution"
        raise UserError(f"This {named} has no job logs (execution {executions.execution_id(arn)}).")


@click.command()
@_execution
@target_options
def stop(target: Target, execution: str | None) -> None:
    """Stop an execution; its running jobs are stopped too."""
    from pipelines import executions

    arn = executions.resolve(target.session, target.config.name, execution)
    client = target.session.client("sagemaker")
    status = client.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"]
    if status in executions.FINISHED:
        click.echo(f"Execution {executions.execution_id(arn)} has ended already ({status}).")
        return
    client.stop_pipeline_execution(
        PipelineExecutionArn=arn, ClientRequestToken=executions.execution_id(arn).ljust(32, "0")
    )
    click.echo(f"Stopping execution {executions.execution_id(arn)}.")


@click.command()
@_execution
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Where to [default: .fmops/reports].")
@target_options
def report(target: Target, execution: str | None, output: Path | None) -> None:
    """Show an execution's metrics and fetch its HTML report."""
    from rich.console import Console

    from pipelines import executions, results

    arn = executions.resolve(target.session, target.config.name, execution)
    path = results.download_report(target.session, arn, output or target.home / "reports")
    Console().print(results.metrics_table(results.evaluation(target.session, arn)))
    _show_version(target, arn, path)
    click.echo(f"Report: {path}")


def _show_version(target: Target, arn: str, path: Path) -> None:
    """What became of the run's model: into the page, and in one line."""
    from pipelines import deployments, executions, registry
    from pipelines.commands.deployment import endpoint_of
    from pipelines.version_section import add_version

    package_arn = executions.model_package_arn(target.session, arn)
    if package_arn is None:
        return
    package = registry.describe(target.session, package_arn)
    log = deployments.log(target.config, target.session, endpoint_of(target, package))
    mine = [item for item in log if item["model_package_arn"] == package_arn]
    add_version(path, package, mine, deployments.WORDS)
    where = f", {deployments.WORDS[mine[-1]['state']]} on {mine[-1]['settings']['endpoint_name']}" if mine else ""
    status = registry.STATUS.get(package["ModelApprovalStatus"], package["ModelApprovalStatus"])
    click.echo(f"Version {package['ModelPackageVersion']} of {package['ModelPackageGroupName']}: {status}{where}")
