"""The `endpoint:` section of pipeline.yaml: where the approved model answers, and how a new version gets there."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from common.endpoint_dials import between
from configuration.section import Section, value_of


class Scaling(Section):
    """How the number of instances (copies, in mode adapter) follows the traffic."""

    place = "endpoint.scaling"
    maximum: int = value_of("endpoint.scaling.maximum")
    concurrent_requests: float = value_of("endpoint.scaling.concurrent_requests")
    scale_in_seconds: int = value_of("endpoint.scaling.scale_in_seconds")
    scale_out_seconds: int = value_of("endpoint.scaling.scale_out_seconds")


class Rollout(Section):
    """How traffic moves to a new version."""

    place = "endpoint.rollout"
    traffic: str = value_of("endpoint.rollout.traffic")
    step_percent: int = value_of("endpoint.rollout.step_percent")
    wait_seconds: int = value_of("endpoint.rollout.wait_seconds")
    keep_seconds: int = value_of("endpoint.rollout.keep_seconds")


class Alarms(Section):
    """What rolls a deployment back by itself."""

    place = "endpoint.alarms"
    error_rate: float = value_of("endpoint.alarms.error_rate")
    latency_seconds: float = value_of("endpoint.alarms.latency_seconds")
    period_seconds: int = value_of("endpoint.alarms.period_seconds")
    names: list[str] = value_of("endpoint.alarms.names")


class Serverless(Section):
    """Mode serverless: billed by the millisecond, no GPU, a cold start after a pause."""

    place = "endpoint.serverless"
    memory_mb: int = value_of("endpoint.serverless.memory_mb")
    concurrency: int = value_of("endpoint.serverless.concurrency")


class Endpoint(Section):
    """Where the approved model answers."""

    place = "endpoint"
    name: str | None = value_of("endpoint.name")
    mode: str = value_of("endpoint.mode")
    server: str = value_of("endpoint.server")
    instance_type: str = value_of("endpoint.instance_type")
    fallback_instance_types: list[str] = value_of("endpoint.fallback_instance_types")
    instance_count: int = value_of("endpoint.instance_count")
    scaling: Scaling = Field(default_factory=Scaling, description="instances that follow the traffic")
    rollout: Rollout = Field(default_factory=Rollout, description="the way of a new version to all traffic")
    alarms: Alarms = Field(default_factory=Alarms, description="alarms that roll a deployment back")
    serverless: Serverless = Field(default_factory=Serverless, description="mode serverless")
    asynchronous_output_uri: str | None = value_of("endpoint.asynchronous_output_uri")
    data_capture_percentage: int = value_of("endpoint.data_capture_percentage")
    network_isolation: bool = value_of("endpoint.network_isolation")

    def problems(self) -> Iterator[str]:
        for key, problem in between(
            self.mode,
            self.instance_type,
            self.fallback_instance_types,
            self.instance_count,
            self.scaling.maximum,
            self.rollout.traffic,
            self.rollout.step_percent,
        ):
            yield f"{key.removeprefix('endpoint.')}: {problem}"
        if self.mode == "adapter" and self.server == "handler":
            yield "server: handler, but on AWS only the LMI image loads adapters as inference components; set auto"
