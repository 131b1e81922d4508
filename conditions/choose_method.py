"""ChooseMethod: which branch trains. Each is whole, from training to deployment: a run by one never needs the other."""

from __future__ import annotations

from typing import Any

from steps.common import Build

BEDROCK = "bedrock"


def choose_method_step(build: Build, bedrock: list[Any], sagemaker: list[Any]) -> Any:
    """A ConditionStep over the parameter TrainingMethod."""
    from sagemaker.core.workflow.conditions import ConditionEquals
    from sagemaker.mlops.workflow.condition_step import ConditionStep

    return ConditionStep(
        name="ChooseMethod",
        description="Does Amazon Bedrock train, or a SageMaker training job?",
        conditions=[ConditionEquals(left=build.parameters["TrainingMethod"], right=BEDROCK)],
        if_steps=bedrock,
        else_steps=sagemaker,
    )
