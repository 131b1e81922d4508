"""Champion: which version a new one has to stand up to (lambdas/gate.py). Only there where a rule of the gate asks."""

from __future__ import annotations

from typing import Any

from steps.common import Build


def champion_step(build: Build) -> Any:
    """A LambdaStep that is never cached, with the outputs `model_package_arn` ("none" without one) and `uri`."""
    from sagemaker.core.lambda_helper import Lambda
    from sagemaker.mlops.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep

    parameters = build.parameters
    return LambdaStep(
        name="Champion",
        description="Find the version that serves, else the last approved one.",
        lambda_func=Lambda(function_arn=build.names.function("gate"), session=build.session),
        inputs={
            "command": "champion",
            "model_package_group": parameters["ModelPackageGroupName"],
            "endpoint_name": parameters["EndpointName"],
            "deployments_uri": f"s3://{build.names.artifacts_bucket}/deployments/",
            # An input of a job has to be there; this one is, and holds no model.
            "otherwise": build.ship("evaluation", with_own=False),
        },
        outputs=[
            LambdaOutput(output_name=name, output_type=LambdaOutputTypeEnum.String)
            for name in ("model_package_arn", "uri")
        ],
    )
