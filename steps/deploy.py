"""Deploy: start the deployment of a registered model (lambdas/deploy.py)."""

from __future__ import annotations

from typing import Any

from steps.common import Build

OUTPUTS = ("endpoint_name", "endpoint_config_name", "model_name", "action")


def deploy_step(build: Build, register: Any) -> Any:
    """A LambdaStep that returns as soon as the endpoint is being created or updated."""
    from sagemaker.core.lambda_helper import Lambda
    from sagemaker.mlops.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep

    parameters = build.parameters
    return LambdaStep(
        name="Deploy",
        description="Create or update the endpoint.",
        lambda_func=Lambda(function_arn=build.names.function("deploy"), session=build.session),
        inputs={
            "model_package_arn": register.properties.ModelPackageArn,
            "endpoint_name": parameters["EndpointName"],
            "endpoint_instance_type": parameters["EndpointInstanceType"],
            "endpoint_instance_count": parameters["EndpointInstanceCount"],
            "data_capture_percentage": parameters["DataCapturePercentage"],
        },
        outputs=[LambdaOutput(output_name=name, output_type=LambdaOutputTypeEnum.String) for name in OUTPUTS],
    )
