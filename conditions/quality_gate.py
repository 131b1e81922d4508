"""QualityGate: only a model that meets every rule of the `gate` goes on; evaluation/decision.py has decided."""

from __future__ import annotations

from typing import Any

from steps.evaluate import PROPERTY_FILE

PASSED = "gate.passed"
"""Where evaluation.json says it: 1 or 0. A number, because of JsonGet nothing says what becomes of true and false."""


def quality_gate_step(evaluate: Any, passed: list[Any], failed: list[Any], branch: str = "") -> Any:
    """A ConditionStep: all rules met -> the steps `passed`, else the steps `failed`."""
    from sagemaker.core.workflow.conditions import ConditionEquals
    from sagemaker.core.workflow.functions import JsonGet
    from sagemaker.mlops.workflow.condition_step import ConditionStep

    decision = JsonGet(step_name=evaluate.name, property_file=PROPERTY_FILE, json_path=PASSED)
    return ConditionStep(
        name=f"QualityGate{branch}",
        description="Does the tuned model meet every rule?",
        conditions=[ConditionEquals(left=decision, right=1)],
        if_steps=passed,
        else_steps=failed,
    )


def approved_already_step(status: Any, describe: Any, deploy: Any, branch: str = "") -> Any:
    """A ConditionStep: a run that registers an approved model deploys it; otherwise a reviewer's approval does."""
    from sagemaker.core.workflow.conditions import ConditionEquals
    from sagemaker.mlops.workflow.condition_step import ConditionStep

    return ConditionStep(
        name=f"ApprovedAlready{branch}",
        description="Was the model registered as approved?",
        depends_on=[describe],
        conditions=[ConditionEquals(left=status, right="Approved")],
        if_steps=[deploy],
        else_steps=[],
    )
