"""The `endpoint:` section of pipeline.yaml: where the approved model answers, and how a new version gets there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pipelines.section import InstanceType, Section


class Scaling(Section):
    """How the number of instances (copies, in mode adapter) follows the traffic."""

    maximum: int = Field(default=5, ge=1, le=64, description="instances at most; equal to instance_count: no scaling")
    concurrent_requests: float = Field(
        default=5, ge=0.1, le=10_000, description="requests under way per instance that scaling aims at"
    )
    scale_in_seconds: int = Field(default=300, ge=0, le=3600, description="seconds between two steps down")
    scale_out_seconds: int = Field(default=60, ge=0, le=3600, description="seconds between two steps up")


class Rollout(Section):
    """How traffic moves to a new version."""

    traffic: Literal["canary", "linear", "all-at-once", "rolling"] = Field(
        default="canary", description="canary: one step, then the rest; rolling: instance by instance, for large models"
    )
    step_percent: int = Field(default=10, ge=1, le=50, description="traffic of the first step, or of each")
    wait_seconds: int = Field(default=300, ge=0, le=3600, description="seconds that the alarms watch each step")
    keep_seconds: int = Field(default=120, ge=0, le=3600, description="seconds that the old instances stay after it")

    def rules(self) -> Iterator[str]:
        least = {"linear": 10, "rolling": 5}.get(self.traffic, 1)
        if self.step_percent < least:
            yield f"step_percent: {self.step_percent} is too small a step for {self.traffic}; allowed: {least} to 50"


class Alarms(Section):
    """What takes a deployment back by itself."""

    error_rate: float = Field(default=0.01, ge=0, le=1, description="share of requests answered with a 5XX")
    latency_seconds: float = Field(default=2.0, ge=0.001, le=3600, description="seconds that the model may take")
    period_seconds: int = Field(default=60, ge=10, le=3600, description="seconds that are looked at together")
    names: list[Annotated[str, Field(pattern=r"^[^,\s][^,]{0,254}$")]] = Field(
        default_factory=list, max_length=8, description="further CloudWatch alarms of yours"
    )

    def rules(self) -> Iterator[str]:
        if self.period_seconds not in (10, 20, 30) and self.period_seconds % 60:
            yield f"period_seconds: {self.period_seconds}; allowed: 10, 20, 30 and multiples of 60"


class Serverless(Section):
    """Mode serverless: billed by the millisecond, no GPU, a cold start after a pause."""

    memory_mb: Literal[1024, 2048, 3072, 4096, 5120, 6144] = Field(default=6144, description="MB of memory")
    concurrency: int = Field(default=5, ge=1, le=200, description="requests at once; more are refused")


class Endpoint(Section):
    """Where the approved model answers."""

    name: str | None = Field(
        default=None,
        max_length=55,
        pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,54}$",
        description="null: <prefix>-endpoint",
    )
    mode: Literal["real-time", "adapter", "serverless", "asynchronous"] = Field(
        default="real-time", description="adapter: a LoRA adapter on a shared base, as inference components"
    )
    server: Literal["auto", "lmi", "handler"] = Field(
        default="auto", description="auto: vLLM in AWS's LMI image on a GPU, serving/inference.py elsewhere"
    )
    instance_type: InstanceType = "ml.g5.xlarge"
    instance_count: int = Field(default=1, ge=0, le=64, description="instances to begin with, and at least")
    scaling: Scaling = Field(default_factory=Scaling, description="instances that follow the traffic")
    rollout: Rollout = Field(default_factory=Rollout, description="the way of a new version to all traffic")
    alarms: Alarms = Field(default_factory=Alarms, description="alarms that take a deployment back")
    serverless: Serverless = Field(default_factory=Serverless, description="mode serverless")
    asynchronous_output_uri: str | None = Field(
        default=None,
        pattern=r"^s3://[a-z0-9.-]{3,63}(/.*)?$",
        max_length=512,
        description="mode asynchronous: an S3 prefix for the answers; null: in the artifacts bucket",
    )
    data_capture_percentage: int = Field(default=100, ge=0, le=100, description="share of requests kept in S3, percent")
    network_isolation: bool = Field(default=True, description="true: the model server has no network at all")

    def rules(self) -> Iterator[str]:
        if self.instance_count > self.scaling.maximum:
            yield f"instance_count: {self.instance_count} is above scaling.maximum {self.scaling.maximum}"
        if self.instance_count == 0 and self.mode not in ("adapter", "asynchronous"):
            yield "instance_count: 0, but only the modes adapter and asynchronous scale to zero"
        if self.mode == "adapter" and self.server == "handler":
            yield "server: handler, but on AWS only the LMI image loads adapters as inference components; set auto"
