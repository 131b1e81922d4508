"""What a modelId means to the runtime: a foundation model, an inference profile, or something of the account's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from localcloud.bedrock import catalogue
from localcloud.bedrock.catalogue import Foundation, Offer
from localcloud.bedrock.configuration import configuration
from localcloud.bedrock.custom_models import DEPLOYMENTS, MODELS, THROUGHPUTS, model_directory
from localcloud.bedrock.deployments import status_of as deployment_status
from localcloud.bedrock.imports import IMPORTED
from localcloud.bedrock.problems import absent, invalid, not_here, problem
from localcloud.bedrock.throughputs import status_of as throughput_status
from localcloud.context import Context
from localcloud.errors import AwsError

_ELSEWHERE = ("application-inference-profile", "prompt", "prompt-router", "default-prompt-router", "endpoint")
IMPORTED_FAMILY = "imported"
_NOT_ON_DEMAND = (
    "Invocation of model ID {} with on-demand throughput isn’t supported. Retry your request with the ID or ARN of an "
    "inference profile that contains this model."
)


@dataclass(frozen=True)
class Invocable:
    """A model that can be asked: the form of its bodies, where its files are, what it is called."""

    family: str
    directory: Path
    id: str
    most_tokens: int
    converses: bool = True


def resolve(ctx: Context, model_id: str) -> Invocable:
    """What answers for a modelId; AwsError as Bedrock's runtime refuses."""
    if not model_id.startswith("arn:"):
        today = configuration().today()
        if catalogue.is_profile(model_id):
            return _foundation(catalogue.of_profile(model_id, ctx.region, today).model)
        return _on_demand(ctx, model_id)
    _, _, service, region, account, resource = (model_id.split(":", 5) + [""] * 6)[:6]
    kind, _, name = resource.partition("/")
    if service != "bedrock" or kind in _ELSEWHERE:
        raise not_here(f"bedrock-runtime with a modelId of {service} {kind}")
    if region != ctx.region:
        raise invalid(catalogue.UNKNOWN)
    if kind == "foundation-model":
        return _on_demand(ctx, name)
    if account != ctx.account:
        raise problem("AccessDeniedException", f"You don't have access to {model_id}.")
    if kind == "inference-profile":
        return _foundation(catalogue.of_profile(name, region, configuration().today()).model)
    own = {"custom-model-deployment": _deployment, "provisioned-model": _throughput, "imported-model": _imported}
    if kind not in own:
        raise invalid(
            f"{model_id} can't be invoked by itself: deploy the custom model, or buy Provisioned Throughput for it, "
            "and use the ARN of that."
            if kind == "custom-model"
            else catalogue.UNKNOWN
        )
    return own[kind](ctx, model_id)


def _on_demand(ctx: Context, identifier: str) -> Invocable:
    offer = catalogue.find(identifier, ctx.region, configuration().today())
    if offer.contextual:
        raise invalid("The provided model doesn't support on-demand throughput.")
    if "ON_DEMAND" not in offer.inference_types(ctx.region):
        raise invalid(_NOT_ON_DEMAND.format(identifier))
    return _foundation(offer.model)


def _foundation(model: Foundation) -> Invocable:
    return Invocable(model.family, configuration().model_directory(), model.id, model.most_tokens)


def _deployment(ctx: Context, arn: str) -> Invocable:
    doc = DEPLOYMENTS.find(ctx, arn)
    if deployment_status(doc) != "Active":
        raise problem("ModelNotReadyException", f"The deployment {doc['modelDeploymentName']} is not active yet.")
    return _custom(ctx, doc["modelArn"])


def _throughput(ctx: Context, arn: str) -> Invocable:
    doc = THROUGHPUTS.find(ctx, arn)
    if throughput_status(doc) not in ("InService", "Updating"):
        raise problem("ModelNotReadyException", f"{doc['provisionedModelName']} is not in service yet.")
    if ":custom-model/" in doc["modelArn"]:
        return _custom(ctx, doc["modelArn"])
    return _foundation(_known(ctx, doc["modelArn"]).model)


def _custom(ctx: Context, arn: str) -> Invocable:
    model = MODELS.find(ctx, arn)
    base = _known(ctx, model["baseModelArn"]).model
    return Invocable(base.family, model_directory(ctx.cloud, arn), base.id, base.most_tokens)


def _known(ctx: Context, arn: str) -> Offer:
    """A model's base: a custom model lives as long as it."""
    try:
        return catalogue.find(arn, ctx.region, configuration().today())
    except AwsError as error:
        raise absent(catalogue.GONE) if error.code == "ResourceNotFoundException" else error from None


def _imported(ctx: Context, arn: str) -> Invocable:
    doc = IMPORTED.find(ctx, arn)
    directory = model_directory(ctx.cloud, arn)
    return Invocable(IMPORTED_FAMILY, directory, doc["modelName"], doc["_positions"], doc["instructSupported"])
