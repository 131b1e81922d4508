"""Scaling goes on after a kill: targets, policies, their alarms and cooldowns are kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localcloud import control
from localcloud_front.conftest import Clients, free_port
from localcloud_front.test_autoscaling import (
    CONCURRENCY,
    SPEED,
    activities,
    bucket,
    count,
    ended,
    endpoint,
    eventually,
    publish,
    register,
    track,
)
from localcloud_front.test_control import kill


def test_targets_and_policies_survive_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLOUD_SCALING_SECONDS", "0.5")
    monkeypatch.setenv("LOCALCLOUD_LOAD_SECONDS", "3600")
    home, port = tmp_path / "home", free_port()
    info = control.up(home, port, parent=os.getpid(), clock_speed=SPEED)
    aws = Clients(info, speed=SPEED)
    try:
        bucket(aws, "scaled-models")
        ident = endpoint(aws, "kept")
        register(aws, ident, 1, 3)
        policy = track(aws, ident, "p", TargetValue=5, **CONCURRENCY)
        kill(info)
        control.up(home, port, parent=os.getpid(), clock_speed=SPEED)
        eventually(lambda: count(aws, "kept") == 1)
        publish(aws, "ConcurrentRequestsPerModel", [8.0] * 5, 10, EndpointName="kept", VariantName="v")
        eventually(lambda: count(aws, "kept") == 2)
        assert [one["StatusCode"] for one in ended(aws, ident)] == ["Successful"]
        (found,) = aws("application-autoscaling").describe_scaling_policies(ServiceNamespace="sagemaker")[
            "ScalingPolicies"
        ]
        assert found["Alarms"] == policy["Alarms"]
        assert len(activities(aws, ident)) == 1
    finally:
        aws.close()
        control.down(home)
