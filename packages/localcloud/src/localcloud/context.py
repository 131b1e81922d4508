"""What a handler gets: who calls, and the machine's services."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from localcloud import clock
from localcloud.clock import Clock
from localcloud.keys import Keys
from localcloud.store import Store

MetricPoint = tuple[str, float, str, dict[str, str]]
"""(metric, value, unit, dimensions) of one CloudWatch data point."""
Request = dict[str, Any]
Response = dict[str, Any]
Handler = Callable[["Context", Request], Response]
"""An operation: validated request members in, response members out (times as epoch seconds); on a worker thread."""
Observer = Callable[["Context", str, dict[str, Any]], None]
"""Told of an event: (whose, detail type, detail). It never raises."""


class Delegate(Protocol):
    """The emulator behind us, called in process (never over HTTP). Implemented in `localcloud/delegate/`.

    All methods are safe from any thread and block until done.
    """

    def read_object(self, account: str, bucket: str, key: str) -> Path:
        """The file that holds an S3 object (read only, never write to it); AwsError NoSuchKey / NoSuchBucket."""

    def list_objects(self, account: str, bucket: str, prefix: str) -> list[str]:
        """Keys under a prefix, sorted; AwsError NoSuchBucket."""

    def write_object(self, account: str, bucket: str, key: str, source: Path, content_type: str = ...) -> None:
        """Keep a copy of a file as an S3 object (hard link or streamed copy; never held in memory)."""

    def put_log_events(
        self, account: str, region: str, group: str, stream: str, messages: list[tuple[int, str]]
    ) -> None:
        """Append (epoch milliseconds, text) to a CloudWatch Logs stream, made if absent."""

    def put_metric(
        self, account: str, region: str, namespace: str, name: str, value: float, unit: str, dimensions: dict[str, str]
    ) -> None:
        """Publish one CloudWatch data point, now."""

    def put_metrics(self, account: str, region: str, namespace: str, points: list[MetricPoint]) -> None:
        """Publish many data points of one namespace, now."""

    def alarm_states(self, account: str, region: str, names: list[str]) -> dict[str, str]:
        """OK, ALARM or INSUFFICIENT_DATA of each CloudWatch alarm that exists."""

    def cloudwatch(self, account: str, region: str, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """One CloudWatch operation: the answer's members, times as epoch seconds; AwsError as CloudWatch refuses."""

    def on_alarm_action(self, prefix: str, act: Callable[[str, str, str, dict[str, Any], list[float]], None]) -> None:
        """Have `act(account, region, action, alarm, values)` called for alarms' actions that begin so.

        When the alarm's state changes, and every minute while it lasts. `values` are the ones that the state comes
        from, oldest first. It is called on the event loop and must not block.
        """

    def invoke_lambda(self, account: str, region: str, function_arn: str, payload: bytes) -> tuple[bytes, str | None]:
        """Run a Lambda function: (response payload, FunctionError or None); AwsError ResourceNotFoundException."""

    def lets_in(self, role: str, service: str) -> bool | None:
        """Whether a role's trust policy lets a service (`sagemaker.amazonaws.com`) assume it; None without the role."""

    def publish(self, account: str, region: str, topic_arn: str, message: str) -> None:
        """Send a message to an SNS topic; AwsError NotFound when there is none."""

    def send_message(self, account: str, region: str, queue_url: str, body: str) -> None:
        """Send a message to an SQS queue; AwsError as SQS refuses, e.g. when there is no such queue."""

    def emit_event(
        self, account: str, region: str, source: str, detail_type: str, detail: dict[str, Any], resources: list[str]
    ) -> None:
        """Put an `aws.*` event on the default bus."""


class Service(Protocol):
    """What a cloud runs beside its requests: threads, processes, queues."""

    def close(self) -> None:
        """End all of it."""


S = TypeVar("S", bound=Service)


@dataclass
class Cloud:
    """One running localcloud; `localcloud.server.assemble` gives it its operations."""

    home: Path
    """State directory; jobs live in `home/jobs/<name>/`, endpoints in `home/endpoints/<name>/`."""
    url: str
    """`http://127.0.0.1:PORT`, what AWS_ENDPOINT_URL is set to in jobs, Lambdas and model servers."""
    store: Store
    delegate: Delegate
    clock: Clock = field(default_factory=clock.from_environment)
    """What SageMaker and CloudWatch wait by."""
    keys: Keys = field(default_factory=Keys.random)
    """Its secret, and the keys of whatever it starts."""
    on_stop: list[Callable[[], None]] = field(default_factory=list)
    """Called in reverse order at shutdown: whoever starts processes or threads registers how they end."""
    operations: dict[str, dict[str, Handler]] = field(default_factory=dict)
    """The handlers of each service of ours, by operation."""
    observers: list[Observer] = field(default_factory=list)
    """Told of every event of SageMaker's before the bus is."""
    _services: dict[type[Service], Service] = field(default_factory=dict, repr=False)
    _making: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def service(self, kind: type[S], make: Callable[[], S]) -> S:
        """The cloud's one service of a kind: made at first use, ended with the cloud (before those that it uses)."""
        with self._making:
            found = self._services.get(kind)
            if found is None:
                found = self._services[kind] = make()
                self.on_stop.append(lambda: self._end(kind))
            assert isinstance(found, kind)
            return found

    def _end(self, kind: type[Service]) -> None:
        self._services[kind].close()
        with self._making:
            del self._services[kind]


@dataclass(frozen=True)
class Context:
    """One caller."""

    account: str
    region: str
    cloud: Cloud

    def arn(self, resource: str, service: str = "sagemaker") -> str:
        """`ctx.arn("pipeline/x")` -> `arn:aws:sagemaker:REGION:ACCOUNT:pipeline/x`."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"
