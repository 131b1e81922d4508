"""`fmops local up | down | status`: AWS on this machine."""

from __future__ import annotations

import click

from configuration.errors import UserError
from fmops.commands.options import target_options
from fmops.pipeline import Pipeline
from pipelines.terminal import say


@click.group()
def local() -> None:
    """localcloud, AWS on this machine: up, down, status."""


@local.command()
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Loopback port [default: 4566].")
@target_options
def up(pipeline: Pipeline, port: int | None) -> None:
    """Start localcloud (nothing happens when it runs already)."""
    from localcloud import control
    from localcloud.home import ControlError

    aws = pipeline.config.aws  # read before anything starts
    try:
        info = control.up(pipeline.home, **({} if port is None else {"port": port}))
    except ControlError as error:
        raise UserError(str(error)) from None
    say(f"localcloud answers at {info.url} (process {info.pid}, state in {pipeline.home}).")
    say("\nTo point boto3, the SageMaker SDK or the AWS CLI at it:")
    for name, value in control.shell_environment(pipeline.home, info, aws.account_id, aws.region).items():
        say(f"  export {name}={value}")


@local.command()
@target_options
def down(pipeline: Pipeline) -> None:
    """Stop localcloud, its jobs and its endpoints; its state stays."""
    from localcloud import control
    from localcloud.home import ControlError

    try:
        stopped = control.down(pipeline.home)
    except ControlError as error:
        raise UserError(str(error)) from None
    say("localcloud is stopped." if stopped else "localcloud was not running.")


@local.command()
@target_options
def status(pipeline: Pipeline) -> None:
    """Say whether localcloud runs, and where."""
    from localcloud import control

    info = control.status(pipeline.home)
    if info is None:
        say("localcloud is not running. Start it with: fmops local up")
        raise click.exceptions.Exit(1)
    say(f"localcloud answers at {info.url} (process {info.pid}, state in {pipeline.home}).")
    say(f"Jobs: {info.opt_ml}.")
