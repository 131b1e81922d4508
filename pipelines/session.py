"""A SageMaker session that reaches nothing: building the pipeline needs no account, no region and no network.

The SDK builds clients while it is imported, asks IAM about roles, reads the user's defaults and reports usage. Here it
gets dummy credentials for the configured region, its role check and its telemetry are off, and its log and pop-out
warnings go nowhere. Everything that would be uploaded is collected in `OfflineSession.code`, and `pipelines/publish.py`
uploads it.
"""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from configuration.code import Code
    from configuration.config import Config

# What the SDK and boto3 would pick up from the user's shell while the definition is built.
_HIDDEN = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER")


@contextmanager
def offline(region: str) -> Iterator[None]:
    """Build in here: the environment names a region and no account, and the SDK keeps quiet."""
    overrides = {
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_ACCESS_KEY_ID": "offline",
        "AWS_SECRET_ACCESS_KEY": "offline",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "SAGEMAKER_VALIDATE_ROLE": "false",
    }
    before = {name: os.environ.get(name) for name in (*overrides, *_HIDDEN)}
    for name in _HIDDEN:
        os.environ.pop(name, None)
    os.environ.update(overrides)
    disabled, level, handlers = logging.root.manager.disable, logging.root.level, list(logging.root.handlers)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _trusted_defaults():
                yield
    finally:
        # Importing the SDK also configures the root logger; the user's program decides about that.
        logging.root.setLevel(level)
        logging.root.handlers[:] = handlers
        logging.disable(disabled)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _trusted_defaults() -> Iterator[None]:
    """The SDK checks its defaults against a JSON schema at each look-up, most of a build's time; ours are fixed."""
    from sagemaker.core.config.config_manager import SageMakerConfig

    check = SageMakerConfig.__dict__["validate_sagemaker_config"]
    SageMakerConfig.validate_sagemaker_config = staticmethod(lambda *_: None)
    try:
        yield
    finally:
        SageMakerConfig.validate_sagemaker_config = check


@functools.cache
def _boto_session(region: str) -> Any:
    """One for all builds of a process: it keeps the parsed service models."""
    import boto3

    return boto3.Session(region_name=region)


def make_session(config: Config) -> Any:
    """The PipelineSession that the steps are built with; call it inside `offline()`."""
    from sagemaker.core.workflow.pipeline_context import PipelineSession

    from configuration.names import Names

    bucket = Names.of(config).artifacts_bucket
    modules = {"TelemetryOptOut": True}

    class OfflineSession(PipelineSession):  # type: ignore[misc]
        """Knows its bucket without asking S3 and collects code instead of uploading it."""

        def __init__(self) -> None:
            self.code: dict[str, Code] = {}
            super().__init__(
                boto_session=_boto_session(config.aws.region),  # credentials: those of offline()
                default_bucket=bucket,
                # A given configuration replaces the files of the user and the machine: the same bytes everywhere.
                sagemaker_config={"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": modules}}},
            )

        def default_bucket(self) -> str:
            return bucket

        def expand_role(self, role: str) -> str:
            return role

        def upload_data(self, path: str, *_: Any, **__: Any) -> str:
            raise RuntimeError(f"{path} would be uploaded at a key with a date in it; ship it with add_code()")

        def add_code(self, code: Code) -> str:
            """Collect a folder for the upload; returns the S3 URI that it will have."""
            self.code[code.prefix] = code
            return code.uri(bucket)

    return OfflineSession()
