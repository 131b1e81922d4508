"""CloudWatch alarms that mean what AWS means: MiniStack keeps metrics and alarms, and the states are decided here.

Every second, and at once when an alarm or a point was put, each alarm in every account and region is looked at; it is
judged again when a minute (10 s for an alarm with a period below a minute) is over, or when a late point came.
Datapoints are the periods before that moment: a sliding window, as CloudWatch's is. MiniStack's own evaluation, on
PutMetricData only, is off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from localcloud.clock import Clock
from localcloud.delegate import alarm_documents, metric_queries
from localcloud.delegate.alarm_evaluation import Evaluator
from localcloud.delegate.alarm_requests import alarm_of, template_alarm
from localcloud.delegate.alarm_rules import Verdict
from localcloud.delegate.cloudwatch_wire import answering, checked, refuse
from localcloud.delegate.persistence import Checkpoint
from localcloud.errors import AwsError
from localcloud.hooks import bus, functions, metrics, scope, stacks
from localcloud.hooks.metrics import Name, Reply
from localcloud.hooks.patches import Patches

Document = dict[str, Any]
Action = Callable[[str, str, str, Document, list[float]], None]
"""What acts on alarms' actions of one kind: see `localcloud.context.Delegate.on_alarm_action`."""

_INTERVAL_S = 1.0
_PAUSE_S = 0.05
"""Between two looks at least, however much comes in."""
_HELD_S = 10.0
"""How long a state that was set by hand stays at least."""
_EVICTION_S = 60.0
_FIELDS = {"ALARM": "AlarmActions", "OK": "OKActions", "INSUFFICIENT_DATA": "InsufficientDataActions"}
_log = logging.getLogger("localcloud")


class Alarms:
    """The evaluator in MiniStack's place: `install` puts the hooks and starts it, `stop` takes both away."""

    def __init__(self, checkpoint: Checkpoint, clock: Clock) -> None:
        self._checkpoint, self._clock = checkpoint, clock
        self._patches = Patches()
        self.evaluator = Evaluator(clock)
        self._told: dict[Name, Document] = {}
        self._held: dict[Name, float] = {}
        self._actions: list[tuple[str, Action]] = []
        self._acted: dict[Name, float] = {}
        self._broken: dict[Name, float] = {}
        self._repeat_s = clock.real(repeat_seconds())
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._evicted = 0.0

    def install(self) -> None:
        """Put the hooks and start to evaluate, also what a former run left; on the event loop."""
        metrics.evaluate_elsewhere(self._patches, self._news.set)
        metrics.evict_with(self._patches, self._evict)
        metrics.dispatch_with(self._patches, self._dispatch)
        operations = {
            "PutMetricAlarm": self._put,
            "SetAlarmState": self._set_by_hand,
            "GetMetricStatistics": answering("GetMetricStatistics", metric_queries.statistics),
            "GetMetricData": answering("GetMetricData", metric_queries.data),
        }
        for name, handler in operations.items():
            metrics.wrap(self._patches, name, handler)
        stacks.make_alarms_with(self._patches, self._of_template)
        self._remember()
        self._ticker = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """End the ticker and give MiniStack its functions back."""
        if self._ticker is not None:
            self._ticker.cancel()
        for task in self._tasks:
            task.cancel()
        self._patches.undo()

    def subscribe(self, prefix: str, act: Action) -> None:
        """Have `act` called for actions that begin so, at a change and again while the state lasts."""
        self._actions.append((prefix, act))

    # Requests

    def _put(self, original: Callable[..., Reply], params: Document, members: Document, *kind: bool) -> Reply:
        is_json = len(kind) > 1 and kind[1]
        try:
            request = checked("PutMetricAlarm", params, members, not is_json)
            name = request["AlarmName"]
            alarm = alarm_of(request, self._arn(name), metrics.alarm(name))
        except AwsError as error:
            return refuse(error, is_json)
        answer = original(params, members, *kind)  # tags, history
        if answer[0] == 200:
            metrics.keep_alarm(name, alarm)
            self._told.setdefault(self._here(name), alarm_documents.state_of(alarm))
            self._news.set()
        return answer

    def _of_template(self, name: str, properties: Document) -> Document:
        return template_alarm(name, properties, self._arn(name), metrics.alarm(name))

    def _set_by_hand(self, original: Callable[..., Reply], params: Document, members: Document, *kind: bool) -> Reply:
        answer = original(params, members, *kind)
        if answer[0] == 200:
            name = metrics.field(params, members, "AlarmName")
            self._held[self._here(name)] = time.time() + self._clock.real(_HELD_S)
        return answer

    def _evict(self, original: Callable[[], None]) -> None:
        """MiniStack copies every metric's points on every request to find those of two weeks ago."""
        if time.monotonic() > self._evicted + _EVICTION_S:
            self._evicted = time.monotonic()
            original()

    def _arn(self, name: str) -> str:
        account, region, _ = self._here(name)
        return f"arn:aws:cloudwatch:{region}:{account}:alarm:{name}"

    @staticmethod
    def _here(name: str) -> Name:
        return *scope.here(), name

    # Evaluation

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._clock.real(_INTERVAL_S, _PAUSE_S))
            self._news.clear()
            self.tick(time.time())
            await asyncio.sleep(_PAUSE_S)

    def tick(self, now: float) -> None:
        """Judge every alarm that may have changed, in every account and region; on the event loop."""
        for name, alarm in metrics.all_alarms().items():
            with scope.scoped(*name[:2]):
                self._look(now, name, alarm)
        self._remember()

    def _look(self, now: float, name: Name, alarm: Document) -> None:
        try:
            verdict = None if now < self._held.get(name, 0.0) else self.evaluator.look(now, name, alarm)
            if verdict is not None and verdict.state not in (None, alarm["StateValue"]):
                self._change(alarm, verdict, now)
            if time.monotonic() > self._acted.get(name, 0.0) + self._repeat_s:
                self._act(name, alarm)
        except Exception:
            configured = alarm.get("AlarmConfigurationUpdatedTimestamp", 0.0)
            if self._broken.get(name) != configured:  # once, not every second
                _log.exception("alarm %s was not evaluated", name[2])
            self._broken[name] = configured

    def _remember(self) -> None:
        """The states now are the next events' previous states."""
        known = metrics.all_alarms() | metrics.all_composites()
        for name, alarm in known.items():
            told = self._told.get(name)
            if told is None or told["value"] != alarm["StateValue"] or told["reason"] != alarm.get("StateReason"):
                self._told[name] = alarm_documents.state_of(alarm)
        memories: tuple[dict[Name, Any], ...] = (self._told, self._held, self._acted, self._broken)
        for memory in memories:
            for name in [name for name in memory if name not in known]:
                del memory[name]
        self.evaluator.forget(known.keys())

    def _change(self, alarm: Document, verdict: Verdict, now: float) -> None:
        old = alarm["StateValue"]
        data = alarm_documents.reason_data(alarm, verdict, now)
        alarm["StateValue"], alarm["StateReason"] = verdict.state, verdict.reason[:1023]
        alarm["StateReasonData"] = alarm_documents.compact(data)[:4000]
        alarm["StateUpdatedTimestamp"] = alarm["StateTransitionedTimestamp"] = now
        metrics.changed(alarm, old, verdict.reason, data)
        self._checkpoint.touch()

    # Actions

    def _dispatch(self, sns: Callable[..., None], alarm: Document, old: str, new: str, reason: str) -> None:
        name = self._here(alarm["AlarmName"])
        fallback = {"value": old, "reason": "Unchecked: Initial alarm creation"}
        previous = self._told.get(name, fallback)
        self._told[name] = alarm_documents.state_of(alarm)
        detail = alarm_documents.event_detail(alarm, previous)
        bus.put("aws.cloudwatch", "CloudWatch Alarm State Change", detail, [alarm["AlarmArn"]])
        sns(alarm, old, new, reason)
        self._act(name, alarm)
        if alarm.get("ActionsEnabled", True):
            for action in alarm.get(_FIELDS.get(new, "")) or []:
                if action.startswith("arn:aws:lambda:"):
                    self._invoke(action, alarm_documents.lambda_payload(alarm, previous, *name[:2]))

    def _act(self, name: Name, alarm: Document) -> None:
        """Tell the subscribers of the actions that go with the alarm's state."""
        self._acted[name] = time.monotonic()
        if not alarm.get("ActionsEnabled", True):
            return
        for action in alarm.get(_FIELDS[alarm["StateValue"]]) or []:
            for prefix, act in self._actions:
                if action.startswith(prefix):
                    act(*name[:2], action, dict(alarm), self.evaluator.values(name))

    def _invoke(self, arn: str, payload: Document) -> None:
        """Run a Lambda function that is an action, and let nothing wait for it."""

        async def run() -> None:
            _, _, _, region, account, _, function, *qualifier = arn.split(":")
            with scope.scoped(account, region), contextlib.suppress(asyncio.CancelledError):
                headers = {"x-amz-invocation-type": "Event"}
                status, _, body = await functions.invoke(
                    function, payload, qualifier[0] if qualifier else None, headers
                )
                if status >= 300:
                    _log.error("alarm action %s was not invoked: %s", arn, body.decode(errors="replace"))

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def repeat_seconds() -> float:
    """Between two runs of an action that scales: 60, as on CloudWatch. LOCALCLOUD_SCALING_SECONDS."""
    text = os.environ.get("LOCALCLOUD_SCALING_SECONDS", "60")
    try:
        return float(text)
    except ValueError:
        raise SystemExit(f"LOCALCLOUD_SCALING_SECONDS={text!r} is not a number") from None
