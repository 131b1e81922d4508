"""The warm process of `fmops` commands: the SDK, whose import takes seconds, and the service models of clients."""

from __future__ import annotations

import importlib
import runpy
import sys

from tests.support.warm import Request, serve

MODULES = (
    "conftest",  # each service model is read once, and the forks share it
    "fmops.cli",
    "jsonschema",
    "sagemaker.core.processing",
    "sagemaker.mlops.workflow.model_step",
    "sagemaker.mlops.workflow.pipeline",
    "sagemaker.serve.model_builder",
    "sagemaker.train.model_trainer",
)
SERVICES = ("cloudformation", "iam", "kms", "lambda", "logs", "s3", "sagemaker", "sagemaker-runtime", "sts")


def warm_up() -> None:
    """Import, and nothing that an import does not do: the SDK's makes a client, so it happens as in a command."""
    from pipelines.session import offline

    with offline("us-east-1"):
        for module in MODULES:
            importlib.import_module(module)
    from botocore.session import Session

    loader = Session().get_component("data_loader")
    for service in SERVICES:
        for kind in ("service-2", "paginators-1", "waiters-2", "endpoint-rule-set-1"):
            if service in loader.list_available_services(kind):
                loader.load_service_model(service, kind)


def run(request: Request) -> int:
    """The command as `python -m fmops.cli` runs it; its exit code."""
    sys.argv = ["fmops", *request["arguments"]]
    del sys.modules["fmops.cli"]
    try:
        runpy.run_module("fmops.cli", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    warm_up()
    serve(sys.stdin, run)
