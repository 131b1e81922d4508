"""`kill -9` of the deploy function after each of its API calls, then the same event again: the same end, no orphans."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lambdas.support import GROUP, LAMBDAS, approval, belongings, load, rest, settings, states
from tests.support.waiting import until

pytestmark = pytest.mark.slow

deploy = load("deploy")
ledger = load("ledger")
DRIVER = Path(__file__).with_name("killed_deploy.py")
MOST_CALLS = 40


class Killer:
    """Invokes the function in processes that end at a chosen API call (killed_deploy.py)."""

    def __init__(self, environment: dict[str, str], errors: Path) -> None:
        self._environment, self._errors = environment, errors
        with errors.open("w") as stream:
            self._process = subprocess.Popen(
                [sys.executable, str(DRIVER), str(LAMBDAS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )

    def __call__(self, event: dict[str, Any], calls: int) -> bool:
        """Whether the function was killed after that many calls (False: it ended by itself)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"event": event, "environment": self._environment, "calls": calls}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer["signal"] in (0, signal.SIGKILL), answer
        assert answer["status"] == 0, self._errors.read_text()
        return bool(answer["signal"])

    def close(self) -> None:
        self._process.communicate(timeout=300)


@pytest.fixture(scope="module")
def killed(session: Any, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    killer = Killer(environment, tmp_path_factory.mktemp("killed") / "errors.txt")
    yield killer
    killer.close()


def owned(clients: Any, arns: list[str]) -> dict[str, int]:
    """How many models and endpoint configurations were made of these packages, and of this endpoint."""
    prefixes = tuple(f"{GROUP}-{arn.rsplit('/', 1)[1]}-" for arn in arns)
    pages = clients.sagemaker.get_paginator("list_models").paginate()
    models = [item["ModelName"] for page in pages for item in page["Models"]]
    return {"models": len([name for name in models if name.startswith(prefixes)])}


def test_killed_while_it_creates_an_endpoint(
    clients: Any, environment: dict[str, str], register: Callable[..., str], killed: Killer
) -> None:
    tried = 0
    for calls in range(1, MOST_CALLS):
        endpoint = f"kill-create-{calls}"
        arn = register(f"kc{calls}", "Approved", {key: str(value) for key, value in settings(endpoint).items()})
        if not killed(approval(arn), calls):
            break
        tried += 1
        answer = deploy.route(clients, approval(arn), environment)
        assert answer["action"] in ("created", "unchanged"), (calls, answer)
        assert states(rest(clients, endpoint, environment)) == ["in_service"], calls
        assert owned(clients, [arn]) == {"models": 1}
        configs = clients.sagemaker.list_endpoint_configs(NameContains=f"{endpoint}-")["EndpointConfigs"]
        assert len(configs) == 1
        clients.sagemaker.delete_endpoint(EndpointName=endpoint)
    assert 5 <= tried < MOST_CALLS - 1, tried


def test_killed_while_it_updates_an_endpoint(
    clients: Any, environment: dict[str, str], register: Callable[..., str], killed: Killer
) -> None:
    endpoint, tried = "kill-update", 0
    chosen = settings(endpoint, endpoint_traffic="canary", endpoint_step_percent=50)
    metadata = {key: str(value) for key, value in chosen.items()}
    arns = [register("ku0", "Approved", metadata)]
    deploy.route(clients, approval(arns[0]), environment)
    rest(clients, endpoint, environment)
    for calls in range(1, MOST_CALLS):
        arns.append(register(f"ku{calls}", "Approved", metadata))
        ended = not killed(approval(arns[-1]), calls)
        answer = deploy.route(clients, approval(arns[-1]), environment)
        assert answer["action"] in ("updated", "unchanged"), (calls, answer)
        found = states(rest(clients, endpoint, environment))
        assert found == ["replaced"] * (len(arns) - 1) + ["in_service"], (calls, found)
        # What serves, the way back, and nothing else.
        assert owned(clients, arns) == {"models": 2}
        assert len(clients.sagemaker.list_endpoint_configs(NameContains=endpoint)["EndpointConfigs"]) == 2
        alarms = clients.cloudwatch.describe_alarms(AlarmNamePrefix=f"{endpoint}-")["MetricAlarms"]
        assert sorted(alarm["AlarmName"] for alarm in alarms) == [f"{endpoint}-errors", f"{endpoint}-latency"]
        if ended:
            break
        tried += 1
    assert 8 <= tried < MOST_CALLS - 1, tried


def test_killed_while_it_rolls_back_and_while_it_undeploys(
    clients: Any, environment: dict[str, str], register: Callable[..., str], killed: Killer
) -> None:
    endpoint = "kill-back"
    metadata = {key: str(value) for key, value in settings(endpoint, endpoint_maximum_instance_count=2).items()}
    arns = [register(f"kb{number}", "Approved", metadata) for number in range(2)]
    tried = 0
    for calls in range(1, MOST_CALLS):
        for arn in arns:
            deploy.route(clients, {"model_package_arn": arn, "by": "command"}, environment)
            rest(clients, endpoint, environment)
        event = {"command": "rollback", "endpoint_name": endpoint, "reason": "killed on the way"}
        if not killed(event, calls):
            break
        tried += 1
        with contextlib.suppress(deploy.Refused):  # it had come so far that there is nothing further back
            deploy.route(clients, event, environment)
        rest(clients, endpoint, environment)
        log = ledger.Ledger(clients.s3, environment["DEPLOYMENTS_URI"], endpoint)
        serving = [item for item in log.read()["deployments"] if item["state"] == "in_service"]
        assert [item["model_package_arn"] for item in serving] == [arns[0]], calls
        assert owned(clients, arns) == {"models": 1}, calls
    assert tried >= 4, tried

    gone = 0
    for calls in range(1, MOST_CALLS):
        ended = not killed({"command": "undeploy", "endpoint_name": endpoint}, calls)
        until(
            lambda: deploy.route(clients, {"command": "undeploy", "endpoint_name": endpoint}, environment),
            lambda answer: answer["action"] == "undeployed",
        )
        left = belongings(clients, endpoint)
        assert owned(clients, arns) == {"models": 0}, calls
        assert {key: value for key, value in left.items() if key != "models"} == {
            "endpoints": [],
            "configurations": [],
            "alarms": [],
            "targets": [],
        }, calls
        if ended:
            break
        gone += 1
        deploy.route(clients, {"model_package_arn": arns[0], "by": "command"}, environment)
        rest(clients, endpoint, environment)
    assert gone >= 4, gone


def test_killed_and_never_repeated_goes_on_by_the_timer(
    clients: Any, environment: dict[str, str], register: Callable[..., str], killed: Killer
) -> None:
    endpoint = "kill-alone"
    metadata = {key: str(value) for key, value in settings(endpoint).items()}
    arn = register("alone", "Approved", metadata)
    log = ledger.Ledger(clients.s3, environment["DEPLOYMENTS_URI"], endpoint)
    for calls in range(2, 8):
        assert killed(approval(arn), calls)
        if log.read()["deployments"]:
            break
    assert states(log.read()["deployments"]) == ["starting"]
    deploy.route(clients, {"command": "settle", "endpoint_name": endpoint}, environment)
    assert states(log.read()["deployments"]) == ["starting"], "it may still be at it"
    long_ago = "2026-11-24T00:00:00.000+00:00"
    log.change(lambda document: document["deployments"][0].update(changed=long_ago))
    deploy.route(clients, {"command": "settle", "endpoint_name": endpoint}, environment)
    assert states(rest(clients, endpoint, environment)) == ["in_service"]
