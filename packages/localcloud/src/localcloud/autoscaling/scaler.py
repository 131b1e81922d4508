"""The one that acts: on alarms, on capacities out of bounds, and on endpoints that are gone.

An alarm whose action is a policy is told here when its state changes and again every minute while it lasts, as
CloudWatch does for scaling actions. Nothing is changed while SageMaker is changing the resource: the next minute may.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any

from localcloud.autoscaling import activities, adjustments, policies, resources, targets, tracking
from localcloud.autoscaling.records import TARGET
from localcloud.autoscaling.resources import Capacity, Scalable
from localcloud.context import Cloud, Context
from localcloud.errors import AwsError
from localcloud.store import Document

ACTION = "arn:aws:autoscaling:"
_INTERVAL_S = 1.0
_LEAST_S = 0.1
_ZEROS_S = 30.0
_RETRY_S = 60.0
_COOLDOWN_S = 300
_log = logging.getLogger("localcloud")

Told = tuple[str, str, str, Document, list[float]]
"""Account, region, the policy's ARN, the alarm, and the values that it last judged, oldest first."""


class Scaler:
    """One thread for all accounts and regions."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._zeros = 0.0
        self._retry: dict[tuple[str, str, str], float] = {}
        self._thread = threading.Thread(target=self._run, name="localcloud-scaler", daemon=True)

    def start(self) -> None:
        self._cloud.delegate.on_alarm_action(ACTION, lambda *told: self._told.put(told))
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._guarded(self._tend)
            deadline = time.monotonic() + self._cloud.clock.real(_INTERVAL_S, _LEAST_S)
            while not self._stop.is_set() and (left := deadline - time.monotonic()) > 0:
                try:
                    told = self._told.get(timeout=min(left, 0.2))
                except queue.Empty:
                    continue
                self._guarded(self._act, *told)

    def _guarded(self, work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except AwsError as error:
            _log.error("scaling: %s", error)
        except Exception:
            _log.exception("scaling failed with an error of localcloud itself")

    # What the resources themselves need

    def _tend(self) -> None:
        zeros = time.monotonic() > self._zeros + self._cloud.clock.real(_ZEROS_S)
        for account, region, _, target in self._cloud.store.scan(TARGET):
            ctx = Context(account, region, self._cloud)
            resource = Scalable(target["ResourceId"], target["ScalableDimension"])
            self._guarded(self._tend_one, ctx, resource, target, zeros)
        if zeros:
            self._zeros = time.monotonic()

    def _tend_one(self, ctx: Context, resource: Scalable, target: Document, zeros: bool) -> None:
        now = resources.read(ctx, resource)
        if now is None or now.leaving or now.born != target["_born"]:
            self._end_activity(ctx, resource, target, "The resource was deleted.")
            targets.remove(ctx, resource)
            return
        if target.get("_activity"):
            if not self._settled(ctx, resource, target, now):
                return
        elif now.ready and not target["MinCapacity"] <= now.current <= target["MaxCapacity"]:
            bound = "MinCapacity" if now.current < target["MinCapacity"] else "MaxCapacity"
            word = "minimum" if bound == "MinCapacity" else "maximum"
            self._set(ctx, resource, target[bound], f"{word} capacity was set to {target[bound]}")
        if zeros:
            _publish_zeros(ctx, resource)

    def _settled(self, ctx: Context, resource: Scalable, target: Document, now: Capacity) -> bool:
        """Whether the change under way is over; then its activity says how it ended."""
        activity = activities.find(ctx, resource, target["_activity"])
        if activity is None or (now.ready and now.current == activity["_capacity"]):
            self._end_activity(ctx, resource, target, None)
            return True
        if now.ready or now.trouble:
            reason = now.trouble or f"the desired {resource.unit} was overridden: it is {now.current}."
            self._end_activity(ctx, resource, target, reason)
            self._later(ctx, resource)
            return True
        return False

    def _end_activity(self, ctx: Context, resource: Scalable, target: Document, trouble: str | None) -> None:
        if target.get("_activity"):
            activities.finish(ctx, resource, target["_activity"], trouble)
            _keep(ctx, resource, None)

    # Alarms

    def _act(self, account: str, region: str, arn: str, alarm: Document, values: list[float]) -> None:
        ctx = Context(account, region, self._cloud)
        policy = policies.by_arn(ctx, arn)
        if policy is None:
            _log.error("alarm %s: there is no scaling policy %s", alarm["AlarmName"], arn)
            return
        resource = Scalable(policy["ResourceId"], policy["ScalableDimension"])
        target = ctx.cloud.store.get(TARGET, account, region, resource.key)
        now = resources.read(ctx, resource)
        if target is None or target.get("_activity") or now is None or not now.ready:
            return
        decide = _by_step if policy["PolicyType"] == "StepScaling" else _by_tracking
        wanted = decide(ctx, policy, alarm, values, now.current)
        if wanted is None:
            return
        wanted = max(target["MinCapacity"], min(target["MaxCapacity"], wanted))
        direction = "Out" if wanted > now.current else "In"
        if wanted == now.current or target["SuspendedState"][f"DynamicScaling{direction}Suspended"]:
            return
        cause = (
            f"monitor alarm {alarm['AlarmName']} in state {alarm['StateValue']} triggered policy {policy['PolicyName']}"
        )
        if self._set(ctx, resource, wanted, cause):
            _cool(ctx, policy, direction, now.current)

    def _set(self, ctx: Context, resource: Scalable, count: int, cause: str) -> bool:
        """Ask for a capacity and record that; False when it is refused, and then not asked again for a minute."""
        if time.monotonic() < self._retry.get((ctx.account, ctx.region, resource.key), 0.0):
            return False
        ident = activities.begin(ctx, resource, count, cause)
        _keep(ctx, resource, ident)
        try:
            resources.write(ctx, resource, count)
        except AwsError as error:
            activities.finish(ctx, resource, ident, error.message)
            _keep(ctx, resource, None)
            self._later(ctx, resource)
            return False
        return True

    def _later(self, ctx: Context, resource: Scalable) -> None:
        self._retry[ctx.account, ctx.region, resource.key] = time.monotonic() + ctx.cloud.clock.real(_RETRY_S)


def _keep(ctx: Context, resource: Scalable, activity: str | None) -> None:
    def change(doc: Document) -> None:
        doc["_activity"] = activity

    ctx.cloud.store.update(TARGET, ctx.account, ctx.region, resource.key, change)


def _by_tracking(ctx: Context, policy: Document, alarm: Document, values: list[float], current: int) -> int | None:
    """Out by the newest value, in by the highest of a quarter of an hour."""
    if not values:
        return None
    target = policies.configuration_of(policy)["TargetValue"]
    if alarm["AlarmName"] == policy["_high"]:
        # Nothing shares as one does: the backlog of an endpoint without instances is given whole.
        wanted = tracking.wanted(max(1, _base(policy, current)), values[-1], target)
        return wanted if wanted > current else None
    if time.time() < policy.get("_in", 0.0) or not _all_low(ctx, policy):
        return None
    wanted = tracking.wanted(current, max(values), target)
    return wanted if wanted < current else None


def _base(policy: Document, current: int) -> int:
    """What the metric is shared by: while the last addition cools down, the capacity before it."""
    out = policy.get("_out") or {}
    return min(current, out["Before"]) if time.time() < out.get("Until", 0.0) else current


def _all_low(ctx: Context, policy: Document) -> bool:
    """Several target tracking policies take capacity away only together."""
    resource = Scalable(policy["ResourceId"], policy["ScalableDimension"])
    names = [other["_low"] for other in policies.of_target(ctx, resource) if other.get("_low")]
    states = ctx.cloud.delegate.alarm_states(ctx.account, ctx.region, names)
    return all(states.get(name) == "ALARM" for name in names)


def _by_step(ctx: Context, policy: Document, alarm: Document, values: list[float], current: int) -> int | None:
    configuration, now = policies.configuration_of(policy), time.time()
    above = str(alarm.get("ComparisonOperator", "")).startswith("Greater")
    breach = adjustments.measure(configuration, values) - alarm.get("Threshold", 0.0) if values else 0.0
    wanted = adjustments.adjusted(configuration, _base(policy, current), breach, above)
    if wanted is None or wanted > current:
        return wanted
    cooling = now < policy.get("_in", 0.0) or now < (policy.get("_out") or {}).get("Until", 0.0)
    return None if cooling else wanted


def _cool(ctx: Context, policy: Document, direction: str, before: int) -> None:
    """Begin a cooldown; adding capacity ends the one of taking it away."""
    configuration = policies.configuration_of(policy)
    seconds = configuration.get("Cooldown", configuration.get(f"Scale{direction}Cooldown", _COOLDOWN_S))
    until = time.time() + ctx.cloud.clock.real(seconds)
    if direction == "Out":
        policies.remember(ctx, policy, _out={"Until": until, "Before": _base(policy, before)}, _in=0.0)
    else:
        policies.remember(ctx, policy, _in=until)


def _publish_zeros(ctx: Context, resource: Scalable) -> None:
    """Counts of invocations have a value without traffic too, so that capacity is taken away when it stops."""
    for policy in policies.of_target(ctx, resource):
        if policy["PolicyType"] == "TargetTrackingScaling":
            metric = tracking.metric_of(policies.configuration_of(policy), resource)
            if metric.name in ("InvocationsPerInstance", "InvocationsPerCopy") and metric.namespace == "AWS/SageMaker":
                ctx.cloud.delegate.put_metric(
                    ctx.account, ctx.region, metric.namespace, metric.name, 0.0, "None", metric.dimensions
                )


def start(cloud: Cloud) -> None:
    """Start the scaler of a localcloud, and end it with that."""
    scaler = Scaler(cloud)
    scaler.start()
    cloud.on_stop.append(scaler.stop)
