"""Job output on its way to CloudWatch Logs, a file, and the metrics that its lines carry."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import Any

from localcloud.context import Context
from localcloud.errors import validation

_LOG = logging.getLogger("localcloud.jobs")


class MetricReader:
    """Reads MetricDefinitions' regular expressions off log lines.

    Keeps the last value of each as FinalMetricDataList and publishes it to CloudWatch (namespace
    /aws/sagemaker/TrainingJobs, dimension TrainingJobName) with each delivery of lines.
    """

    def __init__(self, ctx: Context, job: str, definitions: list[dict[str, str]]) -> None:
        self._ctx, self._job = ctx, job
        self._patterns = [(item["Name"], re.compile(item["Regex"])) for item in definitions]
        self.final: dict[str, dict[str, Any]] = {}

    def read(self, lines: list[str]) -> None:
        fresh: dict[str, float] = {}
        for line in lines:
            for name, pattern in self._patterns:
                for match in pattern.finditer(line):
                    value = _number(match)
                    if value is not None:
                        fresh[name] = value
        now = time.time()
        for name, value in fresh.items():
            self.final[name] = {"MetricName": name, "Value": value, "Timestamp": now}
            self._ctx.cloud.delegate.put_metric(
                self._ctx.account,
                self._ctx.region,
                "/aws/sagemaker/TrainingJobs",
                name,
                value,
                "None",
                {"TrainingJobName": self._job},
            )


def check_metric_definitions(definitions: list[dict[str, str]]) -> None:
    """ValidationException for a regular expression that isn't one, or that captures nothing."""
    for item in definitions:
        try:
            groups = re.compile(item["Regex"]).groups
        except re.error as error:
            raise validation(f"MetricDefinition {item['Name']!r}: invalid regex {item['Regex']!r}: {error}") from None
        if groups < 1:
            raise validation(f"MetricDefinition {item['Name']!r}: the regex {item['Regex']!r} has no capture group")


class LogSink:
    """Where a process's lines go; never raises, so that a full disk or a failing log service can't stop a job."""

    def __init__(self, ctx: Context, group: str, stream: str, file: Path, metrics: MetricReader | None = None) -> None:
        self._ctx, self._group, self._stream, self._file, self._metrics = ctx, group, stream, file, metrics
        self._failed = False

    def __call__(self, lines: list[str]) -> None:
        now = int(time.time() * 1000)
        try:
            with self._file.open("a", encoding="utf-8", errors="replace") as file:
                file.writelines(f"{line}\n" for line in lines)
            # CloudWatch refuses an empty message.
            self._ctx.cloud.delegate.put_log_events(
                self._ctx.account, self._ctx.region, self._group, self._stream, [(now, line or " ") for line in lines]
            )
            if self._metrics is not None:
                self._metrics.read(lines)
        except Exception as error:
            if not self._failed:
                _LOG.warning("%s %s: output is not kept: %s", self._group, self._stream, error)
            self._failed = True


def _number(match: re.Match[str]) -> float | None:
    try:
        return float(match.group(1))
    except (TypeError, ValueError):
        return None
