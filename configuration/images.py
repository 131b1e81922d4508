"""Which container image a job or the endpoint runs in, looked up in the SDK's own tables: no network."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from configuration.serving_settings import LMI_VERSION

if TYPE_CHECKING:
    from configuration.config import Config

# training/requirements-image.txt pins what this image holds; the shipped scripts are tested with exactly that.
TRAINING = (("version", "5.3.0"), ("base_framework_version", "pytorch2.9.0"), ("image_scope", "training"))
INFERENCE = (("version", "5.5.3"), ("base_framework_version", "pytorch2.6.0"), ("image_scope", "inference"))
GPU = "ml.g5.2xlarge"


def training_image(config: Config) -> str:
    """The image of the processing and training jobs; the GPU image also runs on a CPU machine."""
    return config.images.training or _lookup(config.aws.region, TRAINING, GPU)


def inference_image(config: Config) -> str:
    """The image of the endpoint, for the server and the kind of machine that are configured."""
    if config.images.inference:
        return config.images.inference
    return lmi_image(config) if config.server == "lmi" else handler_image(config)


def handler_image(config: Config) -> str:
    """The Hugging Face image, which runs serving/inference.py."""
    return _lookup(config.aws.region, INFERENCE, config.endpoint.instance_type)


def lmi_image(config: Config) -> str:
    """AWS's large model inference image, which runs vLLM."""
    return _lookup_lmi(config.aws.region)


@functools.cache
def _lookup_lmi(region: str) -> str:
    from sagemaker.core import image_uris

    uri: str = image_uris.retrieve("djl-lmi", region, version=LMI_VERSION)
    return uri


@functools.cache
def _lookup(region: str, what: tuple[tuple[str, str], ...], instance_type: str) -> str:
    from sagemaker.core import image_uris

    uri: str = image_uris.retrieve("huggingface", region, instance_type=instance_type, **dict(what))
    return uri
