"""What everything is called in AWS, from pipeline.yaml alone (docs/contracts.md, "Names in AWS")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.bedrock_dials import on_demand_id

if TYPE_CHECKING:
    from configuration.config import Config


@dataclass(frozen=True)
class Names:
    """Names, ARNs and S3 URIs of one configuration; nothing is looked up."""

    prefix: str
    account_id: str
    region: str

    @classmethod
    def of(cls, config: Config) -> Names:
        return cls(config.aws.resource_prefix, config.aws.account_id, config.aws.region)

    @property
    def partition(self) -> str:
        """`aws`, or the partition of China's and the US government's regions."""
        if self.region.startswith("cn-"):
            return "aws-cn"
        return "aws-us-gov" if self.region.startswith("us-gov-") else "aws"

    def arn(self, service: str, resource: str) -> str:
        """An ARN in the configured region and account."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account_id}:{resource}"

    def _bucket(self, purpose: str) -> str:
        return f"{self.prefix}-{purpose}-{self.account_id}-{self.region}"

    @property
    def training_data_bucket(self) -> str:
        return self._bucket("training-data")

    @property
    def artifacts_bucket(self) -> str:
        return self._bucket("model-artifacts")

    @property
    def results_bucket(self) -> str:
        return self._bucket("evaluation-results")

    @property
    def buckets(self) -> tuple[str, str, str]:
        return self.training_data_bucket, self.artifacts_bucket, self.results_bucket

    @property
    def kms_key(self) -> str:
        return self.arn("kms", f"alias/{self.prefix}")

    def role(self, purpose: str) -> str:
        """ARN of the role `<prefix>-<purpose>`: pipeline, training, endpoint or deploy."""
        return f"arn:{self.partition}:iam::{self.account_id}:role/{self.prefix}-{purpose}"

    def function(self, purpose: str) -> str:
        """ARN of the Lambda function `<prefix>-<purpose>`: deploy or gate."""
        return self.arn("lambda", f"function:{self.prefix}-{purpose}")

    @property
    def foundation_stack(self) -> str:
        return f"{self.prefix}-foundation"

    @property
    def bedrock_stack(self) -> str:
        return f"{self.prefix}-bedrock"

    @property
    def customize_queue(self) -> str:
        """The URL of the queue that asks for customization jobs."""
        suffix = "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"
        return f"https://sqs.{self.region}.{suffix}/{self.account_id}/{self.prefix}-customize"

    @property
    def deployment_stack(self) -> str:
        return f"{self.prefix}-deployment"


def input_data_uri(config: Config) -> str:
    """The raw rows: as configured, else `raw/` in the training data bucket."""
    return config.data.input_uri or f"s3://{Names.of(config).training_data_bucket}/raw/"


def base_model(config: Config) -> str:
    """The base model as the jobs see it: an S3 prefix that ends in a slash, or a hub id."""
    base = config.model.base
    if config.model.on_hub:
        return base
    if base.startswith("s3://"):
        return base.rstrip("/") + "/"
    return f"s3://{Names.of(config).artifacts_bucket}/base-models/{base}/"


def compared_with(config: Config) -> str:
    """The base model of the Bedrock branch as Converse takes it."""
    return config.bedrock.compared_with or on_demand_id(config.bedrock.base)


def model_package_group(config: Config) -> str:
    return config.registry.group or f"{config.aws.resource_prefix}-models"


def endpoint_name(config: Config) -> str:
    return config.endpoint.name or f"{config.aws.resource_prefix}-endpoint"
