"""The Bedrock branch: CustomizeBedrock has Bedrock train, EvaluateBedrock asks the model, RegisterBedrock keeps it.

What follows (gate, card, deployment) comes from the builders of the other branch. The function that works on the
messages of CustomizeBedrock is lambdas/customize.py; the job that asks and scores runs evaluation/score_remote.py.
"""

from __future__ import annotations

from typing import Any

from common.bedrock_dials import BEDROCK, HYPERPARAMETERS
from common.evaluation_dials import EVALUATION, JUDGE, REMOTE
from common.gate_dials import GATE
from common.seed_dial import SEED
from configuration.parameters import APPROVAL
from steps.common import INPUT, OUTPUT, Build, execution_id, join, output_uri, processing_arguments, retries
from steps.evaluate import OUTPUT_NAME, PROPERTY_FILE, REPORT_FILE, evaluation_uri, own_files, rule_argument
from steps.prepare import BEDROCK_NAME, data_report_uri
from steps.register import execution_arn, metadata

OUTPUTS = ("model_arn", "job_arn", "customization_uri")
JOURNAL = "answers"


def customize_step(build: Build, prepare: Any) -> Any:
    """A CallbackStep with the outputs `model_arn`, `job_arn` and `customization_uri`."""
    from sagemaker.mlops.workflow.callback_step import CallbackOutput, CallbackOutputTypeEnum, CallbackStep

    parameters, rows = build.parameters, output_uri(prepare, BEDROCK_NAME)
    return CallbackStep(
        name="CustomizeBedrock",
        description="Have Bedrock tune its base model on the rows, and wait for it.",
        sqs_queue_url=build.names.customize_queue,
        inputs={
            "base_model": parameters["BedrockBaseModel"],
            "customization_type": parameters["BedrockCustomizationType"],
            "training_uri": join(rows, "/train.jsonl"),
            "validation_uri": join(rows, "/validation.jsonl"),
            "output_uri": join(f"s3://{build.names.artifacts_bucket}/bedrock/", execution_id(), "/"),
            **{dial.name: parameters.text(dial.parameter) for dial in HYPERPARAMETERS},
        },
        outputs=[CallbackOutput(output_name=name, output_type=CallbackOutputTypeEnum.String) for name in OUTPUTS],
    )


def model_arn(customize: Any) -> Any:
    return customize.properties.Outputs["model_arn"]


def evaluate_bedrock_step(build: Build, prepare: Any, customize: Any) -> Any:
    """A ProcessingStep with the outputs `evaluation`, whose evaluation.json the gate reads, and `answers`."""
    from sagemaker.core.workflow.properties import PropertyFile
    from sagemaker.mlops.workflow.steps import ProcessingStep

    evaluation, parameters = build.config.evaluation, build.parameters
    judge = JUDGE if evaluation.judge.model else ()
    dials = build.arguments((*EVALUATION, *judge, *GATE, *REMOTE, SEED))
    return ProcessingStep(
        name="EvaluateBedrock",
        description="Ask the tuned model and its base the test rows, score the answers, decide whether it goes on.",
        # Not cached: its model is another one in every run, and what it hosts carries the execution's name.
        retry_policies=retries(job=True),
        property_files=[PropertyFile(name=PROPERTY_FILE, output_name=OUTPUT_NAME, path=REPORT_FILE)],
        step_args=processing_arguments(
            build,
            role="bedrock-evaluation",
            isolated=False,
            folder="evaluation",
            code=build.ship("evaluation"),
            script="score_remote.py",
            instance_type=build.config.bedrock.instance_type,
            default_instance_type=build.config.bedrock.instance_type,
            volume_gb=evaluation.volume_gb,
            max_runtime_seconds=evaluation.max_runtime_seconds,
            inputs={
                "test": output_uri(prepare, "test"),
                "train": output_uri(prepare, "train"),
                "customization": customize.properties.Outputs["customization_uri"],
            },
            outputs={
                name: join(f"s3://{build.names.results_bucket}/", execution_id(), f"/{name}")
                for name in (OUTPUT_NAME, JOURNAL)
            },
            arguments={
                "model": join("bedrock:", model_arn(customize)),
                "base": join("bedrock:", parameters["BedrockComparedWith"]),
                "customization": f"{INPUT}/customization/customization.json",
                "host": parameters["BedrockServing"],
                "host-name": f"{build.config.aws.resource_prefix}-eval",
                "execution": execution_arn(),
                "data": f"{INPUT}/test",
                "train-data": f"{INPUT}/train",
                "output": f"{OUTPUT}/{OUTPUT_NAME}",
                "journal": f"{OUTPUT}/{JOURNAL}",
                "rule": [rule_argument(build, rule) for rule in build.config.gate.rules],
                **own_files(build),
                **{name: text for name, text in dials.items() if name != "batch-size"},
            },
        ),
    )


def register_bedrock_step(build: Build, prepare: Any, customize: Any, evaluate: Any) -> Any:
    """A LambdaStep (lambdas/card.py) that creates a version for the model that Bedrock keeps.

    It has no container: its SourceUri is the custom model's ARN. The SDK's ModelStep makes none such.
    """
    from sagemaker.core.lambda_helper import Lambda
    from sagemaker.mlops.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep

    parameters = build.parameters
    dials = {dial.key: parameters.text(dial.parameter) for dial in BEDROCK if dial.parameter}
    return LambdaStep(
        name="RegisterBedrock",
        description="Register the tuned model with its metrics and its origin.",
        lambda_func=Lambda(function_arn=build.names.function("card"), session=build.session),
        inputs={
            "command": "register",
            "model_arn": model_arn(customize),
            "model_package_group": parameters["ModelPackageGroupName"],
            "approval": parameters.get(APPROVAL, build.config.registry.approval),
            "evaluation_uri": evaluation_uri(evaluate),
            "data_report_uri": data_report_uri(prepare),
            "pipeline_execution_arn": execution_arn(),
            "properties": {
                **metadata(build, bedrock=True),
                "job_arn": customize.properties.Outputs["job_arn"],
                **{key.replace(".", "_"): value for key, value in dials.items()},
            },
        },
        outputs=[
            LambdaOutput(output_name=name, output_type=LambdaOutputTypeEnum.String)
            for name in ("model_package_arn", "approval")
        ],
    )
