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
    for told in found["settings"]["remote"].values():
        times = told["latency"]
        say(f"{told['where']}: p50 {times['p50']:g} s, p90 {times['p90']:g} s, p99 {times['p99']:g} s")
        tokens = f"{told['input_tokens']} input and {told['output_tokens']} output tokens"
        before = f", {told['answered_before']} answered before" if told["answered_before"] else ""
        say(f"  {tokens} in {told['attempts']} requests{before}")
    say(f"The report: {output / 'report.html'}")
