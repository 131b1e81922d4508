"""`fmops data look`: what Prepare and Train make of rows, before anything runs."""

from __future__ import annotations

from pathlib import Path

import click

from fmops.commands.options import target_options
from fmops.pipeline import Pipeline
from pipelines.terminal import say


@click.group()
def data() -> None:
    """Your rows, as the pipeline reads them: look."""


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
