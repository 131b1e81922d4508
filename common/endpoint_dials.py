"""The dials of pipeline.yaml's `endpoint:`; those with a `setting` are what the deploy function is told.

Runs in AWS Lambda beside deploy.py, and on the author's machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.dials import INSTANCE_TYPE, INSTANCE_WORDS, MOST_FALLBACKS, S3_URI, Dial
from common.machines import fallback_problems

SERVERLESS_MEMORY = (1024, 2048, 3072, 4096, 5120, 6144)
WITH_FALLBACKS = ("real-time", "asynchronous")


def _alarm_period(seconds: int) -> str | None:
    """SageMaker's metrics of requests have a value a minute: an alarm that looks more often finds none and lapses."""
    return f"{seconds} is refused; allowed: multiples of 60" if seconds % 60 else None


ENDPOINT = (
    Dial(
        "endpoint.name", None, "null = <prefix>-endpoint; others begin with <prefix>-, too", kind=str, optional=True,
        longest=55, pattern=r"[a-z0-9](-?[a-z0-9])*", parameter="EndpointName", setting="endpoint_name",
        words="lower-case letters, digits and single hyphens between them",
    ),
    Dial(
        "endpoint.mode", "real-time", "adapter = a LoRA adapter on a shared base",
        choices=("real-time", "adapter", "serverless", "asynchronous"), parameter="EndpointMode",
        setting="endpoint_mode",
    ),
    Dial(
        "endpoint.server", "auto", "auto = vLLM in the LMI image on a GPU, serving/inference.py elsewhere",
        choices=("auto", "lmi", "handler"),
    ),
    Dial(
        "endpoint.instance_type", "ml.g5.xlarge", "1 GPU of 24 GB, billed by the second until deleted",
        pattern=INSTANCE_TYPE, words=INSTANCE_WORDS, parameter="EndpointInstanceType",
        setting="endpoint_instance_type", shape="ProductionVariantInstanceType",
    ),
    Dial(
        "endpoint.fallback_instance_types", [], "tried in order; modes real-time and asynchronous", low=0,
        high=MOST_FALLBACKS, pattern=INSTANCE_TYPE, words=INSTANCE_WORDS, setting="endpoint_fallback_instance_types",
        shape="ProductionVariantInstanceType",
    ),
    Dial(
        "endpoint.instance_count", 1, "to begin with, and at least; 0 in the modes adapter and asynchronous",
        unit="machines", low=0, high=64, parameter="EndpointInstanceCount", setting="endpoint_instance_count",
    ),
    Dial(
        "endpoint.scaling.maximum", 5, "at most; bounds the cost", unit="machines", low=1, high=64,
        parameter="EndpointMaximumInstanceCount", setting="endpoint_maximum_instance_count",
    ),
    Dial(
        "endpoint.scaling.concurrent_requests", 5.0, "in progress per machine; more add a machine", unit="requests",
        low=0.1, high=10_000, setting="endpoint_concurrent_requests",
    ),
    Dial(
        "endpoint.scaling.scale_in_seconds", 300, "pause after removing a machine", unit="seconds", low=0, high=3600,
        setting="endpoint_scale_in_seconds",
    ),
    Dial(
        "endpoint.scaling.scale_out_seconds", 60, "pause after adding one", unit="seconds", low=0, high=3600,
        setting="endpoint_scale_out_seconds",
    ),
    Dial(
        "endpoint.rollout.traffic", "canary", "rolling needs no second fleet (large models)",
        choices=("canary", "linear", "all-at-once", "rolling"), parameter="EndpointTraffic", setting="endpoint_traffic",
    ),
    Dial(
        "endpoint.rollout.step_percent", 10, "traffic of the first step (canary) or of each (linear, rolling)",
        unit="percent", low=1, high=50, setting="endpoint_step_percent",
    ),
    Dial(
        "endpoint.rollout.wait_seconds", 300, "alarms watch each step this long; a bad version serves no longer",
        unit="seconds", low=0, high=3600, parameter="EndpointWaitSeconds", setting="endpoint_wait_seconds",
    ),
    Dial(
        "endpoint.rollout.keep_seconds", 120, "old machines stay ready this long after the last step", unit="seconds",
        low=0, high=3600, parameter="EndpointKeepSeconds", setting="endpoint_keep_seconds",
    ),
    Dial(
        "endpoint.alarms.error_rate", 0.01, "of the requests that the model did not answer with a 2XX", unit="share",
        low=0, high=1, setting="endpoint_error_rate",
    ),
    Dial(
        "endpoint.alarms.latency_seconds", 20.0, "of the slowest requests (p95 with steps of 10 percent)",
        unit="seconds", low=0.001, high=3600, setting="endpoint_latency_seconds",
    ),
    Dial(
        "endpoint.alarms.period_seconds", 60, "looked at together; multiples of 60", unit="seconds", low=60, high=3600,
        also=_alarm_period, setting="endpoint_alarm_period_seconds",
    ),
    Dial(
        "endpoint.alarms.names", [], "your own CloudWatch alarms that also roll a deployment back", low=0, high=8,
        pattern=r"[^,\s][^,]{0,254}", words="a name of up to 255 characters without commas", setting="endpoint_alarms",
    ),
    Dial(
        "endpoint.serverless.memory_mb", 6144, "mode serverless", unit="MB", choices=SERVERLESS_MEMORY,
        setting="endpoint_serverless_memory_mb",
    ),
    Dial(
        "endpoint.serverless.concurrency", 5, "at once; more are refused", unit="requests", low=1, high=200,
        setting="endpoint_serverless_concurrency",
    ),
    Dial(
        "endpoint.asynchronous_output_uri", None, "mode asynchronous; null = async/ in the artifacts bucket", kind=str,
        optional=True, pattern=S3_URI, words="s3://bucket/prefix", longest=512, setting="endpoint_async_output_uri",
    ),
    Dial(
        "endpoint.data_capture_percentage", 100, "of requests and answers kept in S3; 0 = off", unit="percent",
        low=0, high=100, parameter="DataCapturePercentage", setting="data_capture_percentage",
    ),
    Dial("endpoint.network_isolation", True, "no network in the model server"),
)  # fmt: skip


def between(
    mode: str,
    machine: str,
    fallbacks: Sequence[str],
    instances: int,
    maximum: int,
    traffic: str,
    step_percent: int,
) -> Iterator[tuple[str, str]]:
    """What no single dial can say: (the dial's key, what is wrong), alike for pipeline.yaml and the deploy function."""
    if fallbacks and mode not in WITH_FALLBACKS:
        message = f"{', '.join(fallbacks)}, but only the modes {' and '.join(WITH_FALLBACKS)} take a list, not {mode}"
        yield "endpoint.fallback_instance_types", message
    for problem in fallback_problems(machine, fallbacks):
        yield "endpoint.fallback_instance_types", problem
    if instances > maximum:
        yield "endpoint.instance_count", f"{instances} is above scaling.maximum {maximum}"
    if instances == 0 and mode not in ("adapter", "asynchronous"):
        yield "endpoint.instance_count", f"0, but only the modes adapter and asynchronous scale to zero, not {mode}"
    least = {"linear": 10, "rolling": 5}.get(traffic, 1)
    if step_percent < least:
        message = f"{step_percent} is too small a step for {traffic}; allowed: {least} to 50"
        yield "endpoint.rollout.step_percent", message
