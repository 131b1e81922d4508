"""How traffic moves from the fleet in service to its successor, and back when something is wrong.

Blue/green:  the whole new fleet starts beside the old one, traffic moves in steps, alarms are watched between the steps
             and while the old fleet is kept (baking); then the old fleet ends.
Rolling:     a batch of the new fleet starts, takes its share of the requests, is watched, and replaces as many
             instances of the old fleet; then the next batch.
An alarm, a timeout or a server that doesn't start moves all traffic back. No request is dropped on the way: fleets and
instances that leave finish what they have.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from localcloud.context import Context
from localcloud.hosting.fleet import Fleet
from localcloud.hosting.policy import Policy, instances
from localcloud.jobs.settings import Settings

_LEAST_SECONDS = 0.05
"""Between two looks at the alarms, however fast the clock is."""
_WORDS = {"CANARY": "canary", "LINEAR": "linear step", "ROLLING": "batch"}


Stage = Callable[[str, str, Mapping[str, str], Mapping[str, int]], None]
"""Told of each stage: see localcloud.hosting.record.stage."""


class Gone(Exception):
    """The endpoint was deleted, or localcloud stops, while it was being changed."""


class Refused(Exception):
    """The deployment goes back; `str()` is the endpoint's FailureReason."""


class Rollout:
    """One deployment. `gone` ends it early; `commit` makes the new fleet the endpoint's (or raises Gone)."""

    def __init__(
        self,
        ctx: Context,
        fleets: tuple[Fleet, Fleet],
        policy: Policy,
        settings: Settings,
        gone: threading.Event,
        commit: Callable[[], None],
        stage: Stage,
    ) -> None:
        self._ctx, self._policy, self._settings = ctx, policy, settings
        self._old, self._new = fleets
        self._gone, self._commit, self._stage = gone, commit, stage
        self._clock = ctx.cloud.clock
        # Starting servers takes real time; what a fast clock saves of the waits counts for the time limit, too.
        self._began, self._saved = time.monotonic(), 0.0
        self._limit = math.inf if policy.limit_seconds is None else policy.limit_seconds
        self._before = {variant: pool.size for variant, pool in self._old.pools.items()}

    def forward(self) -> None:
        """Move all traffic to the new fleet; Refused, or what starting a server raises."""
        self._look("before the deployment began")
        if self._policy.kind == "ROLLING":
            self._roll()
        else:
            self._shift()
        self._commit()
        self._old.divert(None, {})

    def finish(self) -> None:
        """End the old fleet after its last requests."""
        self._say_old(
            "Deleting", {name: f"Terminating {pool.size} instance(s)." for name, pool in self._old.pools.items()}
        )
        self._old.stop(self._settings.invocation_seconds)

    def back(self) -> None:
        """Move all traffic to the old fleet and end the new one after its last requests.

        StartError when instances of the old fleet that were ended don't start again: then both take traffic.
        """
        for variant, count in self._before.items():
            pool, new = self._old.pools[variant], self._new.pools.get(variant)
            batch = instances(self._policy.rollback_size, count) if count else 0
            while pool.size < count:
                pool.add(min(batch, count - pool.size))
                self._old.divert(self._new, {variant: 1 - pool.size / count})
                if new is not None:
                    new.remove(math.ceil(new.size * pool.size / count), self._settings.invocation_seconds)
        self._old.divert(None, {})
        text = {name: f"Terminating {pool.size} instance(s)." for name, pool in self._new.pools.items()}
        self._say("Deleting", text, dict.fromkeys(text, 0))
        self._new.stop(self._settings.invocation_seconds)

    def _shift(self) -> None:
        counts = self._new.counts
        self._say("Creating", {name: f"Launching {count} instance(s)." for name, count in counts.items()})
        self._new.start()
        if self._policy.kind == "SWITCH":
            self._look("before traffic was moved")
            return
        steps = self._policy.shares(counts)
        for number, shares in enumerate(steps, start=1):
            last = number == len(steps)
            self._look("before traffic was moved" if number == 1 else f"before step {number} of {len(steps)}")
            self._activate(shares, counts)
            if last:
                self._bake(self._policy.bake_seconds, "TerminationWaitInSeconds", shares, counts)
            else:
                self._bake(self._policy.wait_seconds, "WaitIntervalInSeconds", shares, counts)

    def _roll(self) -> None:
        ((variant, total),) = self._new.counts.items()
        old, new, before = self._old.pools[variant], self._new.pools[variant], self._before[variant]
        batch = instances(self._policy.size, total)
        while new.size < total:
            step = min(batch, total - new.size)
            self._say("Updating" if new.size else "Creating", {variant: f"Launching {step} instance(s)."})
            if new.size:
                new.add(step)
            else:
                self._new.start({variant: step})
            self._look("before a batch took traffic")
            shares = {variant: new.size / total}
            self._activate(shares, {variant: total})
            self._bake(self._policy.wait_seconds, "WaitIntervalInSeconds", shares, {variant: total})
            if new.size < total:
                leaving = old.size - math.ceil(before * (1 - new.size / total))
                self._say_old(
                    "Deleting", {variant: f"Terminating {leaving} instance(s)."}, {variant: old.size - leaving}
                )
                old.remove(leaving, self._settings.invocation_seconds)

    def _activate(self, shares: Mapping[str, float], counts: Mapping[str, int]) -> None:
        active = self._active(shares, counts)
        text = {
            name: f"Activating traffic on {self._capacity(shares[name])} of {active[name]} instance(s)."
            for name in active
        }
        self._say("ActivatingTraffic", text, active)
        self._old.divert(self._new, shares)

    def _bake(self, seconds: float, member: str, shares: Mapping[str, float], counts: Mapping[str, int]) -> None:
        """Watch the alarms for so long."""
        if not seconds:
            return
        active = self._active(shares, counts)
        text = {
            name: f"Baking for {seconds:g} seconds ({member}) with traffic enabled on "
            f"{self._capacity(shares[name])} of {active[name]} instance(s)."
            for name in active
        }
        self._say("Baking", text)
        end = time.monotonic() + self._clock.real(seconds)
        when = "while baking with all traffic on the new fleet"
        if min(shares.values()) < 1:
            percent = ", ".join(sorted({f"{value:.0%}" for value in shares.values()}))
            when = f"while baking with {percent} of the traffic on the new fleet ({self._policy.kind})"
        while (left := end - time.monotonic()) > 0:
            self._look(when)
            began = time.monotonic()
            if self._gone.wait(min(self._clock.real(self._settings.alarm_seconds, _LEAST_SECONDS), left)):
                raise Gone
            self._saved += self._clock.saved(time.monotonic() - began)
        self._look(when)

    def _look(self, when: str) -> None:
        """Gone, or Refused because of an alarm or the time limit."""
        if self._gone.is_set():
            raise Gone
        if time.monotonic() - self._began + self._saved > self._limit:
            raise Refused(
                f"The deployment exceeded MaximumExecutionTimeoutInSeconds ({self._policy.limit_seconds:g}) {when}."
            )
        names = list(self._policy.alarms)
        if names:
            states = self._ctx.cloud.delegate.alarm_states(self._ctx.account, self._ctx.region, names)
            raised = [name for name in names if states.get(name) == "ALARM"]
            if raised:
                raise Refused(
                    f"One or more configured alarm(s) have gone into ALARM state: [{', '.join(raised)}] {when}. "
                    f"All traffic is served by {self._old.spec.get('EndpointConfigName', 'the old copies')} again."
                )

    def _active(self, shares: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, int]:
        return {name: math.ceil(shares[name] * count - 1e-9) for name, count in counts.items()}

    def _capacity(self, share: float) -> str:
        return f"{_WORDS[self._policy.kind]} capacity" if share < 1 else "full capacity"

    def _say(self, status: str, text: Mapping[str, str], active: Mapping[str, int] | None = None) -> None:
        self._stage("PendingDeploymentSummary", status, text, active or {})

    def _say_old(self, status: str, text: Mapping[str, str], active: Mapping[str, int] | None = None) -> None:
        self._stage("ProductionVariants", status, text, active or {})
