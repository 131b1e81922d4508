"""pipeline.yaml's `endpoint:` as lambdas/settings.py reads it: one flat name for each setting (docs/contracts.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.names import endpoint_name

if TYPE_CHECKING:
    from pipelines.config import Config


def endpoint_settings(config: Config) -> dict[str, Any]:
    """The defaults of the deploy function; a run's parameters and a command's options come before them."""
    endpoint = config.endpoint
    return {
        "endpoint_name": endpoint_name(config),
        "endpoint_mode": endpoint.mode,
        "endpoint_instance_type": endpoint.instance_type,
        "endpoint_instance_count": endpoint.instance_count,
        "endpoint_maximum_instance_count": endpoint.scaling.maximum,
        "endpoint_concurrent_requests": endpoint.scaling.concurrent_requests,
        "endpoint_scale_in_seconds": endpoint.scaling.scale_in_seconds,
        "endpoint_scale_out_seconds": endpoint.scaling.scale_out_seconds,
        "endpoint_traffic": endpoint.rollout.traffic,
        "endpoint_step_percent": endpoint.rollout.step_percent,
        "endpoint_wait_seconds": endpoint.rollout.wait_seconds,
        "endpoint_keep_seconds": endpoint.rollout.keep_seconds,
        "endpoint_error_rate": endpoint.alarms.error_rate,
        "endpoint_latency_seconds": endpoint.alarms.latency_seconds,
        "endpoint_alarm_period_seconds": endpoint.alarms.period_seconds,
        "endpoint_alarms": ",".join(endpoint.alarms.names),
        "endpoint_serverless_memory_mb": endpoint.serverless.memory_mb,
        "endpoint_serverless_concurrency": endpoint.serverless.concurrency,
        "endpoint_async_output_uri": endpoint.asynchronous_output_uri or "",
        "data_capture_percentage": endpoint.data_capture_percentage,
    }


def endpoint_settings_names() -> tuple[str, ...]:
    """What `fmops deploy -s NAME=VALUE` may change: every setting of the deploy function but the endpoint's name."""
    from pipelines.config import Config, GateRule

    every = endpoint_settings(Config(gate=[GateRule(metric="exact_match", minimum=0.0)]))
    return tuple(name for name in every if name != "endpoint_name")
