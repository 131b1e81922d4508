"""Registers a model that Bedrock keeps. Runs in AWS Lambda, beside card.py.

    {"command": "register", "model_arn": "arn:aws:bedrock:...:custom-model/...", "model_package_group": "fmops-models",
     "approval": "PendingManualApproval", "evaluation_uri": "s3://...", "data_report_uri": "s3://...",
     "pipeline_execution_arn": "arn:...", "properties": {...}}
 -> {"model_package_arn": "arn:...", "approval": "PendingManualApproval"}

Such a version has no container and no archive: its SourceUri is the custom model's ARN, which is what tells it apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

JSON = "application/json"
MAX_TOKEN = 36
"""Characters of CreateModelPackage's ClientToken."""


def register(sagemaker: Any, event: Mapping[str, Any]) -> dict[str, str]:
    """Create the version, or find the one that an earlier call has made for the same execution."""
    evaluated = {"ContentType": JSON, "S3Uri": str(event["evaluation_uri"])}
    prepared = {"ContentType": JSON, "S3Uri": str(event["data_report_uri"])}
    made_by = f"{event['pipeline_execution_arn']} {event['model_arn']}"
    answer = sagemaker.create_model_package(
        ModelPackageGroupName=str(event["model_package_group"]),
        ModelPackageDescription="A model that Amazon Bedrock tuned, and keeps.",
        SourceUri=str(event["model_arn"]),
        ModelApprovalStatus=str(event["approval"]),
        ClientToken=hashlib.sha256(made_by.encode()).hexdigest()[:MAX_TOKEN],
        Domain="NATURAL_LANGUAGE_PROCESSING",
        Task="TEXT_GENERATION",
        MetadataProperties={"GeneratedBy": str(event["pipeline_execution_arn"])},
        ModelMetrics={"ModelQuality": {"Statistics": evaluated}, "ModelDataQuality": {"Statistics": prepared}},
        DriftCheckBaselines={"ModelQuality": {"Statistics": evaluated}, "ModelDataQuality": {"Statistics": prepared}},
        CustomerMetadataProperties={name: str(value) for name, value in event["properties"].items()},
    )
    return {"model_package_arn": answer["ModelPackageArn"], "approval": str(event["approval"])}
