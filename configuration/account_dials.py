"""The dials that only the author side reads: names, account, base model, registry, images."""

from __future__ import annotations

import re

from common.dials import S3_URI, Dial

APPROVALS = ("PendingManualApproval", "Approved", "Rejected")
REGION = r"[a-z]{2}(-[a-z]+)+-\d"


def _tags(tags: dict[str, str]) -> str | None:
    """AWS's rules for tags."""
    for key, value in tags.items():
        if not re.fullmatch(r"[\w\s.:/=+@-]{1,128}", key) or key.lower().startswith("aws:"):
            return f"{key!r} is not a tag key; allowed: 1 to 128 letters, digits and _.:/=+-@, not aws:..."
        if not re.fullmatch(r"[\w\s.:/=+@-]{0,256}", value):
            return f"{key}: {value!r} is not a tag value; allowed: up to 256 letters, digits and _.:/=+-@"
    return None


ACCOUNT = (
    Dial(
        "name",
        "fmops-finetuning",
        "the pipeline in SageMaker; a second name is a second pipeline",
        pattern=r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,81}",
        words="letters, digits and single hyphens between them",
    ),
    Dial(
        "cache_days",
        30,
        "an unchanged step's result is reused this long; 0 = always run",
        unit="days",
        low=0,
        high=365,
    ),
    Dial(
        "aws.account_id",
        "111122223333",
        "credentials for another account are rejected",
        pattern=r"\d{12}",
        words="12 digits in quotes",
    ),
    Dial(
        "aws.region",
        "us-east-1",
        "where everything lives; GPU quotas and prices differ by region",
        pattern=REGION,
        words="an AWS region such as us-east-1",
    ),
    Dial(
        "aws.resource_prefix",
        "fmops",
        "names of buckets, roles, functions and key begin with it",
        pattern=r"[a-z][a-z0-9-]{0,15}[a-z0-9]",
        words="2 to 17 lower-case letters, digits and hyphens",
    ),
    Dial(
        "aws.vpc.subnets",
        None,
        "GPU capacity differs by zone, so name several",
        kind=list,
        low=1,
        high=16,
        pattern=r"subnet-[0-9a-f]{8,17}",
        words="a subnet id (subnet-...)",
    ),
    Dial(
        "aws.vpc.security_group_ids",
        None,
        "for jobs and endpoint",
        kind=list,
        low=1,
        high=5,
        pattern=r"sg-[0-9a-f]{8,17}",
        words="a security group id (sg-...)",
    ),
    Dial(
        "aws.tags",
        {"project": "fmops"},
        "on every job, model and endpoint; cost reports group by them",
        low=0,
        high=40,
        also=_tags,
    ),
)

MODEL = (
    Dial(
        "model.base",
        "SmolLM2-135M-Instruct",
        "name in base-models/ of the artifacts bucket, s3://bucket/prefix, or owner/name@commit on a hub",
        pattern=rf"{S3_URI}|[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*(@[\w.-]+)?)?",
        longest=200,
        parameter="BaseModel",
        words="a name, s3://bucket/prefix, or owner/name or owner/name@commit on a hub",
    ),
)

REGISTRY = (
    Dial(
        "registry.group",
        None,
        "model package group; null = <prefix>-models; others begin with <prefix>-, too",
        kind=str,
        optional=True,
        longest=63,
        pattern=r"[a-z0-9](-?[a-z0-9])*",
        words="lower-case letters, digits and single hyphens between them",
        parameter="ModelPackageGroupName",
    ),
    Dial(
        "registry.approval",
        "PendingManualApproval",
        "Approved = a run approves its own version",
        choices=APPROVALS,
        parameter="ModelApprovalStatus",
    ),
)

IMAGES = (
    Dial(
        "images.training", None, "processing and training jobs; null = the SageMaker SDK's Hugging Face image",
        kind=str, optional=True, pattern=r"\S{3,255}", words="a container image URI in ECR",
    ),
    Dial(
        "images.inference", None, "endpoint; null = the SageMaker SDK's image for it", kind=str, optional=True,
        pattern=r"\S{3,255}", words="a container image URI in ECR",
    ),
)  # fmt: skip
