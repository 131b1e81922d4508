"""The shapes of what the functions read, keep and answer (docs/contracts.md). Runs in AWS Lambda, beside deploy.py.

A `Request` is what boto3 is called with. Of what AWS describes, only the members that are read here are listed.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

Request = dict[str, object]
State = Literal[
    "waiting", "starting", "deploying", "in_service", "replaced", "overtaken", "failed", "rolled_back", "undeployed"
]


class Settings(TypedDict):
    """How to deploy: pipeline.yaml's `endpoint:` section, flattened."""

    endpoint_name: str
    endpoint_mode: str
    endpoint_instance_type: str
    endpoint_fallback_instance_types: str
    endpoint_instance_count: int
    endpoint_maximum_instance_count: int
    endpoint_concurrent_requests: float
    endpoint_scale_in_seconds: int
    endpoint_scale_out_seconds: int
    endpoint_traffic: str
    endpoint_step_percent: int
    endpoint_wait_seconds: int
    endpoint_keep_seconds: int
    endpoint_error_rate: float
    endpoint_latency_seconds: float
    endpoint_alarm_period_seconds: int
    endpoint_alarms: str
    endpoint_serverless_memory_mb: int
    endpoint_serverless_concurrency: int
    endpoint_async_output_uri: str
    data_capture_percentage: int


class Deployment(TypedDict):
    """One entry of the deployment log."""

    id: str
    endpoint_config_name: str
    model_name: str
    model_package_arn: str
    approved: str
    by: str
    state: State
    reason: str
    created: str
    changed: str
    settings: Settings
    challenger_weight: NotRequired[float]
    rejected: NotRequired[str]
    overtaken_by: NotRequired[str]
    asked: NotRequired[list[str]]
    leaving: NotRequired[str]
    pruned: NotRequired[bool]


class Log(TypedDict):
    """The deployment log of an endpoint, the newest deployment last."""

    version: int
    endpoint_name: str
    undeploying: bool
    deployments: list[Deployment]


class Answer(TypedDict):
    """What the deploy function answers."""

    endpoint_name: str
    endpoint_config_name: str
    model_name: str
    action: str
    reason: str


class Detail(TypedDict, total=False):
    """`detail` of EventBridge's events about packages and endpoints."""

    ModelPackageArn: str
    ModelPackageGroupName: str
    ModelApprovalStatus: str
    UpdatedModelPackageFields: list[str]
    LastModifiedTime: int | str
    EndpointName: str


Event = TypedDict(
    "Event",
    {
        "detail-type": str,
        "detail": Detail,
        "time": str,
        "command": str,
        "endpoint_name": str,
        "model_package_arn": str,
        "by": str,
        "decided": str,
        "weight": float,
        "version": int,
        "reason": str,
    },
    total=False,
)
"""What the deploy function is invoked with; an input that deploys may hold settings, too."""


class S3Source(TypedDict):
    """An S3 prefix or object that SageMaker mounts."""

    S3Uri: str
    S3DataType: str
    CompressionType: str


class ModelSource(TypedDict):
    """Model data that is not one archive."""

    S3DataSource: S3Source


class Container(TypedDict, total=False):
    """One container of an inference specification."""

    Image: str
    ModelDataUrl: str
    ModelDataSource: ModelSource
    Environment: dict[str, str]


class Specification(TypedDict, total=False):
    """An inference specification of a package."""

    Name: str
    Containers: list[Container]
    SupportedContentTypes: list[str]
    SupportedResponseMIMETypes: list[str]


class Package(TypedDict, total=False):
    """DescribeModelPackage's answer."""

    ModelPackageArn: str
    ModelPackageStatus: str
    ModelApprovalStatus: str
    CreationTime: datetime.datetime
    LastModifiedTime: datetime.datetime
    CustomerMetadataProperties: dict[str, str]
    InferenceSpecification: Specification
    SourceUri: str
    AdditionalInferenceSpecifications: list[Specification]


class Pending(TypedDict, total=False):
    """PendingDeploymentSummary: the update that is rolling out."""

    EndpointConfigName: str


class Variant(TypedDict, total=False):
    """One production variant of an endpoint."""

    VariantName: str


class AlarmName(TypedDict):
    """An alarm that guards an update."""

    AlarmName: str


class AutoRollback(TypedDict, total=False):
    """AutoRollbackConfiguration."""

    Alarms: list[AlarmName]


class DeploymentConfig(TypedDict, total=False):
    """LastDeploymentConfig."""

    AutoRollbackConfiguration: AutoRollback


class Endpoint(TypedDict, total=False):
    """DescribeEndpoint's answer."""

    EndpointStatus: str
    EndpointConfigName: str
    FailureReason: str
    PendingDeploymentSummary: Pending
    ProductionVariants: list[Variant]
    LastDeploymentConfig: DeploymentConfig


class ComponentContainer(TypedDict, total=False):
    """The container of an inference component."""

    ArtifactUrl: str


class ComponentSpecification(TypedDict, total=False):
    """What an inference component runs."""

    ModelName: str
    BaseInferenceComponentName: str
    Container: ComponentContainer
    StartupParameters: dict[str, int]
    ComputeResourceRequirements: dict[str, int]


class Component(TypedDict, total=False):
    """DescribeInferenceComponent's answer."""

    InferenceComponentName: str
    InferenceComponentStatus: str
    FailureReason: str
    Specification: ComponentSpecification


@dataclass(frozen=True)
class Plan:
    """A deployment: CreateModel's request, CreateEndpointConfig's, and the entry in the log."""

    model: Request
    configuration: Request
    entry: Deployment


def answer(endpoint: str, action: str, reason: str = "", entry: Deployment | None = None) -> Answer:
    """What the function answers about an endpoint, or about one deployment on it."""
    return {
        "endpoint_name": endpoint,
        "endpoint_config_name": entry["endpoint_config_name"] if entry else "",
        "model_name": entry["model_name"] if entry else "",
        "action": action,
        "reason": reason,
    }


def machines(settings: Settings) -> list[str]:
    """The instance types that may be taken, in the order in which they are tried."""
    return [settings["endpoint_instance_type"], *filter(None, settings["endpoint_fallback_instance_types"].split(","))]


def version_of(arn: str) -> str:
    """The version number at the end of a model package's ARN."""
    return arn.rsplit("/", 1)[-1]


def digest_of(content: object) -> str:
    """SHA-256, in hex, of something that JSON can hold; the order of keys has no part in it."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def s3_parts(uri: str) -> tuple[str, str]:
    """`s3://bucket/a/b` -> ("bucket", "a/b")."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
