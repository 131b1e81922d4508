"""How traffic moves from the fleet that serves to its successor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localcloud.errors import validation
from localcloud.hosting.fleet import Fleet


def check(deployment: dict[str, Any] | None) -> None:
    """ValidationException for a DeploymentConfig that can't be carried out here, by name."""
    if not deployment:
        return
    if "RollingUpdatePolicy" in deployment:
        raise validation(
            "DeploymentConfig.RollingUpdatePolicy is not supported by localcloud; use BlueGreenUpdatePolicy"
        )
    routing = (deployment.get("BlueGreenUpdatePolicy") or {}).get("TrafficRoutingConfiguration") or {}
    if routing.get("Type", "ALL_AT_ONCE") != "ALL_AT_ONCE":
        raise validation(f"Traffic routing type {routing['Type']} is not supported by localcloud yet; use ALL_AT_ONCE")
    if (deployment.get("AutoRollbackConfiguration") or {}).get("Alarms"):
        raise validation("AutoRollbackConfiguration.Alarms is not supported by localcloud yet")


def all_at_once(new: Fleet, switch: Callable[[Fleet], Fleet | None]) -> None:
    """Start the new fleet beside the old one, give it all traffic, then end the old one after its last invocation.

    `switch` puts the new fleet in the old one's place and returns the old one. Whatever `new.start` raises leaves the
    old one serving.
    """
    try:
        new.start()
    except BaseException:
        new.stop(drain=False)
        raise
    old = switch(new)
    if old is not None:
        old.stop(drain=True)
