"""Deploy: start the deployment of a registered model (lambdas/deploy.py)."""

from __future__ import annotations

from typing import Any

from common.endpoint_dials import ENDPOINT
from steps.common import Build

OUTPUTS = ("endpoint_name", "endpoint_config_name", "model_name", "action", "reason")

# What a run may say about its endpoint: the deploy function's settings, and the parameters that hold them. The package
# keeps them too, so that an approval days later deploys what the run asked for.
RUN_SETTINGS = {dial.setting: dial.parameter for dial in ENDPOINT if dial.setting and dial.parameter}


def deploy_step(build: Build, package_arn: Any, branch: str = "") -> Any:
    """A LambdaStep that returns as soon as the endpoint is being created or updated."""
    from sagemaker.core.lambda_helper import Lambda
    from sagemaker.mlops.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep

    parameters = build.parameters
    return LambdaStep(
        name=f"Deploy{branch}",
        description="Create or update the endpoint.",
        lambda_func=Lambda(function_arn=build.names.function("deploy"), session=build.session),
        inputs={
            "model_package_arn": package_arn,
            **{setting: parameters[name] for setting, name in RUN_SETTINGS.items()},
        },
        outputs=[LambdaOutput(output_name=name, output_type=LambdaOutputTypeEnum.String) for name in OUTPUTS],
    )
