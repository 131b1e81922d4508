"""Options that every command takes, and what they stand for: one fmops.Pipeline."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from configuration.errors import UsageProblem
from fmops.pipeline import Pipeline


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config`, `--env` and `--local`; the command gets one `pipeline` argument instead of the three."""

    @click.option(
        "--config",
        "path",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("pipeline.yaml"),
        show_default=True,
        help="The configuration file.",
    )
    @click.option("--env", metavar="NAME", envvar="FMOPS_ENV", help="One of the file's environments.")
    @click.option("--local", is_flag=True, envvar="FMOPS_LOCAL", help="Use localcloud on this machine instead of AWS.")
    @functools.wraps(command)
    def wrapper(path: Path, env: str | None, local: bool, **kwargs: Any) -> Any:
        return command(pipeline=Pipeline(path, env, local), **kwargs)

    return wrapper


GROUP = click.option("--group", metavar="NAME", help="The model package group [default: as in pipeline.yaml].")


def parse_pairs(option: str, pairs: tuple[str, ...], example: str) -> dict[str, str]:
    """`("Epochs=2", "MaxSteps=9")` -> a dict; what isn't Name=Value, or is given twice, is refused all at once."""
    found: dict[str, str] = {}
    problems = []
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            problems.append(f"{option} {pair!r}: Name=Value is expected, for example {option} {example}.")
        elif name in found:
            problems.append(f"{option} {name} is given twice ({found[name]!r} and {value!r}); give it once.")
        else:
            found[name] = value
    if problems:
        raise UsageProblem("\n".join(problems))
    return found
