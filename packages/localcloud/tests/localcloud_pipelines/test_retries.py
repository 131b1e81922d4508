"""Retry policies. One machine has no capacity errors and no throttling: there the API's own answers are replaced."""

from __future__ import annotations

from typing import Any

import pytest

import localcloud.sagemaker as sagemaker
from localcloud.engine.retry import Retries, error_type, failure_type, problems
from localcloud.errors import AwsError
from localcloud_pipelines.conftest import IMAGE, processing, steps_of


def policy(*kinds: str, **more: Any) -> dict[str, Any]:
    return {"ExceptionType": list(kinds), "IntervalSeconds": 0, "BackoffRate": 1.0, **more}


def test_delays_back_off_until_the_attempts_are_used_up() -> None:
    retries = Retries(
        [{"ExceptionType": ["Step.THROTTLING"], "IntervalSeconds": 3, "BackoffRate": 2.0, "MaxAttempts": 3}]
    )
    assert [retries.delay("Step.THROTTLING", 0) for _ in range(4)] == [3, 6, 12, None]
    assert retries.delay("SageMaker.CAPACITY_ERROR", 0) is None
    assert retries.delay(None, 0) is None


def test_a_policy_by_time_ends_when_the_next_attempt_would_be_too_late() -> None:
    retries = Retries([policy("SageMaker.CAPACITY_ERROR", ExpireAfterMin=2, IntervalSeconds=50)])
    assert [retries.delay("SageMaker.CAPACITY_ERROR", now) for now in (0, 50, 100)] == [50, 50, None]


def test_the_first_matching_policy_counts_and_faults_are_retried_unasked() -> None:
    retries = Retries([policy("Step.SERVICE_FAULT", MaxAttempts=1)])
    assert [retries.delay("Step.SERVICE_FAULT", 0) for _ in range(2)] == [0, None]
    assert [Retries([]).delay("Step.THROTTLING", 0), Retries([]).delay("SageMaker.RESOURCE_LIMIT", 0)] == [1, None]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("InternalServerError: We encountered an internal error.", "SageMaker.JOB_INTERNAL_ERROR"),
        ("CapacityError: Unable to provision requested ML compute capacity.", "SageMaker.CAPACITY_ERROR"),
        ("ResourceLimitExceeded: quota", "SageMaker.RESOURCE_LIMIT"),
        ("AlgorithmError: it says InternalServerError", None),
        ("", None),
    ],
)
def test_kinds_of_job_failures(reason: str, kind: str | None) -> None:
    assert failure_type(reason) == kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AwsError("ThrottlingException", "slow down"), "Step.THROTTLING"),
        (AwsError("ResourceLimitExceeded", "quota"), "SageMaker.RESOURCE_LIMIT"),
        (AwsError("InternalFailure", "oops", 500), "Step.SERVICE_FAULT"),
        (AwsError("NotImplemented", "never", 501), None),
        (AwsError("ValidationException", "wrong"), None),
    ],
)
def test_kinds_of_api_errors(error: AwsError, kind: str | None) -> None:
    assert error_type(error) == kind


def test_bad_policies_are_named() -> None:
    assert problems(policy("Step.THROTTLING"), "p") == []
    assert (
        "p has both MaxAttempts and ExpireAfterMin"
        in problems(policy("Step.THROTTLING", MaxAttempts=1, ExpireAfterMin=1), "p")[0]
    )
    assert "BackoffRate is 'x'" in problems(policy("Step.THROTTLING", BackoffRate="x"), "p")[0]
    assert "needs ExceptionType" in problems({}, "p")[0]


def failing(monkeypatch: pytest.MonkeyPatch, operation: str, times: int, act: Any) -> list[Any]:
    """Let `act(request)` answer the first calls of an operation."""
    real, calls = sagemaker.OPERATIONS[operation], []

    def handler(ctx: Any, request: Any) -> Any:
        calls.append(request)
        return act(request) if len(calls) <= times else real(ctx, request)

    monkeypatch.setitem(sagemaker.OPERATIONS, operation, handler)
    return calls


def test_a_job_without_capacity_is_tried_again_under_another_name(
    monkeypatch: pytest.MonkeyPatch, sm: Any, pipeline: Any, run: Any
) -> None:
    def no_capacity(request: Any) -> Any:
        name = request["ProcessingJobName"]
        return {
            "ProcessingJobName": name,
            "ProcessingJobArn": f"arn:aws:sagemaker:us-east-1:123456789012:processing-job/{name}",
            "ProcessingJobStatus": "Failed",
            "FailureReason": "CapacityError: Unable to provision requested ML compute capacity.",
            "ProcessingResources": {
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
            },
            "AppSpecification": {"ImageUri": IMAGE},
            "CreationTime": 0,
        }

    created = failing(monkeypatch, "CreateProcessingJob", 0, None)
    failing(monkeypatch, "DescribeProcessingJob", 2, no_capacity)
    step = processing("A", RetryPolicies=[policy("SageMaker.CAPACITY_ERROR", MaxAttempts=2)])
    ended = run(pipeline(step))
    assert ended["PipelineExecutionStatus"] == "Succeeded"
    assert steps_of(sm, ended["PipelineExecutionArn"])["A"]["AttemptCount"] == 3
    assert len({request["ProcessingJobName"] for request in created}) == 3


def test_without_a_policy_for_it_the_first_failure_counts(
    monkeypatch: pytest.MonkeyPatch, sm: Any, pipeline: Any, run: Any
) -> None:
    def quota(_: Any) -> Any:
        raise AwsError("ResourceLimitExceeded", "no ml.p5.48xlarge for you")

    calls = failing(monkeypatch, "CreateProcessingJob", 9, quota)
    ended = run(pipeline(processing("A", RetryPolicies=[policy("SageMaker.CAPACITY_ERROR", MaxAttempts=2)])))
    assert len(calls) == 1
    step = steps_of(sm, ended["PipelineExecutionArn"])["A"]
    assert (step["StepStatus"], step["AttemptCount"]) == ("Failed", 1)
    assert step["FailureReason"].endswith("Error Details: no ml.p5.48xlarge for you")

    calls.clear()
    ended = run(pipeline(processing("A", RetryPolicies=[policy("SageMaker.RESOURCE_LIMIT", MaxAttempts=2)])))
    assert len(calls) == 3
    assert steps_of(sm, ended["PipelineExecutionArn"])["A"]["AttemptCount"] == 3
