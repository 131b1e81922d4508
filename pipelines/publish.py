"""`fmops upsert`: upload the code, deploy the functions and the approval rule, create or update the pipeline.

Every part is skipped when it is there already: code by its content-addressed key, stacks by their change set, the
pipeline by comparing its definition.
"""

from __future__ import annotations

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from configuration.code import Code, shipped
from configuration.errors import UserError
from configuration.names import Names, model_package_group
from pipelines.endpoint_settings import endpoint_settings
from pipelines.finetuning import build_definition
from pipelines.stacks import deploy_stack

if TYPE_CHECKING:
    import boto3

    from configuration.config import Config

TEMPLATE = "deployment.yaml"
UPLOADS_AT_ONCE = 8
ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Published:
    """What an upsert did; `str()` is what the user reads."""

    pipeline_arn: str
    pipeline: str  # created | updated | unchanged
    stack: str  # created | updated | unchanged
    uploaded: tuple[str, ...]  # S3 keys

    @property
    def changed(self) -> bool:
        return bool(self.uploaded) or self.pipeline != "unchanged" or self.stack != "unchanged"

    def __str__(self) -> str:
        name = self.pipeline_arn.rsplit("/", 1)[-1]
        files = f"{len(self.uploaded)} code files uploaded" if self.uploaded else "no code uploaded"
        return f"The pipeline {name} is {self.pipeline} ({files}, functions and approval rule {self.stack})."


def publish(config: Config, session: boto3.Session) -> Published:
    """Bring the account to what pipeline.yaml and the code say. Raises UserError if the buckets are missing."""
    names = Names.of(config)
    definition, code = build_definition(config)
    functions = shipped("lambdas")
    uploaded = upload(session, names, [*code.values()], functions)
    put_group(session, config)
    stack = deploy_stack(
        session, names.deployment_stack, TEMPLATE, deployment_parameters(config, functions), config.aws.tags
    )
    arn, pipeline = put_pipeline(session, config, definition)
    return Published(arn, pipeline, stack, tuple(uploaded))


def upload(session: boto3.Session, names: Names, folders: list[Code], functions: Code) -> list[str]:
    """Upload what is not there yet; returns the keys, sorted."""
    from botocore.exceptions import ClientError

    client, bucket = session.client("s3"), names.artifacts_bucket
    wanted = {folder.prefix + name: body for folder in folders for name, body in folder.files.items()}
    wanted[functions_key(functions)] = zip_bytes(functions)
    prefixes = sorted({folder.prefix for folder in folders} | {functions_key(functions)})
    try:
        present = {key: size for prefix in prefixes for key, size in _list(client, bucket, prefix)}
    except ClientError as error:
        if error.response["Error"].get("Code") in ("NoSuchBucket", "404"):
            raise UserError(f"There is no bucket {bucket}. Create it with the others: fmops bootstrap") from None
        raise
    missing = sorted(key for key, body in wanted.items() if present.get(key) != len(body))
    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        # list() waits and raises what an upload raised.
        list(pool.map(lambda key: client.put_object(Bucket=bucket, Key=key, Body=wanted[key]), missing))
    return missing


def _list(client: Any, bucket: str, prefix: str) -> list[tuple[str, int]]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [(item["Key"], item["Size"]) for page in pages for item in page.get("Contents", [])]


def functions_key(functions: Code) -> str:
    return f"code/lambdas/{functions.sha256}.zip"


def zip_bytes(functions: Code) -> bytes:
    """A zip whose bytes depend on the files alone: sorted, one date, stored."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(functions.files):
            entry = zipfile.ZipInfo(name, ZIP_DATE)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, functions.files[name])
    return buffer.getvalue()


def deployment_parameters(config: Config, functions: Code) -> dict[str, str]:
    """The parameters of infrastructure/deployment.yaml."""
    vpc = config.aws.vpc
    return {
        "Prefix": config.aws.resource_prefix,
        "CodeKey": functions_key(functions),
        "EndpointSettingsJson": json.dumps(endpoint_settings(config), separators=(",", ":"), sort_keys=True),
        "NetworkIsolation": str(config.endpoint.network_isolation).lower(),
        "Subnets": ",".join(vpc.subnets) if vpc else "",
        "SecurityGroupIds": ",".join(vpc.security_group_ids) if vpc else "",
        "TagsJson": json.dumps(config.aws.tags, sort_keys=True),
    }


def put_group(session: boto3.Session, config: Config) -> None:
    """Create the model package group, unless it is there. No stack owns it: versions outlive stacks."""
    from botocore.exceptions import ClientError

    client, group = session.client("sagemaker"), model_package_group(config)
    try:
        client.create_model_package_group(
            ModelPackageGroupName=group,
            ModelPackageGroupDescription="Models tuned by fmops; an approved version is deployed.",
            Tags=_tags(config),
        )
    except ClientError as error:
        details = error.response["Error"]
        if details["Code"] != "ValidationException" or "already exists" not in details.get("Message", ""):
            raise


def _tags(config: Config) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(config.aws.tags.items())]


def put_pipeline(session: boto3.Session, config: Config, definition: str) -> tuple[str, str]:
    """Create the pipeline, or update it if its definition or role differs; returns its ARN and what was done."""
    from botocore.exceptions import ClientError

    client = session.client("sagemaker")
    wanted = {"PipelineDefinition": definition, "RoleArn": Names.of(config).role("pipeline")}
    try:
        current = client.describe_pipeline(PipelineName=config.name)
    except ClientError as error:
        if error.response["Error"].get("Code") not in ("ResourceNotFound", "ResourceNotFoundException"):
            raise
        return client.create_pipeline(PipelineName=config.name, Tags=_tags(config), **wanted)["PipelineArn"], "created"
    if all(current.get(key) == value for key, value in wanted.items()):
        return current["PipelineArn"], "unchanged"
    return client.update_pipeline(PipelineName=config.name, **wanted)["PipelineArn"], "updated"
