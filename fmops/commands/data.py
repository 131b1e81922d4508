"""`fmops data look` and `check`: what Prepare, Train and Bedrock's jobs make of rows, before anything runs."""

from __future__ import annotations

from pathlib import Path

import click

from fmops.commands.options import target_options
from fmops.pipeline import Pipeline
from pipelines.terminal import say


@click.group()
def data() -> None:
    """Your rows, before anything runs: look, check."""


@data.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), metavar="OUT.html", help="Write a page, too.")
@click.option("--model", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
              help="A model's directory, for its tokenizer [default: the base model, if it is kept here].")  # fmt: skip
@click.option("--rows", type=click.IntRange(min=1), metavar="N", help="Rows to look at [default: 10000].")
@target_options
def look(pipeline: Pipeline, file: Path, html: Path | None, model: Path | None, rows: int | None) -> None:
    """Show what Prepare understands of a file or folder of rows.

    Formats, columns, rejected rows, splits, the first row as the model sees it, lengths and languages. Columns and task
    come from pipeline.yaml. Nothing is uploaded or started. Exit code 1: Prepare, or Train, would refuse the rows.
    """
    from pipelines.look_report import lines, page

    found = pipeline.look(file, model, rows)
    for line in lines(found):
        say(line)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(page(found), "utf-8", errors="backslashreplace")
        say(f"\nPage: {html}")
    if not found.usable:
        raise click.exceptions.Exit(1)


@data.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--for", "target", metavar="TARGET", default="sagemaker", show_default=True,
              help="sagemaker, nova, claude, llama, titan, cohere, or the id of a base model on Bedrock.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(min=1, max=100), metavar="N",
              help="Passes that a job on Bedrock is paid for [default: as many as Bedrock makes].")  # fmt: skip
@target_options
def check(pipeline: Pipeline, file: Path, target: str, epochs: int | None) -> None:
    """Say whether a file of rows can be used as it is.

    For sagemaker: whether Prepare takes it, by pipeline.yaml. For the others, without pipeline.yaml: whether a
    fine-tuning job on Bedrock does, line by line: counts, the first bad rows with reasons, the job's tokens. Exit code
    1: it would be refused.
    """
    found, good = pipeline.check_data(file, target, epochs)
    for line in found:
        say(line)
    if not good:
        raise click.exceptions.Exit(1)
