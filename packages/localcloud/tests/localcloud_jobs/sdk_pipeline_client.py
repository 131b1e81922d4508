"""A pipeline as SDK users write it; run by test_sdk_pipeline.py in a process of its own against a localcloud.

python sdk_pipeline_client.py SOURCE_DIR PACKAGE      (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID ... in the environment)
"""

from __future__ import annotations

import json
import sys

import boto3
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.processing import FrameworkProcessor
from sagemaker.core.shapes import ProcessingOutput, ProcessingS3Output
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.mlops.workflow.function_step import step
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import ProcessingStep

ROLE = "arn:aws:iam::123456789012:role/job"
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/pytorch-training:2.10.0-cpu-py311"
HOW = {"image_uri": IMAGE, "instance_type": "ml.m5.large", "role": ROLE}


def main(source: str) -> None:
    boto3.client("s3").create_bucket(Bucket="sdk", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    session = PipelineSession(default_bucket="sdk")
    processor = FrameworkProcessor(
        image_uri=IMAGE,
        role=ROLE,
        instance_type="ml.m5.large",
        instance_count=1,
        command=["python3"],
        sagemaker_session=session,
    )
    output = ProcessingOutput(
        output_name="out",
        s3_output=ProcessingS3Output(
            s3_uri="s3://sdk/out", local_path="/opt/ml/processing/output", s3_upload_mode="EndOfJob"
        ),
    )
    process = ProcessingStep(
        name="Process", step_args=processor.run(code="process.py", source_dir=source, outputs=[output])
    )

    @step(name="good", **HOW)
    def good() -> int:
        return 42

    @step(name="bad", **HOW)
    def bad(number: int) -> int:
        raise ValueError(f"no rows in {number}")

    pipeline = Pipeline(name="mixed", steps=[process, bad(good())], sagemaker_session=Session(default_bucket="sdk"))
    pipeline.upsert(role_arn=ROLE)
    print(json.dumps(pipeline.start().arn))


if __name__ == "__main__":
    main(sys.argv[1])
