"""`fmops evaluate`: score whatever is deployed."""

from __future__ import annotations

from pathlib import Path

import click

from configuration.errors import UsageProblem
from fmops.commands.options import target_options
from fmops.pipeline import Pipeline
from pipelines.terminal import console, say

ROWS = click.Path(exists=True, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--endpoint", metavar="NAME[/COMPONENT]", help="A SageMaker endpoint.")
@click.option("--bedrock", "model", metavar="ID", help="A model, profile or deployment of Bedrock: id or ARN.")
@click.option("--base", metavar="ID", help="Compare with: bedrock:ID or endpoint:NAME.")
@click.option("--data", type=ROWS, required=True, help="Rows in any form that Prepare reads.")
@click.option("--output", type=FOLDER, default=Path("evaluation-results"), show_default=True,
              help="Where report and answers go; answers that are there are not asked for again.")  # fmt: skip
@click.option("--at-once", type=click.IntRange(1, 256), default=8, show_default=True, help="Rows asked at once.")
@click.option("--max-rows", type=click.IntRange(0), default=0, help="At most so many, at random [default: all].")
@target_options
def evaluate(
    pipeline: Pipeline,
    endpoint: str | None,
    model: str | None,
    base: str | None,
    data: Path,
    output: Path,
    at_once: int,
    max_rows: int,
) -> None:
    """Score whatever is deployed on rows of yours.

    With intervals, latencies and tokens; resumes where it was interrupted.
    """
    from pipelines.results import metrics_table

    if bool(endpoint) == bool(model):
        raise UsageProblem("Name one: --endpoint NAME or --bedrock ID")
    where = f"endpoint:{endpoint}" if endpoint else f"bedrock:{model}"
    found = pipeline.evaluate(where, data, output, base, at_once, max_rows)
    console().print(metrics_table(found))
    for model, told in found["served"].items():
        times = ", ".join(f"{name} {told[f'latency_{name}']:.2f} s" for name in ("p50", "p90", "p99"))
        tokens = (
            f"{told['input_tokens']} input and {told['output_tokens']} output tokens in {told['attempts']} requests"
        )
        cost = "" if told["usd"] is None else f", ${told['usd']:.4f}"
        say(f"{model}: {times}; {tokens}{cost}")
    say(f"The report: {output / 'report.html'}")
