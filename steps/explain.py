"""ExplainGate and GateFailed: end a run whose model missed the gate, saying which rule it missed, and by how much."""

from __future__ import annotations

from typing import Any

from steps.common import Build
from steps.evaluate import evaluation_uri


def explain_step(build: Build, evaluate: Any, branch: str = "") -> Any:
    """A LambdaStep (lambdas/gate.py) with the output `message`."""
    from sagemaker.core.lambda_helper import Lambda
    from sagemaker.mlops.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep

    return LambdaStep(
        name=f"ExplainGate{branch}",
        description="Read which rule was missed, and by how much.",
        lambda_func=Lambda(function_arn=build.names.function("gate"), session=build.session),
        inputs={"command": "explain", "evaluation_uri": evaluation_uri(evaluate)},
        outputs=[LambdaOutput(output_name="message", output_type=LambdaOutputTypeEnum.String)],
    )


def gate_failed_step(explain: Any, branch: str = "") -> Any:
    """A FailStep: the run fails with the explanation as its reason."""
    from sagemaker.mlops.workflow.fail_step import FailStep

    return FailStep(
        name=f"GateFailed{branch}",
        description="The tuned model missed the gate; nothing is registered.",
        error_message=explain.properties.Outputs["message"],
    )
