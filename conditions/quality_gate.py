"""QualityGate: only a model that reaches every bound of pipeline.yaml's `gate` goes on."""

from __future__ import annotations

from typing import Any

from configuration.gate import bounds
from steps.common import Build
from steps.evaluate import PROPERTY_FILE


def quality_gate_step(build: Build, evaluate: Any, passed: list[Any], failed: list[Any]) -> Any:
    """A ConditionStep: all bounds met -> the steps `passed`, else the steps `failed`."""
    from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo, ConditionLessThanOrEqualTo
    from sagemaker.core.workflow.functions import JsonGet
    from sagemaker.mlops.workflow.condition_step import ConditionStep

    conditions = []
    for bound in bounds(build.config):
        compare = ConditionLessThanOrEqualTo if bound.kind == "maximum" else ConditionGreaterThanOrEqualTo
        value = JsonGet(step_name=evaluate.name, property_file=PROPERTY_FILE, json_path=bound.json_path)
        conditions.append(compare(left=value, right=build.parameters[bound.parameter]))
    return ConditionStep(
        name="QualityGate",
        description="Does the tuned model reach every bound?",
        conditions=conditions,
        if_steps=passed,
        else_steps=failed,
    )


def approved_already_step(register: Any, describe: Any, deploy: Any) -> Any:
    """A ConditionStep: a run that registers an approved model deploys it; otherwise a reviewer's approval does."""
    from sagemaker.core.workflow.conditions import ConditionEquals
    from sagemaker.mlops.workflow.condition_step import ConditionStep

    return ConditionStep(
        name="ApprovedAlready",
        description="Was the model registered as approved?",
        depends_on=[describe],
        conditions=[ConditionEquals(left=register.properties.ModelApprovalStatus, right="Approved")],
        if_steps=[deploy],
        else_steps=[],
    )
