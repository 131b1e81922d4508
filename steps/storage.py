"""Inputs and ClearCheckpoints: what lies under a run's inputs, and the end of its checkpoints (lambdas/storage.py)."""

from __future__ import annotations

from typing import Any

from common.data_dials import DATA
from common.seed_dial import SEED
from common.training_dials import TRAINING, WITHOUT_EFFECT
from configuration.code import shipped
from steps.common import Build, join

OUTPUTS = ("manifest", "base", "run", "objects", "base_model", "bedrock_family")


def inputs_step(build: Build) -> Any:
    """A LambdaStep that is never cached: every run looks at what lies under its inputs now."""
    from sagemaker.mlops.workflow.lambda_step import LambdaStep

    parameters = build.parameters
    decides = {
        "input_data_uri": parameters["InputDataUri"],
        "base_model": parameters["BaseModel"],
        **{f"data_{name}": value for name, value in build.arguments(DATA).items()},
        **{
            f"training_{name}": value
            for name, value in build.arguments((*TRAINING, SEED)).items()
            if name not in WITHOUT_EFFECT
        },
        **{f"code_{name}": shipped(name).sha256 for name in ("preparation", "training")},
    }
    return LambdaStep(
        name="Inputs",
        description="Look at what lies under the rows and the base model.",
        lambda_func=_function(build),
        inputs={
            "command": "look",
            "outlines": f"s3://{build.names.training_data_bucket}/outlines/",
            "service": parameters["TrainingMethod"],
            "bedrock_base_model": parameters["BedrockBaseModel"],
            # An input of a job has to be there; this one is, and holds no model.
            "otherwise": build.ship("preparation"),
            **decides,
        },
        outputs=_outputs(OUTPUTS),
    )


def outline_uri(inputs: Any) -> Any:
    """Where the base model's small files and the headers of its weights lie, for Prepare; not for one on a hub."""
    return inputs.properties.Outputs["base_model"]


def bedrock_family(inputs: Any) -> Any:
    """The base model for whose family Prepare writes rows; "none" where a SageMaker job trains."""
    return inputs.properties.Outputs["bedrock_family"]


def checkpoints_uri(build: Build, inputs: Any) -> Any:
    """Where a training keeps its checkpoints: the same for the same training, and no other's."""
    place = f"s3://{build.names.artifacts_bucket}/checkpoints/{build.config.name}/"
    return join(place, inputs.properties.Outputs["run"], "/")


def clear_checkpoints_step(build: Build, inputs: Any, train: Any) -> Any:
    """A LambdaStep after Train: a model that is there needs no checkpoints."""
    from sagemaker.mlops.workflow.lambda_step import LambdaStep

    return LambdaStep(
        name="ClearCheckpoints",
        description="Delete the checkpoints of the training that has succeeded.",
        lambda_func=_function(build),
        inputs={"command": "clear", "uri": checkpoints_uri(build, inputs)},
        outputs=_outputs(("cleared",)),
        depends_on=[train],
    )


def _function(build: Build) -> Any:
    from sagemaker.core.lambda_helper import Lambda

    return Lambda(function_arn=build.names.function("storage"), session=build.session)


def _outputs(names: tuple[str, ...]) -> list[Any]:
    from sagemaker.mlops.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum

    return [LambdaOutput(output_name=name, output_type=LambdaOutputTypeEnum.String) for name in names]
