"""What a user does with the SageMaker SDK; run by test_sdk.py in a process of its own against a localcloud.

python sdk_client.py CODE_DIR      (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID ... in the environment)
"""

from __future__ import annotations

import json
import sys

import boto3
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.training.configs import Compute, InputData, OutputDataConfig, SourceCode, StoppingCondition
from sagemaker.train import ModelTrainer
from sagemaker.train.distributed import Torchrun

ROLE = "arn:aws:iam::123456789012:role/job"
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/pytorch-training:2.10.0-cpu-py312"


def main(code: str) -> None:
    boto3.client("s3").create_bucket(Bucket="sdk", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    boto3.client("s3").put_object(Bucket="sdk", Key="rows/a.txt", Body=b"row")
    session = Session(default_bucket="sdk")
    names = {}
    for name, distributed in (("basic", None), ("torchrun", Torchrun(process_count_per_node=2))):
        trainer = ModelTrainer(
            sagemaker_session=session,
            role=ROLE,
            training_image=IMAGE,
            base_job_name=name,
            source_code=SourceCode(source_dir=code, entry_script="train.py"),
            compute=Compute(instance_type="ml.m5.large", instance_count=1),
            hyperparameters={"epochs": 3, "text": "a b", "flag": True},
            environment={"MODEL": "/opt/ml/model"},
            output_data_config=OutputDataConfig(s3_output_path="s3://sdk/out"),
            stopping_condition=StoppingCondition(max_runtime_in_seconds=300),
            distributed=distributed,
        )
        trainer.train(
            input_data_config=[InputData(channel_name="train", data_source="s3://sdk/rows/")], wait=False, logs=False
        )
        names[name] = trainer._latest_training_job.training_job_name
    print(json.dumps(names))


if __name__ == "__main__":
    main(sys.argv[1])
