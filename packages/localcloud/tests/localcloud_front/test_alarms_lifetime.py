"""Alarms across starts and stops: the hooks come and go, the states stay."""

from __future__ import annotations

import os
from pathlib import Path

from localcloud import LocalCloud, control
from localcloud_front.conftest import Clients, free_port
from localcloud_front.test_alarms import alarm, put
from localcloud_front.test_control import kill
from localcloud_front.test_delegate import eventually


def test_every_hook_is_in_place_and_undone(tmp_path: Path) -> None:
    with LocalCloud(tmp_path / "first"):
        pass  # MiniStack reads its environment when it is imported: a cloud has to be the first to do that
    from ministack.services import cloudwatch
    from ministack.services.cloudformation import provisioners

    names = [
        "_evaluate_alarm",
        "_evaluate_all_alarms",
        "_evict_old_metrics",
        "_put_metric_alarm",
        "_set_alarm_state",
        "_dispatch_alarm_actions",
        "_get_metric_statistics",
        "_get_metric_data",
    ]
    owners = [(cloudwatch, name) for name in names] + [(provisioners, "_cw_metric_alarm_record")]
    before = [getattr(owner, name) for owner, name in owners]
    assert {function.__module__.partition(".")[0] for function in before} == {"ministack"}
    with LocalCloud(tmp_path / "home"):
        during = [getattr(owner, name) for owner, name in owners]
        assert {function.__module__.partition(".")[0] for function in during} == {"localcloud"}
    assert [getattr(owner, name) for owner, name in owners] == before


def test_alarms_of_all_accounts_go_on_after_a_kill(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    info = control.up(home, port, parent=os.getpid())
    callers = [Clients(info), Clients(info, "210987654321", "us-west-2")]

    def states() -> list[str]:
        found = [aws("cloudwatch").describe_alarms(AlarmNames=["a"])["MetricAlarms"] for aws in callers]
        return [alarms[0]["StateValue"] for alarms in found]

    try:
        for aws in callers:
            put(aws, "M", {1: 9.0}, E="x")
            alarm(aws, "a", "M", {"E": "x"}, TreatMissingData="ignore")
        eventually(lambda: states() == ["ALARM", "ALARM"])
        kill(info)
        control.up(home, port, parent=os.getpid())
        eventually(lambda: states() == ["ALARM", "ALARM"])
        for aws in callers:
            put(aws, "M", {1: -9.0, 0.2: -90.0}, E="x")
        eventually(lambda: states() == ["OK", "OK"])
    finally:
        for aws in callers:
            aws.close()
        control.down(home)
