"""Ways to call lambdas/deploy.py in process, and to look at what it left behind."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.support.waiting import until

GROUP = "tested-models"
LAMBDAS = Path(__file__).resolve().parents[2] / "lambdas"


def load(name: str) -> ModuleType:
    """A module of lambdas/, imported as it is in Lambda: its siblings are top-level modules."""
    if str(LAMBDAS) not in sys.path:
        sys.path.append(str(LAMBDAS))
    return importlib.import_module(name)


def settings(endpoint: str, **changes: Any) -> dict[str, Any]:
    """A deployment that takes no time: all traffic at once, one machine that does not scale."""
    return {
        "endpoint_name": endpoint,
        "endpoint_instance_type": "ml.m5.large",
        "endpoint_instance_count": 1,
        "endpoint_maximum_instance_count": 1,
        "endpoint_traffic": "all-at-once",
        "endpoint_wait_seconds": 0,
        "endpoint_keep_seconds": 0,
        "data_capture_percentage": 50,
        **changes,
    }


def approval(
    arn: str,
    group: str = GROUP,
    status: str = "Approved",
    moment: float | None = None,
    changed: tuple[str, ...] = ("ModelApprovalStatus",),
) -> dict[str, Any]:
    """EventBridge's event, as SageMaker sends it; `moment` is when the package was changed, in epoch seconds."""
    return {
        "source": "aws.sagemaker",
        "detail-type": "SageMaker Model Package State Change",
        "time": "2026-11-26T00:00:00Z",
        "detail": {
            "ModelPackageArn": arn,
            "ModelPackageGroupName": group,
            "ModelApprovalStatus": status,
            "LastModifiedTime": round((moment or time.time()) * 1000),
            "UpdatedModelPackageFields": list(changed),
        },
    }


def belongings(clients: Any, endpoint: str) -> dict[str, Any]:
    """Every resource whose name begins with the endpoint's, and the models that they use."""
    sagemaker = clients.sagemaker
    configs = sagemaker.list_endpoint_configs(NameContains=endpoint, MaxResults=100)["EndpointConfigs"]
    alarms = clients.cloudwatch.describe_alarms(AlarmNamePrefix=endpoint)["MetricAlarms"]
    targets = clients.autoscaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    endpoints = sagemaker.list_endpoints(NameContains=endpoint, MaxResults=100)["Endpoints"]
    return {
        "endpoints": sorted(item["EndpointName"] for item in endpoints),
        "configurations": sorted(item["EndpointConfigName"] for item in configs),
        "models": sorted(item["ModelName"] for item in sagemaker.list_models(MaxResults=100)["Models"]),
        "alarms": sorted(alarm["AlarmName"] for alarm in alarms),
        "targets": sorted(item["ResourceId"] for item in targets if f"/{endpoint}/" in item["ResourceId"]),
    }


def undeploy(run: Callable[[dict[str, Any]], Any], endpoint: str) -> None:
    """Undeploy an endpoint and play the function's timer until it is gone.

    The rules invoke the function at the same time. When that one takes the last step, ours finds nothing to do.
    """
    answer = run({"command": "undeploy", "endpoint_name": endpoint})
    if answer["action"] == "undeploying":
        [answer] = until(
            lambda: run({"command": "settle", "endpoint_name": endpoint}),
            lambda answers: answers[0]["action"] != "undeploying",
        )
    last = (answer["action"], answer["reason"])
    assert last in (("undeployed", ""), ("settled", "the endpoint does not exist")), answer


def rest(clients: Any, endpoint: str, environment: dict[str, str]) -> list[dict[str, Any]]:
    """The log's deployments when nothing is queued or rolling out; the function's timer is played by this loop.

    The rules invoke the function, too, at the same time: its log may be at rest while it still prunes. Only a `settle`
    of our own that ends with "settled" has pruned itself whatever the other one had left.
    """
    deploy, log = load("deploy"), load("ledger").Ledger(clients.s3, environment["DEPLOYMENTS_URI"], endpoint)

    def settle() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        [answer] = deploy.route(clients, {"command": "settle", "endpoint_name": endpoint}, environment)
        return answer, log.read()["deployments"]

    def at_rest(seen: tuple[dict[str, Any], list[dict[str, Any]]]) -> bool:
        answer, deployments = seen
        under_way = any(item["state"] in ("waiting", "starting", "deploying") for item in deployments)
        return answer["action"] == "settled" and bool(deployments) and not under_way

    return until(settle, at_rest)[1]


def states(deployments: list[dict[str, Any]]) -> list[str]:
    """The state of each deployment, oldest first."""
    return [item["state"] for item in deployments]
