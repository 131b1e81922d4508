"""`fmops bootstrap`: buckets, key and roles (infrastructure/foundation.yaml), once per account and region."""

from __future__ import annotations

from typing import TYPE_CHECKING

from configuration.images import handler_image, inference_image, lmi_image, training_image
from configuration.names import Names, base_model, input_data_uri
from pipelines.session import offline
from pipelines.stacks import deploy_stack

if TYPE_CHECKING:
    import boto3

    from configuration.config import Config

TEMPLATE, BEDROCK = "foundation.yaml", "bedrock.yaml"


def bootstrap(config: Config, session: boto3.Session) -> str:
    """Deploy the buckets, the key and the roles; returns one sentence about what was done. Raises UserError."""
    names = Names.of(config)
    parameters, tags = foundation_parameters(config), config.aws.tags
    done = deploy_stack(session, names.foundation_stack, TEMPLATE, parameters, tags)
    bedrock = {name: parameters[name] for name in ("Prefix", "ImageRepositoryArns", "UseVpc", "ApprovalByRuns")}
    branch = deploy_stack(session, names.bedrock_stack, BEDROCK, bedrock, tags)
    return (
        f"The foundation is {done}, the Bedrock branch's roles {branch} (stacks {names.foundation_stack} and "
        f"{names.bedrock_stack} in {names.account_id}, {names.region})."
    )


def foundation_parameters(config: Config) -> dict[str, str]:
    """The template's parameters: names, and what the roles may read beyond the stack's own buckets."""
    names = Names.of(config)
    buckets, objects = _elsewhere(config)
    with offline(config.aws.region):
        images = {training_image(config), inference_image(config), handler_image(config), lmi_image(config)}
    return {
        "Prefix": names.prefix,
        "ImageRepositoryArns": ",".join(sorted(_repository_arn(image, names) for image in images)),
        "ReadBucketArns": ",".join(buckets),
        "ReadObjectArns": ",".join(objects),
        "MlflowArn": mlflow if (mlflow := config.training.mlflow_tracking_uri or "").startswith("arn:") else "",
        "ApprovalByRuns": str(config.registry.approval == "Approved").lower(),
        "UseVpc": str(config.aws.vpc is not None).lower(),
    }


def _elsewhere(config: Config) -> tuple[list[str], list[str]]:
    """ARNs of foreign buckets and prefixes that pipeline.yaml names for rows, base model, start_from or fixed sets."""
    names = Names.of(config)
    own = {names.training_data_bucket, names.artifacts_bucket}
    buckets, objects = set(), set()
    fixed = (config.training.start_from, config.evaluation.general_uri, config.evaluation.probes_uri)
    for uri in (input_data_uri(config), base_model(config), *(uri or "" for uri in fixed)):
        if not uri.startswith("s3://"):
            continue
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if bucket not in own:
            buckets.add(f"arn:{names.partition}:s3:::{bucket}")
            objects.add(f"arn:{names.partition}:s3:::{bucket}/{prefix}*")
    return sorted(buckets), sorted(objects)


def _repository_arn(image: str, names: Names) -> str:
    """`1234.dkr.ecr.us-east-1.amazonaws.com/name:tag` -> the ARN of the repository."""
    registry, _, path = image.partition("/")
    repository = path.partition("@")[0].partition(":")[0]
    account = registry.partition(".")[0]
    return f"arn:{names.partition}:ecr:{names.region}:{account}:repository/{repository}"
