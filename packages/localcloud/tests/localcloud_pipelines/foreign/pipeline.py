"""A scikit-learn pipeline as any user of the SageMaker SDK writes it; fmops has no part in it.

    AWS_ENDPOINT_URL=http://127.0.0.1:PORT python pipeline.py NAME

Prints one JSON object: what the SDK itself reports about two executions.
"""

import json
import sys
import tempfile
from pathlib import Path

import boto3
from botocore.exceptions import WaiterError
from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.lambda_helper import Lambda
from sagemaker.core.processing import ScriptProcessor
from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output
from sagemaker.core.training.configs import Compute, InputData, SourceCode
from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo
from sagemaker.core.workflow.execution_variables import ExecutionVariables
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep
from sagemaker.mlops.workflow.model_step import ModelStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import CacheConfig, ProcessingStep, TrainingStep
from sagemaker.serve.model_builder import ModelBuilder
from sagemaker.train import ModelTrainer

SOURCE = Path(__file__).parent / "source"
ROLE = "arn:aws:iam::123456789012:role/data-science"
CACHE = CacheConfig(enable_caching=True, expire_after="PT1H")


def s3_input(name, source, folder):
    location = ProcessingS3Input(
        s3_uri=source, local_path=f"/opt/ml/processing/{folder}", s3_data_type="S3Prefix", s3_input_mode="File"
    )
    return ProcessingInput(input_name=name, s3_input=location)


def s3_output(name, folder, target):
    location = ProcessingS3Output(s3_uri=target, local_path=f"/opt/ml/processing/{folder}", s3_upload_mode="EndOfJob")
    return ProcessingOutput(output_name=name, s3_output=location)


def upload_data(session):
    from sklearn.datasets import load_iris

    table = load_iris(as_frame=True).frame
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "raw.csv")
        table.to_csv(path, index=False)
        return session.upload_data(str(path), key_prefix="iris")


def build(name, session, data_uri):
    data = ParameterString("InputData", default_value=data_uri)
    trees = ParameterInteger("Trees", default_value=20)
    depth = ParameterInteger("Depth", default_value=4)
    minimum = ParameterFloat("MinAccuracy", default_value=0.8)
    approval = ParameterString(
        "Approval", default_value="PendingManualApproval", enum_values=["PendingManualApproval", "Approved"]
    )
    image = image_uris.retrieve("sklearn", session.boto_region_name, version="1.4-2", instance_type="ml.m5.large")
    bucket = session.default_bucket()
    here = Join(on="/", values=["s3:/", bucket, "runs", ExecutionVariables.PIPELINE_EXECUTION_ID])

    def processor():
        return ScriptProcessor(
            role=ROLE,
            image_uri=image,
            command=["python3"],
            instance_count=1,
            instance_type="ml.m5.large",
            sagemaker_session=session,
        )

    prepare = ProcessingStep(
        name="PrepareIris",
        cache_config=CACHE,
        step_args=processor().run(
            code=str(SOURCE / "prepare.py"),
            inputs=[s3_input("raw", data, "input")],
            outputs=[
                s3_output("train", "output/train", Join(on="/", values=[here, "train"])),
                s3_output("test", "output/test", Join(on="/", values=[here, "test"])),
            ],
            arguments=["--seed", "7"],
        ),
    )
    outputs = prepare.properties.ProcessingOutputConfig.Outputs
    trainer = ModelTrainer(
        training_image=image,
        source_code=SourceCode(source_dir=str(SOURCE), entry_script="train.py"),
        compute=Compute(instance_type="ml.m5.large", instance_count=1),
        hyperparameters={"n_estimators": trees.to_string(), "max_depth": depth.to_string()},
        base_job_name="iris",
        role=ROLE,
        sagemaker_session=session,
    )
    train = TrainingStep(
        name="TrainForest",
        step_args=trainer.train(
            input_data_config=[InputData(channel_name="train", data_source=outputs["train"].S3Output.S3Uri)]
        ),
    )
    report = PropertyFile(name="Report", output_name="evaluation", path="evaluation.json")
    evaluate = ProcessingStep(
        name="EvaluateForest",
        property_files=[report],
        step_args=processor().run(
            code=str(SOURCE / "evaluate.py"),
            inputs=[
                s3_input("model", train.properties.ModelArtifacts.S3ModelArtifacts, "model"),
                s3_input("test", outputs["test"].S3Output.S3Uri, "test"),
            ],
            outputs=[s3_output("evaluation", "evaluation", Join(on="/", values=[here, "evaluation"]))],
        ),
    )
    accuracy = JsonGet(
        step_name=evaluate.name, property_file=report, json_path="multiclass_classification_metrics.accuracy.value"
    )
    builder = ModelBuilder(
        s3_model_data_url=train.properties.ModelArtifacts.S3ModelArtifacts,
        image_uri=image,
        role_arn=ROLE,
        sagemaker_session=session,
    )
    register = ModelStep(
        name="RegisterForest",
        step_args=builder.register(
            model_package_group_name=f"{name}-models",
            approval_status=approval,
            content_types=["text/csv"],
            response_types=["text/csv"],
            inference_instances=["ml.m5.large"],
        ),
    )
    announce = LambdaStep(
        name="Announce",
        lambda_func=Lambda(
            function_name=f"{name}-announce",
            execution_role_arn=ROLE,
            script=str(SOURCE / "announce.py"),
            handler="announce.handler",
            runtime="python3.12",
            session=session,
        ),
        inputs={"model_package_arn": register.properties.ModelPackageArn, "bucket": bucket, "depth": depth},
        outputs=[
            LambdaOutput(output_name="version", output_type=LambdaOutputTypeEnum.Integer),
            LambdaOutput(output_name="statusCode", output_type=LambdaOutputTypeEnum.String),
        ],
    )
    gate = ConditionStep(
        name="AccurateEnough",
        conditions=[ConditionGreaterThanOrEqualTo(left=accuracy, right=minimum)],
        if_steps=[register, announce],
        else_steps=[
            FailStep(
                name="NotAccurate",
                error_message=Join(on=" ", values=["accuracy", accuracy, "is below", minimum]),
            )
        ],
    )
    return Pipeline(
        name=name,
        parameters=[data, trees, depth, minimum, approval],
        steps=[prepare, train, evaluate, gate],
        sagemaker_session=session,
    )


def report(execution):
    waited = "Succeeded"
    try:
        execution.wait(delay=1, max_attempts=120)
    except WaiterError as error:
        waited = str(error)
    return {
        "arn": execution.arn,
        "waited": waited,
        "describe": execution.describe(),
        "steps": execution.list_steps(),
        "parameters": execution.list_parameters()["PipelineParameters"],
    }


def main(name):
    session = PipelineSession(boto_session=boto3.Session(), default_bucket=f"{name}-bucket")
    plain = Session(boto_session=boto3.Session(), default_bucket=f"{name}-bucket")
    pipeline = build(name, session, upload_data(plain))
    tags = [{"Key": "team", "Value": "science"}]
    created = pipeline.upsert(role_arn=ROLE, tags=tags)
    updated = pipeline.upsert(role_arn=ROLE, tags=tags)
    good = report(pipeline.start(parameters={"Depth": 5}))
    bad = report(pipeline.start(parameters={"MinAccuracy": 1.5}, execution_display_name="too-strict"))
    answer = {
        "created": created["PipelineArn"],
        "updated": updated["PipelineArn"],
        "good": good,
        "bad": bad,
        "executions": pipeline.list_executions()["PipelineExecutionSummaries"],
    }
    print(json.dumps(answer, default=str))


if __name__ == "__main__":
    main(sys.argv[1])
