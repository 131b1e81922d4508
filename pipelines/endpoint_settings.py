"""pipeline.yaml's `endpoint:` as the deploy function reads it: one flat name for each setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.dials import by_setting, configured
from pipelines.names import endpoint_name

if TYPE_CHECKING:
    from pipelines.config import Config


def endpoint_settings(config: Config) -> dict[str, Any]:
    """The defaults of the deploy function; a run's parameters and a command's options come before them."""
    settings = {name: configured(config, dial) for name, dial in by_setting().items()}
    settings["endpoint_name"] = endpoint_name(config)
    return {
        name: ",".join(value) if isinstance(value, list) else "" if value is None else value
        for name, value in settings.items()
    }


def changeable_settings() -> tuple[str, ...]:
    """What `fmops deploy -s NAME=VALUE` may change: every setting of the deploy function but the endpoint's name."""
    return tuple(name for name in by_setting() if name != "endpoint_name")
