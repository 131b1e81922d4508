"""Describe: a registered version gets its model card, hashes, gate decision and adapter (lambdas/card.py)."""

from __future__ import annotations

from typing import Any

from steps.common import Build, join, output_uri
from steps.evaluate import ADAPTER_NAME, evaluation_uri
from steps.prepare import data_report_uri

NO_ADAPTER = "none"


def describe_step(build: Build, package_arn: Any, prepare: Any, evaluate: Any, branch: str = "") -> Any:
    """A LambdaStep that writes what only the finished run knows; its output `gate` says how it passed."""
    from sagemaker.core.lambda_helper import Lambda
    from sagemaker.core.workflow.execution_variables import ExecutionVariables
    from sagemaker.mlops.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep

    return LambdaStep(
        name=f"Describe{branch}",
        description="Give the version its model card, hashes, gate decision and adapter.",
        lambda_func=Lambda(function_arn=build.names.function("card"), session=build.session),
        inputs={
            "model_package_arn": package_arn,
            "pipeline_execution_arn": ExecutionVariables.PIPELINE_EXECUTION_ARN,
            "evaluation_uri": evaluation_uri(evaluate),
            "data_report_uri": data_report_uri(prepare),
            "adapter_uri": NO_ADAPTER if branch else join(output_uri(evaluate, ADAPTER_NAME), "/"),
        },
        outputs=[
            LambdaOutput(output_name=name, output_type=LambdaOutputTypeEnum.String)
            for name in ("model_package_arn", "gate")
        ],
    )
