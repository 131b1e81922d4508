"""DeploymentConfig: what is refused, and how it reads as steps of traffic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.context import Context
from localcloud.errors import validation

Size = Mapping[str, Any]
"""CapacitySize: {"Type": INSTANCE_COUNT or CAPACITY_PERCENT, "Value"}."""

_SIZES = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}
_BOUNDS = {
    "CanarySize": (0.0, 0.5, "Value must be less than or equal to 50% of the variant's total instance count."),
    "LinearStepSize": (0.1, 0.5, "Value must be 10-50% of the variant's total instance count."),
    "MaximumBatchSize": (0.05, 0.5, "Value must be between 5% to 50% of the variant's total instance count."),
    "RollbackMaximumBatchSize": (0.0, 1.0, "Value must be at most 100% of the variant's total instance count."),
}


@dataclass(frozen=True)
class Policy:
    """How one deployment moves traffic."""

    kind: str
    """SWITCH (nothing was asked for), ALL_AT_ONCE, CANARY, LINEAR or ROLLING."""
    size: Size
    """Of the canary, of a linear step, of a batch."""
    wait_seconds: float = 0
    """Between steps, alarms watched."""
    bake_seconds: float = 0
    """After all traffic moved, alarms watched, the old fleet kept."""
    limit_seconds: float | None = None
    alarms: tuple[str, ...] = ()
    rollback_size: Size | None = None

    def shares(self, counts: Mapping[str, int]) -> list[dict[str, float]]:
        """The new fleet's share of each variant's requests, step after step, up to 1."""
        done = dict.fromkeys(counts, 1.0)
        if self.kind == "CANARY":
            return [{name: step(self.size, count) for name, count in counts.items()}, done]
        if self.kind == "LINEAR":
            each = {name: step(self.size, count) for name, count in counts.items()}
            steps = max(math.ceil(1 / part - 1e-9) for part in each.values())
            return [{name: min(1.0, part * step) for name, part in each.items()} for step in range(1, steps)] + [done]
        return [done]


def share(size: Size, count: int) -> float:
    """A capacity size as a part of `count` instances: 0 to 1, or more. Of nothing it is all."""
    if not count:
        return 1.0
    return float(size["Value"]) / (100 if size["Type"] == "CAPACITY_PERCENT" else count)


def step(size: Size, count: int) -> float:
    """The part of `count` instances that a step turns on: whole instances, half of them at most.

    A fleet of one has no such part. AWS takes a percentage there; what it makes of it isn't known: here it is a share
    of the requests.
    """
    return share(size, count) if count < 2 else min(instances(size, count), count // 2) / count


def instances(size: Size | None, count: int) -> int:
    """A capacity size as instances, at least one; all of them when there is no size."""
    return count if size is None else max(1, min(count, math.ceil(share(size, count) * count - 1e-9)))


def read(config: Mapping[str, Any] | None) -> Policy:
    """The policy of a checked DeploymentConfig."""
    alarms = tuple(
        alarm["AlarmName"] for alarm in (config or {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
    )
    if not config or not ("BlueGreenUpdatePolicy" in config or "RollingUpdatePolicy" in config):
        return Policy("SWITCH", {}, alarms=alarms)
    if "RollingUpdatePolicy" in config:
        rolling = config["RollingUpdatePolicy"]
        return Policy(
            "ROLLING",
            rolling["MaximumBatchSize"],
            wait_seconds=rolling["WaitIntervalInSeconds"],
            limit_seconds=rolling.get("MaximumExecutionTimeoutInSeconds"),
            alarms=alarms,
            rollback_size=rolling.get("RollbackMaximumBatchSize"),
        )
    blue_green = config["BlueGreenUpdatePolicy"]
    routing = blue_green["TrafficRoutingConfiguration"]
    return Policy(
        routing["Type"],
        routing.get(_SIZES.get(routing["Type"], ""), {}),
        wait_seconds=routing["WaitIntervalInSeconds"],
        bake_seconds=blue_green.get("TerminationWaitInSeconds", 0),
        limit_seconds=blue_green.get("MaximumExecutionTimeoutInSeconds"),
        alarms=alarms,
    )


def check(ctx: Context, config: Mapping[str, Any] | None, old: Mapping[str, int], new: Mapping[str, int]) -> None:
    """ValidationException for a DeploymentConfig that can't be carried out.

    `old` and `new` are the instance counts by variant of what is in service and of what is to be.
    """
    if not config:
        return
    rolling, blue_green = config.get("RollingUpdatePolicy"), config.get("BlueGreenUpdatePolicy")
    if rolling and blue_green:
        raise validation(
            "Only one of BlueGreenUpdatePolicy and RollingUpdatePolicy can be specified in DeploymentConfig."
        )
    if set(old) != set(new):
        raise validation(
            "The endpoint configuration of a deployment with a DeploymentConfig must have the same variant names as "
            f"its current one: {sorted(old)}, not {sorted(new)}."
        )
    if rolling:
        if len(new) > 1:
            raise validation("RollingUpdatePolicy is not supported for endpoints with multiple variants.")
        _check_size(rolling, "MaximumBatchSize", new)
        _check_size(rolling, "RollbackMaximumBatchSize", old)
    if blue_green:
        _check_routing(blue_green["TrafficRoutingConfiguration"], new)
    names = [alarm["AlarmName"] for alarm in (config.get("AutoRollbackConfiguration") or {}).get("Alarms") or []]
    known = ctx.cloud.delegate.alarm_states(ctx.account, ctx.region, names) if names else {}
    absent = [name for name in names if name not in known]
    if absent:
        raise validation(f"Could not find the CloudWatch alarm(s) of AutoRollbackConfiguration: {', '.join(absent)}.")


def _check_routing(routing: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    kind = routing["Type"]
    for needed_by, member in _SIZES.items():
        if kind == needed_by and member not in routing:
            raise validation(f"TrafficRoutingConfiguration of type {kind} must have {member}.")
        if kind != needed_by and member in routing:
            raise validation(f"TrafficRoutingConfiguration of type {kind} can't have {member}.")
        _check_size(routing, member, counts)


def _check_size(policy: Mapping[str, Any], member: str, counts: Mapping[str, int]) -> None:
    if member not in policy:
        return
    low, high, message = _BOUNDS[member]
    for variant, count in counts.items():
        if not count:
            continue
        part = share(policy[member], count)
        if not low <= part <= high:
            shown = f"{policy[member]['Type']} {policy[member]['Value']} of {count} instance(s)"
            raise validation(f"Invalid {member} ({shown}) for variant {variant}. {message}")
