"""The clock that waits run on: what it speeds up, what it leaves alone, and how it is asked for."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from localcloud import LocalCloud, clock, control
from localcloud.clock import Clock
from localcloud.home import ControlError
from localcloud_front.conftest import Clients, free_port
from localcloud_front.test_alarms import NAMESPACE, alarm, dimensions
from localcloud_front.test_delegate import eventually


def test_a_minute_lasts_three_seconds_at_speed_20() -> None:
    fast = Clock(20)
    assert (fast.real(60), fast.real(1, least=0.2), Clock().real(60)) == (3.0, 0.2, 60.0)
    assert (fast.saved(3), Clock().saved(3)) == (57.0, 0.0)
    now = 1_800_000_000.0
    assert fast.position(now + 3) - fast.position(now) == 60
    assert fast.moment(fast.position(now)) == now


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0.5", "clock speed 0.5 is not between 1 and 100"),
        ("101", "clock speed 101 is not between 1 and 100"),
        ("quick", "clock speed 'quick' is not a number: give 1 (real time) to 100"),
    ],
)
def test_a_speed_that_can_not_be_is_refused(text: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="give 1") as error:
        clock.read(text)
    assert complaint in str(error.value)
    monkeypatch.setenv("LOCALCLOUD_CLOCK_SPEED", text)
    with pytest.raises(SystemExit) as stopped:
        clock.from_environment()
    assert str(stopped.value).startswith(f"LOCALCLOUD_CLOCK_SPEED: {complaint}")


def test_the_lowest_and_highest_speed_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (clock.read("1").speed, clock.read("100").speed, clock.read("").speed) == (1.0, 100.0, 1.0)
    monkeypatch.setenv("LOCALCLOUD_CLOCK_SPEED", "12.5")
    assert clock.from_environment() == Clock(12.5)


def test_an_alarm_counts_short_minutes_of_points_with_real_times(tmp_path: Path) -> None:
    with LocalCloud(tmp_path / "home", clock_speed=20) as cloud:
        aws = Clients(cloud)
        began = time.time()
        point = {"MetricName": "M", "Value": 9.0, "Dimensions": dimensions(E="x")}
        aws("cloudwatch").put_metric_data(Namespace=NAMESPACE, MetricData=[point])
        alarm(aws, "soon", "M", {"E": "x"}, EvaluationPeriods=1, TreatMissingData="ignore")

        def found() -> dict[str, Any]:
            (one,) = aws("cloudwatch").describe_alarms(AlarmNames=["soon"])["MetricAlarms"]
            return dict(one)

        eventually(lambda: found()["StateValue"] == "ALARM")
        now = time.time()
        assert now - began < 20, "a real minute has to be over first"
        changed, configured = found()["StateUpdatedTimestamp"], found()["AlarmConfigurationUpdatedTimestamp"]
        for moment in (changed, configured):
            assert began - 1 <= moment.timestamp() <= now + 1
        (shown,) = aws("cloudwatch").get_metric_statistics(
            Namespace=NAMESPACE,
            MetricName="M",
            Dimensions=dimensions(E="x"),
            StartTime=began - 120,
            EndTime=now + 60,
            Period=60,
            Statistics=["Sum"],
        )["Datapoints"]
        assert (shown["Sum"], shown["Timestamp"].timestamp() <= now) == (9.0, True)
        aws.close()


def test_the_speed_of_a_process_is_asked_for_and_shown(tmp_path: Path) -> None:
    home = tmp_path / "home"
    info = control.up(home, free_port(), parent=os.getpid(), clock_speed=20)
    try:
        assert info.clock_speed == 20
        assert control.up(home) == control.up(home, clock_speed=20) == control.status(home) == info
        with pytest.raises(ControlError, match="already runs at clock speed 20: stop it to change that"):
            control.up(home, clock_speed=1)
    finally:
        control.down(home)


def test_a_process_refuses_a_speed_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="clock speed 1000 is not between 1 and 100"):
        control.up(tmp_path / "home", free_port(), clock_speed=1000)
