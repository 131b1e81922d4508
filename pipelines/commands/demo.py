"""`fmops demo`: the main job on this machine, from raw rows to an endpoint that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipelines.commands.options import Target

if TYPE_CHECKING:
    from rich.console import Console

PROMPTS = (
    "turn on the lights in the kitchen",
    "set the bedroom temperature to 21 degrees",
    "start a 10 minute timer for the pasta",
)


@click.command()
@click.option("--config", "config_path", type=click.Path(dir_okay=False), default="pipeline.yaml", show_default=True)
def demo(config_path: str) -> None:
    """Run the whole job on this machine, about five minutes.

    Fine-tunes, evaluates, registers, approves and deploys a real model; needs no account and no Docker.
    """
    from pathlib import Path

    from rich.console import Console

    from localcloud import control

    target = Target(Path(config_path), local=True)
    was_up = control.status(target.home) is not None
    try:
        run(target, Console())
    except KeyboardInterrupt:
        # Nothing may go on behind the user's back: what the demo started, it ends.
        if not was_up:
            control.down(target.home)
        click.echo(
            "Interrupted. "
            + ("localcloud runs on as before." if was_up else "localcloud and its jobs are stopped.")
            + " State is kept: run the demo again to go on from the finished steps.",
            err=True,
        )
        raise click.exceptions.Exit(1) from None


def run(target: Target, console: Console) -> None:
    """The demo, top to bottom; the same calls as the commands that it names."""
    from pipelines import executions, registry, results
    from pipelines.commands.deployment import wait_for_deployment
    from pipelines.commands.runs import watch
    from pipelines.local_ground import prepare_ground
    from pipelines.names import endpoint_name, model_package_group

    heading(console, "1  Setup: localcloud, buckets, key, roles, pipeline, base model, example data")
    session = target.session
    prepare_ground(target.config, session, target.home, click.echo)

    heading(console, "2  The pipeline: prepare -> fine-tune -> evaluate -> gate -> register")
    click.echo("$ fmops start --local --wait")
    arn = executions.start(session, target.config, {})
    watch(target, arn, console)

    heading(console, "3  The evidence")
    evaluation = results.evaluation(session, arn)
    report = results.download_report(session, arn, target.home / "reports")
    console.print(results.metrics_table(evaluation))

    heading(console, "4  The reviewer's decision: approving the version deploys it")
    package = executions.model_package_arn(session, arn)
    assert package is not None, "an execution that succeeded has registered a version"
    version = package.rsplit("/", 1)[1]
    console.print(f"The gate passed; the run registered version {version} of {model_package_group(target.config)}.")
    registry.set_status(session, package, "Approved", "Approved by fmops demo")
    wait_for_deployment(target, endpoint_name(target.config), package)

    heading(console, "5  The endpoint answers")
    for prompt in PROMPTS:
        click.echo(f"  {prompt}\n    -> {ask(target, prompt)}")

    heading(console, "Where to go on")
    for line in next_commands(report, executions.execution_id(arn)):
        click.echo(line)


def ask(target: Target, prompt: str) -> str:
    """What the endpoint makes of one prompt."""
    from pipelines import endpoint
    from pipelines.names import endpoint_name

    return endpoint.invoke(target.session, endpoint_name(target.config), prompt, max_new_tokens=64)


def heading(console: Console, text: str) -> None:
    """A section of the demo's output."""
    console.print(f"\n[bold]{text}[/bold]", highlight=False)


def next_commands(report: Any, execution: str) -> list[str]:
    """The lines that the demo ends with."""
    return [
        f"  The report:      {report}",
        '  Ask again:       fmops invoke "turn off the fan in the office" --local --stream',
        "  The version:     fmops versions --local    fmops endpoint --local    fmops lineage 1 --local",
        "  Your own data:   fmops start --local --data my.csv --wait",
        f"  This run:        fmops status {execution} --local    fmops logs {execution} --local",
        "  Stop it all:     fmops local down",
    ]
