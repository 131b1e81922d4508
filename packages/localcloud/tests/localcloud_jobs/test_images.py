"""Names of images: SageMaker runs what is in ECR, or in a private registry where the request says so."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.errors import AwsError
from localcloud.images import check_model, check_processing, check_training

DIGEST = "sha256:" + "0" * 64
ECR = [
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/any:latest",
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/any",
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.36.0-lmi24.0.0-cu130",
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-training@" + DIGEST,
    "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-scikit-learn:1.4-2-cpu-py3",
    "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn/a/b_c/d-e:1",
]
NONE = ["any", "i", "image:1", "python:3.11", "../../etc/passwd", "$(id)", "http://x/y", "-it", "", "x" * 255]
NOT_ECR = [
    "public.ecr.aws/bitnami/python:3.9",
    "registry.example.com:5000/team/image:1",
    "123.dkr.ecr.eu-west-1.amazonaws.com/short:1",
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/",
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/Upper:1",
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example/any:1",
]
CHECKS = {
    "training": lambda image: check_training({"TrainingImage": image}),
    "processing": check_processing,
    "model": lambda image: check_model({"Image": image}),
}


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize("image", ECR)
def test_an_image_in_ecr_is_taken(kind: str, image: str) -> None:
    CHECKS[kind](image)


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize("image", NONE + NOT_ECR)
def test_what_is_not_in_ecr_is_refused(kind: str, image: str) -> None:
    with pytest.raises(AwsError) as caught:
        CHECKS[kind](image)
    assert caught.value.code == "ValidationException"


@pytest.mark.parametrize("image", NONE)
def test_a_private_registry_needs_a_name_of_one(image: str) -> None:
    training: dict[str, Any] = {"TrainingImage": image, "TrainingImageConfig": {"TrainingRepositoryAccessMode": "Vpc"}}
    with pytest.raises(AwsError):
        check_training(training)
    with pytest.raises(AwsError):
        check_model({"Image": image, "ImageConfig": {"RepositoryAccessMode": "Vpc"}})


def test_a_private_registry_is_taken_where_the_request_says_so() -> None:
    image = "registry.example.com:5000/team/image:1"
    check_training({"TrainingImage": image, "TrainingImageConfig": {"TrainingRepositoryAccessMode": "Vpc"}})
    check_model({"Image": image, "ImageConfig": {"RepositoryAccessMode": "Vpc"}})
    with pytest.raises(AwsError, match="TrainingRepositoryAccessMode set to VPC must be provided"):
        check_training({"TrainingImage": image, "TrainingImageConfig": {"TrainingRepositoryAccessMode": "Platform"}})
