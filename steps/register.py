"""Register: a model package with its metrics, where it comes from, and how it wants to be deployed."""

from __future__ import annotations

from typing import Any

from configuration.serving_settings import lmi_environment
from steps.common import Build, retries
from steps.deploy import RUN_SETTINGS
from steps.evaluate import evaluation_uri
from steps.prepare import data_report_uri

CONTENT_TYPE = "application/json"


def register_step(build: Build, prepare: Any, train: Any, evaluate: Any) -> Any:
    """A ModelStep that creates a version in the model package group."""
    from sagemaker.core.drift_check_baselines import DriftCheckBaselines
    from sagemaker.core.model_metrics import MetricsSource, ModelMetrics
    from sagemaker.mlops.workflow.model_step import ModelStep
    from sagemaker.serve.model_builder import ModelBuilder

    from configuration.images import inference_image

    builder = ModelBuilder(
        s3_model_data_url=train.properties.ModelArtifacts.S3ModelArtifacts,
        image_uri=inference_image(build.config),
        role_arn=build.names.role("endpoint"),
        sagemaker_session=build.session,
        env_vars=server_environment(build),
    )
    evaluated = MetricsSource(content_type=CONTENT_TYPE, s3_uri=evaluation_uri(evaluate))
    prepared = MetricsSource(content_type=CONTENT_TYPE, s3_uri=data_report_uri(prepare))
    registration = builder.register(
        model_package_group_name=build.parameters["ModelPackageGroupName"],
        approval_status=build.parameters.get("ModelApprovalStatus", build.config.registry.approval),
        content_types=[CONTENT_TYPE],
        response_types=[CONTENT_TYPE],
        model_metrics=ModelMetrics(model_statistics=evaluated, model_data_statistics=prepared),
        drift_check_baselines=DriftCheckBaselines(model_statistics=evaluated, model_data_statistics=prepared),
        domain="NATURAL_LANGUAGE_PROCESSING",
        task="TEXT_GENERATION",
        customer_metadata_properties=metadata(build),
    )
    return ModelStep(
        name="Register",
        description="Register the tuned model with its metrics and its origin.",
        step_args=registration,
        retry_policies=retries(job=False),
    )


def server_environment(build: Build) -> dict[str, Any]:
    """The model server's settings: for our handler, and for vLLM in the LMI image where that serves."""
    config = build.config
    handler = {
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
        # Multi Model Server starts one for each vCPU, each with the whole model in memory and all cores' threads.
        "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
    }
    if config.server != "lmi":
        return handler
    settings = lmi_environment(
        config.endpoint.instance_type,
        max_seq_length=config.training.max_seq_length,
        adapters=config.endpoint.mode == "adapter",
        lora_rank=config.training.lora_rank,
    )
    return {**settings, "OPTION_MAX_MODEL_LEN": build.parameters.text("MaxSeqLength")}


def metadata(build: Build, bedrock: bool = False) -> dict[str, Any]:
    """CustomerMetadataProperties, for lambdas/deploy.py and people: keys up to 128, values up to 256 characters."""
    text = build.parameters.text
    tuned = {
        "base_model": text("BaseModel"),
        "method": text("FineTuningMethod"),
        "merged": str(build.config.training.merge).lower(),
    }
    code = ("preparation", "evaluation") if bedrock else ("preparation", "training", "evaluation", "serving")
    return {
        "input_data_uri": text("InputDataUri"),
        **({"base_model": text("BedrockBaseModel"), "method": "bedrock"} if bedrock else tuned),
        **{f"code_{name}": build.code(name).sha256 for name in code},
        "evaluation_rows": text("EvaluationRows"),
        **{setting: text(name) for setting, name in RUN_SETTINGS.items()},
        "pipeline_execution": execution_arn(),
    }


def execution_arn() -> Any:
    from sagemaker.core.workflow.execution_variables import ExecutionVariables

    return ExecutionVariables.PIPELINE_EXECUTION_ARN
