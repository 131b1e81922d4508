"""`fmops demo`: the main job on this machine, from raw rows to an endpoint that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fmops.pipeline import LOCAL, Pipeline
from pipelines.terminal import say

if TYPE_CHECKING:
    from fmops.report import Report
    from fmops.run import Run

PROMPTS = (
    "turn on the lights in the kitchen",
    "set the bedroom temperature to 21 degrees",
    "start a 10 minute timer for the pasta",
)


@click.command()
@click.option("--config", "path", type=click.Path(dir_okay=False), default="pipeline.yaml", show_default=True)
@click.option("--method", type=click.Choice(["sagemaker", "bedrock"]), default="sagemaker", show_default=True,
              help="Which branch of the pipeline trains.")  # fmt: skip
def demo(path: str, method: str) -> None:
    """Run the whole job on this machine (5 to 10 minutes).

    Fine-tunes, evaluates, registers, approves and deploys a real model; needs no account and no Docker. It is
    `fmops start --local --wait`, a look at the report, and an approval.
    """
    from localcloud import control

    pipeline = Pipeline(path, LOCAL)
    was_up = control.status(pipeline.home) is not None
    try:
        run(pipeline, method)
    except KeyboardInterrupt:
        # Nothing may go on behind the user's back: what the demo started, it ends.
        if not was_up:
            control.down(pipeline.home)
        say(
            "Interrupted. "
            + ("localcloud runs on as before." if was_up else "localcloud and its jobs are stopped.")
            + " State is kept: run the demo again to go on from the finished steps.",
            err=True,
        )
        raise click.exceptions.Exit(1) from None


def run(pipeline: Pipeline, method: str = "sagemaker") -> None:
    """The demo, top to bottom; the same calls as the commands that it names."""
    from pipelines.results import gate_lines, metrics_table
    from pipelines.terminal import console as new_console

    heading("1  Setup: localcloud, buckets, key, roles, pipeline, base model, example rows")
    pipeline.upsert()

    heading("2  The pipeline: prepare -> fine-tune -> evaluate -> gate -> register")
    chosen = {} if method == "sagemaker" else {"TrainingMethod": method}
    say("$ fmops start --local --wait" + "".join(f" -p {name}={value}" for name, value in chosen.items()))
    execution = pipeline.start(parameters=chosen)
    execution.watch()

    heading("3  The evidence")
    report = execution.report()
    new_console().print(metrics_table(report.evaluation))
    for line in gate_lines(report.evaluation):
        say(line)

    heading("4  The reviewer's decision: approving the version deploys it")
    version = execution.version
    say(f"The run registered version {version.number} of {version.group}.")
    version.approve("Approved by fmops demo")

    heading("5  The endpoint answers")
    for prompt in PROMPTS:
        say(f"  {prompt}\n    -> {pipeline.endpoint.invoke(prompt, max_new_tokens=64)}")

    heading("Next steps")
    for line in next_commands(report, execution):
        say(line)


def heading(text: str) -> None:
    """A section of the demo's output."""
    say()
    say(text, bold=True)


def next_commands(report: Report, run: Run) -> list[str]:
    """The lines that the demo ends with."""
    return [
        f"  The report:      {report.path}",
        '  Ask again:       fmops invoke "turn off the fan in the office" --local --stream',
        "  The version:     fmops versions --local    fmops endpoint --local    fmops lineage 1 --local",
        "  Your own data:   fmops start --local --data my.csv --wait",
        f"  This run:        fmops status {run.id} --local    fmops logs {run.id} --local",
        "  Stop it all:     fmops local down",
    ]
