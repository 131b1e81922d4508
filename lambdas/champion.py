"""Finds the version that a new one has to stand up to. Runs in AWS Lambda, beside gate.py.

It is the version that serves behind the endpoint, as the deployment log has it; else the group's last approved one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from documents import Package
from ledger import Ledger, in_state

NONE = "none"
"""A step's output is better not empty: nothing says what becomes of an empty text."""
ABSENT = ("ResourceNotFound", "ValidationException")
"""What SageMaker answers of a version or a group that does not exist."""


def find_champion(sagemaker: Any, s3: Any, event: Mapping[str, object]) -> dict[str, str]:
    """The champion's ARN and the S3 URI of its archive; "none" and the event's `otherwise` where there is none."""
    group, endpoint = str(event["model_package_group"]), str(event["endpoint_name"])
    log = Ledger(s3, str(event["deployments_uri"]), endpoint).read()
    serving = [item["model_package_arn"] for item in in_state(log, "in_service")]
    for arn in (*reversed(serving), *_approved(sagemaker, group)):
        if uri := _archive_of(sagemaker, arn):
            return {"model_package_arn": arn, "uri": uri}
    return {"model_package_arn": NONE, "uri": str(event["otherwise"])}


def _approved(sagemaker: Any, group: str) -> list[str]:
    """The approved versions of a group, the newest first; none where there is no group yet."""
    try:
        answer = sagemaker.list_model_packages(
            ModelPackageGroupName=group,
            ModelApprovalStatus="Approved",
            SortBy="CreationTime",
            SortOrder="Descending",
            MaxResults=1,
        )
    except sagemaker.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ABSENT:
            return []
        raise
    return [item["ModelPackageArn"] for item in answer["ModelPackageSummaryList"]]


def _archive_of(sagemaker: Any, arn: str) -> str:
    """The model.tar.gz of a version; "" where the version was deleted, or has none (a model that Bedrock keeps)."""
    try:
        return _archive(sagemaker.describe_model_package(ModelPackageName=arn))
    except sagemaker.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ABSENT:
            return ""
        raise


def _archive(package: Package) -> str:
    containers = package.get("InferenceSpecification", {}).get("Containers", [])
    uri = str(containers[0].get("ModelDataUrl", "")) if containers else ""
    return uri if uri.endswith("/model.tar.gz") else ""
