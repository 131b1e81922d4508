"""Can Bedrock tune this base model, here and today? Asked before a run starts, with the alternatives in the refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from common.bedrock_dials import HYPERPARAMETERS, hyperparameters
from common.bedrock_families import FAMILIES, family_of, hyperparameter_problems
from configuration.errors import UserError
from pipelines.aws import client

if TYPE_CHECKING:
    import boto3

    from configuration.config import Config

ABSENT = ("ResourceNotFoundException", "ValidationException")
MOST_SHOWN = 8


def on_bedrock(config: Config, chosen: Mapping[str, str]) -> bool:
    """Whether a run takes the Bedrock branch."""
    return (chosen.get("TrainingMethod") or config.training.service) == "bedrock"


def offline_problem(base: str) -> str:
    """Why no job can be created on a base model, as far as that is known without asking; empty if it can."""
    family = family_of(base)
    if family is None:
        return f"{base} belongs to no family of models that Bedrock tunes; known: {_families()}"
    return f"{family.retired_because} Families that take jobs: {_families()}" if family.retired else ""


def _families() -> str:
    return ", ".join(family.label for family in FAMILIES.values() if not family.retired)


def check(config: Config, session: boto3.Session, chosen: Mapping[str, str]) -> None:
    """UserError where Bedrock would refuse the job for its base model or hyperparameters."""
    base = chosen.get("BedrockBaseModel") or config.bedrock.base
    kind = chosen.get("BedrockCustomizationType") or config.bedrock.customization_type
    if problem := offline_problem(base):
        raise UserError(f"bedrock.base: {problem}")
    told = {dial.name: dial.text(getattr(config.bedrock, dial.name)) for dial in HYPERPARAMETERS}
    told |= {dial.name: chosen[dial.parameter] for dial in HYPERPARAMETERS if dial.parameter in chosen}
    family = family_of(base)
    assert family is not None, base
    if problems := hyperparameter_problems(family, hyperparameters(told)):
        raise UserError("\n  ".join(["bedrock: its job would refuse these hyperparameters:", *problems]))
    if base.startswith("arn:") and ":custom-model/" in base:
        return  # a model of one's own is tuned further; what it came from was checked then
    _check_lifecycle(config, session, base, kind)


def _check_lifecycle(config: Config, session: boto3.Session, base: str, kind: str) -> None:
    from botocore.exceptions import ClientError

    bedrock = client(session, "bedrock")
    try:
        found: dict[str, Any] = bedrock.get_foundation_model(modelIdentifier=base)["modelDetails"]
    except ClientError as error:
        if error.response["Error"]["Code"] not in ABSENT:
            return  # who starts the run may not ask; the job's own role will
        raise UserError(
            f"bedrock.base: Bedrock has no model {base} in {config.aws.region}. {_alternatives(bedrock, kind)}"
        ) from None
    if kind not in found.get("customizationsSupported", []):
        raise UserError(f"bedrock.base: {base} can't be tuned by {kind} here. {_alternatives(bedrock, kind)}")


def _alternatives(bedrock: Any, kind: str) -> str:
    """The base models of the region that can be tuned, in a sentence."""
    from botocore.exceptions import ClientError

    try:
        listed = bedrock.list_foundation_models(byCustomizationType=kind)["modelSummaries"]
    except ClientError:
        return "See which can be: aws bedrock list-foundation-models --by-customization-type FINE_TUNING"
    names = sorted(
        item["modelId"] for item in listed if item.get("modelLifecycle", {}).get("status", "ACTIVE") == "ACTIVE"
    )
    if not names:
        return f"In this region no model can be tuned by {kind}; set aws.region: us-east-1 or us-west-2."
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return f"These can be: {', '.join(names[:MOST_SHOWN])}{more}."
