"""Dials of the job runner; each can be set in localcloud's environment before it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How jobs and model servers are run here."""

    concurrent_jobs: int
    """Jobs that run at the same time; more wait in `InProgress`/`Pending`. LOCALCLOUD_CONCURRENT_JOBS, default 2."""
    training_instances: int
    """Machines that one training job may ask for; each is a container on this one. LOCALCLOUD_TRAINING_INSTANCES,
    default 4."""
    stop_grace_seconds: float
    """From SIGTERM to SIGKILL, 120 as on SageMaker. LOCALCLOUD_STOP_GRACE_SECONDS."""
    opt_ml: str
    """How a job gets its `/opt/ml`: `namespace`, `rewrite`, or `auto` for whichever this machine allows (see
    jobs/isolation.py). LOCALCLOUD_OPT_ML, default auto."""
    sync_seconds: float
    """Between two looks at a checkpoint directory. LOCALCLOUD_SYNC_SECONDS, default 2."""
    kept_failures: int
    """Directories of failed jobs that are kept to look into. LOCALCLOUD_KEPT_FAILURES, default 5."""
    invocation_seconds: float
    """How long a model may take for an answer: 300, where SageMaker allows 60, because a laptop is slower.
    LOCALCLOUD_INVOCATION_SECONDS."""
    capture_seconds: float
    """Between two uploads of captured requests. LOCALCLOUD_CAPTURE_SECONDS, default 2."""
    serverless_idle_seconds: float
    """From the last request to the end of a serverless variant's server. LOCALCLOUD_SERVERLESS_IDLE_SECONDS, default
    300."""
    endpoint_instances: int
    """Model servers that one endpoint may ask for; an update may run twice as many for its time.
    LOCALCLOUD_ENDPOINT_INSTANCES, default 8."""
    load_seconds: float
    """Between two samples of how many requests instances have at one time, and how many wait for an asynchronous
    endpoint: 10, as on SageMaker. LOCALCLOUD_LOAD_SECONDS."""
    alarm_seconds: float
    """Between two looks at a deployment's alarms. LOCALCLOUD_ALARM_SECONDS, default 1."""

    @classmethod
    def from_environment(cls) -> Settings:
        return cls(
            concurrent_jobs=int(_number("CONCURRENT_JOBS", 2, 1)),
            training_instances=int(_number("TRAINING_INSTANCES", 4, 1)),
            stop_grace_seconds=_number("STOP_GRACE_SECONDS", 120, 0),
            opt_ml=_choice("OPT_ML", ("auto", "namespace", "rewrite")),
            sync_seconds=_number("SYNC_SECONDS", 2, 0.05),
            kept_failures=int(_number("KEPT_FAILURES", 5, 0)),
            invocation_seconds=_number("INVOCATION_SECONDS", 300, 1),
            capture_seconds=_number("CAPTURE_SECONDS", 2, 0.05),
            endpoint_instances=int(_number("ENDPOINT_INSTANCES", 8, 1)),
            load_seconds=_number("LOAD_SECONDS", 10, 0.05),
            alarm_seconds=_number("ALARM_SECONDS", 1, 0.05),
            serverless_idle_seconds=_number("SERVERLESS_IDLE_SECONDS", 300, 0.05),
        )


def _number(name: str, default: float, minimum: float) -> float:
    text = os.environ.get(f"LOCALCLOUD_{name}", "")
    try:
        value = float(text) if text else default
    except ValueError:
        raise SystemExit(f"LOCALCLOUD_{name}={text!r} is not a number") from None
    if value < minimum:
        raise SystemExit(f"LOCALCLOUD_{name}={text!r}: it must be at least {minimum:g}")
    return value


def _choice(name: str, allowed: tuple[str, ...]) -> str:
    value = os.environ.get(f"LOCALCLOUD_{name}") or allowed[0]
    if value not in allowed:
        raise SystemExit(f"LOCALCLOUD_{name}={value!r}: it must be one of {', '.join(allowed)}")
    return value
