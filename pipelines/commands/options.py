"""Options that every command takes, and what they stand for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.errors import UsageProblem

if TYPE_CHECKING:
    import boto3

    from pipelines.config import Config
    from pipelines.layers import Loaded


LOCAL = "local"


@dataclass(frozen=True)
class Target:
    """What `--config`, `--env` and `--local` say; configuration and session are made when first asked for."""

    config_path: Path
    local: bool
    environment: str | None = None

    @functools.cached_property
    def loaded(self) -> Loaded:
        """The configuration with its environment; `--local` means the environment `local` where the file has one."""
        from pipelines.layers import environments, load

        environment = self.environment
        if environment is None and self.local and LOCAL in environments(self.config_path):
            environment = LOCAL
        return load(self.config_path, environment)

    @property
    def config(self) -> Config:
        return self.loaded.config

    @functools.cached_property
    def session(self) -> boto3.Session:
        from pipelines.aws import connect

        return connect(self.config, self.config_path, self.local)

    @property
    def home(self) -> Path:
        from pipelines.aws import home

        return home(self.config_path)

    @property
    def flag(self) -> str:
        """` --local` or ` --env NAME`: what the commands we print end with."""
        named = f" --env {self.environment}" if self.environment else ""
        return f" --local{named}" if self.local else named


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config`, `--env` and `--local`; the command gets one `target` argument instead of the three."""

    @click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("pipeline.yaml"),
        show_default=True,
        help="The configuration file.",
    )
    @click.option("--env", "environment", metavar="NAME", envvar="FMOPS_ENV", help="One of the file's environments.")
    @click.option("--local", is_flag=True, envvar="FMOPS_LOCAL", help="Use localcloud on this machine instead of AWS.")
    @functools.wraps(command)
    def wrapper(config_path: Path, environment: str | None, local: bool, **kwargs: Any) -> Any:
        return command(target=Target(config_path, local, environment), **kwargs)

    return wrapper


def parse_parameters(pairs: tuple[str, ...]) -> dict[str, str]:
    """`("Epochs=2", "LearningRate=1e-4")` -> a dict; what is not Name=Value is refused."""
    parameters: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise UsageProblem(f"-p {pair!r}: Name=Value is expected, for example -p Epochs=2.")
        if name in parameters:
            raise UsageProblem(f"-p {name} is given twice ({parameters[name]!r} and {value!r}); give it once.")
        parameters[name] = value
    return parameters
