"""Model package versions: find, compare, approve and reject them, and follow one from its data to its endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.metric_names import BY_NAME
from configuration.errors import UserError
from pipelines.aws import client

if TYPE_CHECKING:
    import boto3
    from rich.table import Table

DIGESTS = {
    "digest_model": "archive",
    "digest_adapter": "adapter",
    "digest_base": "base",
    "digest_image": "image",
    "digest_container": "settings",
}
"""What lambdas/digests.py records in a version's metadata, and compares before every deployment."""
COLUMNS = {
    "preference_accuracy": "prefers",
    "exact_match": "exact match",
    "validation_loss": "loss",
    "latency_seconds": "s/row",
}


def find_version(session: boto3.Session, group: str, version: int) -> dict[str, Any]:
    """DescribeModelPackage of one version of a group; a missing one names those that exist."""
    summaries = versions(session, group)
    for summary in summaries:
        if summary["ModelPackageVersion"] == version:
            return describe(session, summary["ModelPackageArn"])
    known = ", ".join(f"{item['ModelPackageVersion']} ({item['ModelApprovalStatus']})" for item in summaries)
    raise UserError(
        f"The model package group {group!r} has no version {version}. "
        + (f"Versions: {known}." if known else "No run has registered a version yet.")
    )


def describe(session: boto3.Session, arn: str) -> dict[str, Any]:
    """DescribeModelPackage."""
    return dict(client(session, "sagemaker").describe_model_package(ModelPackageName=arn))


def versions(session: boto3.Session, group: str) -> list[dict[str, Any]]:
    """The versions of a model package group, newest first; none while the group does not exist."""
    from botocore.exceptions import ClientError

    pages = client(session, "sagemaker").get_paginator("list_model_packages")
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


def other_groups(session: boto3.Session, prefix: str, shown: str) -> list[str]:
    """The model package groups of the prefix but for the one that is shown; a run may name one of its own."""
    pages = client(session, "sagemaker").get_paginator("list_model_package_groups")
    names = [
        item["ModelPackageGroupName"]
        for page in pages.paginate(NameContains=prefix)
        for item in page["ModelPackageGroupSummaryList"]
    ]
    return sorted(name for name in names if name.startswith(f"{prefix}-") and name != shown)


def pinned(package: dict[str, Any]) -> str:
    """The digests that a version was registered with, shortened to compare them at a glance; empty without any."""
    metadata = package.get("CustomerMetadataProperties", {})
    found = {name: metadata[key] for key, name in DIGESTS.items() if metadata.get(key)}
    # "etag:9b2c... bytes:120" and "sha256:4f1a...": the first 8 characters behind the colon.
    return "  ".join(f"{name} {text.partition(':')[2].split(' ')[0][:8]}" for name, text in found.items())


def set_status(session: boto3.Session, arn: str, status: str, comment: str | None) -> None:
    """Approve or reject a version; EventBridge hears of it and the deploy Lambda acts on an approval."""
    request = {"ModelPackageArn": arn, "ModelApprovalStatus": status}
    if comment:
        request["ApprovalDescription"] = comment
    client(session, "sagemaker").update_model_package(**request)


def statistics(session: boto3.Session, package: dict[str, Any]) -> dict[str, Any]:
    """evaluation.json of a version, as its model metrics name it; empty when it is not there any more."""
    from pipelines.results import read_json

    uri = package.get("ModelMetrics", {}).get("ModelQuality", {}).get("Statistics", {}).get("S3Uri")
    if not uri:
        return {}
    try:
        return read_json(session, uri)
    except UserError:
        return {}


def versions_table(rows: list[tuple[dict[str, Any], dict[str, Any], str]]) -> Table:
    """Versions side by side: (package, its evaluation, its endpoint), newest first."""
    from rich import box
    from rich.table import Table

    from pipelines.results import cell

    # It fits a terminal of 80 columns.
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), leading=0)
    table.add_column("version", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    shown = [name for name in COLUMNS if any(name in report.get("metrics", {}) for _, report, _ in rows)]
    for name in shown:
        table.add_column(COLUMNS[name], justify="right", no_wrap=True)
    table.add_column("registered", no_wrap=True)
    table.add_column("endpoint", overflow="fold")
    for package, report, endpoint in rows:
        table.add_row(
            str(package["ModelPackageVersion"]),
            STATUS.get(package["ModelApprovalStatus"], package["ModelApprovalStatus"]),
            *(cell(BY_NAME[name], report.get("metrics", {}).get(name, {}).get("candidate")) for name in shown),
            f"{package['CreationTime']:%m-%d %H:%M}",
            endpoint or "-",
        )
    return table


STATUS = {"PendingManualApproval": "pending", "Approved": "approved", "Rejected": "rejected"}


def lineage(session: boto3.Session, package_arn: str) -> list[tuple[str, str]]:
    """(kind, where it lies) of all that a version came from and led to, from the data to the endpoint.

    SageMaker records it by itself: data sets and models as artifacts, jobs as trial components, the approval and the
    deployment as actions, the endpoint as a context.
    """
    sagemaker = client(session, "sagemaker")
    artifacts = sagemaker.list_artifacts(SourceUri=package_arn)["ArtifactSummaries"]
    if not artifacts:
        raise UserError(f"SageMaker keeps no lineage of {package_arn}.")
    start = artifacts[0]["ArtifactArn"]
    found: dict[str, tuple[str, str]] = {}
    for direction in ("Ascendants", "Descendants"):
        vertices = [vertex for vertex in _vertices(sagemaker, start, direction) if vertex["Arn"] != start]
        for vertex in reversed(vertices) if direction == "Ascendants" else vertices:
            found.setdefault(vertex["Arn"], (vertex.get("Type", "-"), _source(sagemaker, vertex)))
        if direction == "Ascendants":
            found[start] = ("ModelPackage", package_arn)
    return list(found.values())


def _vertices(sagemaker: Any, start: str, direction: str) -> list[dict[str, Any]]:
    """All that lies before or behind an artifact. boto3 has no paginator for QueryLineage."""
    request = {"StartArns": [start], "Direction": direction, "IncludeEdges": False, "MaxDepth": 10}
    answer = sagemaker.query_lineage(**request)
    found = list(answer["Vertices"])
    while answer.get("NextToken"):
        answer = sagemaker.query_lineage(**request, NextToken=answer["NextToken"])
        found += answer["Vertices"]
    return found


def _source(sagemaker: Any, vertex: dict[str, Any]) -> str:
    """Where a vertex's subject lies: an S3 URI, or the ARN of a job, model, package or endpoint."""
    arn, kind = vertex["Arn"], vertex.get("LineageType")
    name = arn.rsplit("/", 1)[1]
    if kind == "Artifact":
        source = sagemaker.describe_artifact(ArtifactArn=arn)["Source"]["SourceUri"]
    elif kind == "Context":
        source = sagemaker.describe_context(ContextName=name)["Source"]["SourceUri"]
    elif kind == "Action":
        source = sagemaker.describe_action(ActionName=name)["Source"]["SourceUri"]
    elif kind == "TrialComponent":
        source = sagemaker.describe_trial_component(TrialComponentName=name).get("Source", {}).get("SourceArn", arn)
    else:
        source = arn
    return str(source)
