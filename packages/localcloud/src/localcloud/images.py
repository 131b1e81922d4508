"""Container images, as far as SageMaker looks at their names: it runs none that isn't in a registry.

https://github.com/aws/sagemaker-python-sdk/issues/2063, .../2605, https://github.com/aws/aws-sdk/issues/117,
https://github.com/aws/amazon-sagemaker-examples/issues/195
"""

from __future__ import annotations

import re
from typing import Any

from localcloud.errors import validation

_REPOSITORY = r"[a-z0-9]+(?:(?:[._/]|__|-+)[a-z0-9]+)*(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
_ECR = re.compile(rf"\d{{12}}\.dkr[.-]ecr(?:-fips)?\.[a-z0-9-]+\.(?:amazonaws\.com(?:\.cn)?|on\.aws)/{_REPOSITORY}")
_PRIVATE = re.compile(rf"(?:[a-z0-9-]+(?:\.[a-z0-9-]+)+|localhost)(?::\d+)?/{_REPOSITORY}")
_VALID = "Please provide a valid Amazon Elastic Container Registry path of the Docker image to run."


def check_training(algorithm: dict[str, Any]) -> None:
    """The image of an AlgorithmSpecification; AwsError ValidationException."""
    image = algorithm.get("TrainingImage")
    if image is None or _ECR.fullmatch(image):
        return
    if not _PRIVATE.fullmatch(image):
        raise validation(f"Invalid training image. {_VALID} It is {image!r}.")
    if (algorithm.get("TrainingImageConfig") or {}).get("TrainingRepositoryAccessMode") != "Vpc":
        raise validation(
            "TrainingImageConfig with TrainingRepositoryAccessMode set to VPC must be provided when using a training "
            "image from a private Docker registry."
        )


def check_processing(image: str) -> None:
    """The image of a processing job; AwsError ValidationException."""
    if not _ECR.fullmatch(image):
        raise validation(f"Invalid image URI {image}. {_VALID}")


def check_model(container: dict[str, Any]) -> None:
    """The image of a model's container; AwsError ValidationException."""
    image = container.get("Image")
    if image is None or _ECR.fullmatch(image):
        return
    private = (container.get("ImageConfig") or {}).get("RepositoryAccessMode") == "Vpc"
    if not private or not _PRIVATE.fullmatch(image):
        raise validation(f'ECR image "{image}" is invalid.')
