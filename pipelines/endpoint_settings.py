"""pipeline.yaml's `endpoint:` as the deploy function reads it: one flat name for each setting."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from common.dials import DialError
from configuration.dials import by_setting, configured
from configuration.errors import UsageProblem
from configuration.names import endpoint_name

if TYPE_CHECKING:
    from configuration.config import Config


def endpoint_settings(config: Config) -> dict[str, Any]:
    """The defaults of the deploy function; a run's parameters and a command's options come before them."""
    settings = {name: configured(config, dial) for name, dial in by_setting().items()}
    settings["endpoint_name"] = endpoint_name(config)
    return {
        name: ",".join(value) if isinstance(value, list) else "" if value is None else value
        for name, value in settings.items()
    }


def check_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """What somebody changes for one deployment, as text. Raises UsageProblem: every wrong one, with what is allowed."""
    problems = []
    for name, value in settings.items():
        if name not in changeable_settings():
            near = difflib.get_close_matches(name, changeable_settings(), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            problems.append(f"{name} is not a setting.{hint} Settings: {', '.join(changeable_settings())}")
            continue
        try:
            by_setting()[name].read(value)
        except DialError as error:
            problems.append(f"{name}={value}: {error}")
    if problems:
        raise UsageProblem("\n  ".join(["These settings were refused:", *problems]))
    return {name: str(value) for name, value in settings.items()}


def changeable_settings() -> tuple[str, ...]:
    """What `fmops deploy -s NAME=VALUE` may change: every setting of the deploy function but the endpoint's name."""
    return tuple(name for name in by_setting() if name != "endpoint_name")
