"""Model package versions: find them, approve them, reject them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError

if TYPE_CHECKING:
    import boto3


def find_version(session: boto3.Session, group: str, version: int) -> dict[str, Any]:
    """DescribeModelPackage of one version of a group; a missing one names those that exist."""
    client = session.client("sagemaker")
    summaries = versions(session, group)
    for summary in summaries:
        if summary["ModelPackageVersion"] == version:
            return dict(client.describe_model_package(ModelPackageName=summary["ModelPackageArn"]))
    known = ", ".join(f"{item['ModelPackageVersion']} ({item['ModelApprovalStatus']})" for item in summaries)
    raise UserError(
        f"The model package group {group!r} has no version {version}. "
        + (f"Versions: {known}." if known else "No run has registered a version yet.")
    )


def versions(session: boto3.Session, group: str) -> list[dict[str, Any]]:
    """The versions of a model package group, newest first; none while the group does not exist."""
    from botocore.exceptions import ClientError

    pages = session.client("sagemaker").get_paginator("list_model_packages")
    try:
        return [
            summary
            for page in pages.paginate(ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending")
            for summary in page["ModelPackageSummaryList"]
        ]
    except ClientError as error:
        if error.response["Error"]["Code"] in ("ResourceNotFound", "ValidationException"):
            return []
        raise


def set_status(session: boto3.Session, arn: str, status: str, comment: str | None) -> None:
    """Approve or reject a version; EventBridge hears of it and the deploy Lambda acts on an approval."""
    request = {"ModelPackageArn": arn, "ModelApprovalStatus": status}
    if comment:
        request["ApprovalDescription"] = comment
    session.client("sagemaker").update_model_package(**request)
