"""A small real delegate: S3 as files, logs, metrics and events as lists; used where no emulator is needed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localcloud.context import MetricPoint
from localcloud.errors import AwsError


class DirectoryDelegate:
    """Implements localcloud.context.Delegate over one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.Lock()
        self.logs: dict[tuple[str, str], list[str]] = {}
        self.metrics: list[tuple[str, str, float, dict[str, str]]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.writes: list[str] = []
        self.alarms: dict[str, str] = {}
        self.on_look: Callable[[], None] = lambda: None
        """Runs in a deployment's own thread before it reads its alarms: there a test is never too late for a stage."""
        self.published: list[tuple[str, str]] = []

    def bucket(self, account: str, name: str) -> Path:
        path = self.root / account / name
        if not path.is_dir():
            raise AwsError("NoSuchBucket", f"The specified bucket does not exist: {name}", 404)
        return path

    def read_object(self, account: str, bucket: str, key: str) -> Path:
        path = self.bucket(account, bucket) / key
        if not path.is_file():
            raise AwsError("NoSuchKey", f"The specified key does not exist: {key}", 404)
        return path

    def list_objects(self, account: str, bucket: str, prefix: str) -> list[str]:
        root = self.bucket(account, bucket)
        keys = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        return sorted(key for key in keys if key.startswith(prefix))

    def write_object(self, account: str, bucket: str, key: str, source: Path, content_type: str = "") -> None:
        target = self.bucket(account, bucket) / key
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target.with_name(target.name + ".part"))
        target.with_name(target.name + ".part").replace(target)
        with self.lock:
            self.writes.append(key)

    def put_log_events(
        self, account: str, region: str, group: str, stream: str, messages: list[tuple[int, str]]
    ) -> None:
        with self.lock:
            self.logs.setdefault((group, stream), []).extend(text for _, text in messages)

    def put_metric(
        self, account: str, region: str, namespace: str, name: str, value: float, unit: str, dimensions: dict[str, str]
    ) -> None:
        with self.lock:
            self.metrics.append((namespace, name, value, dimensions))

    def put_metrics(self, account: str, region: str, namespace: str, points: list[MetricPoint]) -> None:
        with self.lock:
            self.metrics.extend((namespace, name, value, dimensions) for name, value, _, dimensions in points)

    def alarm_states(self, account: str, region: str, names: list[str]) -> dict[str, str]:
        self.on_look()
        with self.lock:
            return {name: self.alarms[name] for name in names if name in self.alarms}

    def invoke_lambda(self, account: str, region: str, function_arn: str, payload: bytes) -> tuple[bytes, str | None]:
        raise AwsError("ResourceNotFoundException", f"Function not found: {function_arn}", 404)

    def lets_in(self, role: str, service: str) -> bool | None:
        return None

    def publish(self, account: str, region: str, topic_arn: str, message: str) -> None:
        with self.lock:
            self.published.append((topic_arn, message))

    def emit_event(
        self, account: str, region: str, source: str, detail_type: str, detail: dict[str, Any], resources: list[str]
    ) -> None:
        with self.lock:
            self.events.append((detail_type, detail))
