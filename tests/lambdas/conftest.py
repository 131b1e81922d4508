"""A localcloud of its own for each file, with the stacks and the functions in it, and model packages that answer."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from configuration.config import Config
from configuration.layers import load_config
from configuration.names import Names
from pipelines.bootstrap import bootstrap
from pipelines.publish import publish
from tests.author.cloud import running
from tests.lambdas.support import GROUP, load, settings
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-inference:2.6.0-transformers5.5.3-gpu"

# A model of two functions: it answers with its version, so that a test sees which one serves. Where the archive names a
# file, it is loaded once that file is there: so a test decides how long its endpoint is Creating or Updating.
INFERENCE = """
import os, time
def model_fn(model_dir):
    if os.path.exists(model_dir + "/waits-for"):
        awaited = open(model_dir + "/waits-for").read()
        while not os.path.exists(awaited):
            time.sleep(0.05)
    return open(model_dir + "/version").read()
def predict_fn(data, model):
    return {"version": model}
"""


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(ROOT / "pipeline.yaml")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Iterator[boto3.Session]:
    with running(tmp_path_factory.mktemp("home")) as session:
        bootstrap(config, session)
        publish(config, session)
        # The SDK has made a default session with credentials that are none; the function finds its own in Lambda.
        boto3.setup_default_session(region_name=session.region_name)
        yield session
    boto3.DEFAULT_SESSION = None


@pytest.fixture(scope="module")
def sagemaker(session: boto3.Session) -> Any:
    return session.client("sagemaker")


@pytest.fixture(scope="module")
def environment(session: boto3.Session) -> dict[str, str]:
    """The deploy function's environment, as deployment.yaml set it, but for a group that no rule listens to.

    So the function that the rules invoke keeps out of the tests that call it in process.
    """
    configuration = session.client("lambda").get_function_configuration(FunctionName="fmops-deploy")
    session.client("sagemaker").create_model_package_group(ModelPackageGroupName=GROUP)
    variables: dict[str, str] = configuration["Environment"]["Variables"]
    return {**variables, "PREFIX": GROUP.partition("-")[0] + "-"}


@pytest.fixture(scope="module")
def register(session: boto3.Session, config: Config, environment: dict[str, str]) -> Callable[..., str]:
    """`register("v1", approval="Approved")` -> the ARN of a package whose model answers {"version": "v1"}."""
    client, s3 = session.client("sagemaker"), session.client("s3")
    bucket = Names.of(config).artifacts_bucket

    def make(
        version: str,
        approval: str = "Approved",
        metadata: dict[str, str] | None = None,
        group: str = GROUP,
        broken: bool = False,
        image: str = IMAGE,
        waits_for: Path | None = None,
    ) -> str:
        files = {"version": version, "code/inference.py": "1 / 0" if broken else INFERENCE}
        if waits_for:
            files["waits-for"] = str(waits_for)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, text in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(text.encode())
                archive.addfile(info, io.BytesIO(text.encode()))
        key = f"training/{version}/output/model.tar.gz"
        s3.put_object(Bucket=bucket, Key=key, Body=buffer.getvalue())
        response = client.create_model_package(
            ModelPackageGroupName=group,
            ModelApprovalStatus=approval,
            **({"CustomerMetadataProperties": metadata} if metadata else {}),
            InferenceSpecification={
                "Containers": [
                    {
                        "Image": image,
                        "ModelDataUrl": f"s3://{bucket}/{key}",
                        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
                    }
                ],
                "SupportedContentTypes": ["application/json"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )
        arn: str = response["ModelPackageArn"]
        # As the pipeline's Describe step does.
        pinned = load("digests").digests(s3, client.describe_model_package(ModelPackageName=arn))
        client.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties=pinned)
        return arn

    return make


@pytest.fixture(scope="module")
def clients(session: boto3.Session) -> Any:
    """The deploy function's own clients: boto3 reads the environment that `session` set."""
    return load("deploy").Clients()


@pytest.fixture(scope="module")
def run(clients: Any, environment: dict[str, str]) -> Callable[..., Any]:
    """`run(arn, "chat", endpoint_traffic="canary")` deploys as `fmops deploy` does; `run({...})` is any event."""

    def call(event: str | dict[str, Any], endpoint: str = "", **changes: Any) -> Any:
        if isinstance(event, str):
            event = {"model_package_arn": event, "by": "command", **settings(endpoint, **changes)}
        return load("deploy").route(clients, event, environment)

    return call


def wait_for(client: Any, endpoint: str, status: str = "InService") -> dict[str, Any]:
    """Poll until the endpoint exists and has settled; fails unless it has `status`."""

    def look() -> dict[str, Any]:
        try:
            found: dict[str, Any] = client.describe_endpoint(EndpointName=endpoint)
        except client.exceptions.ClientError:
            found = {"EndpointStatus": "absent"}
        return found

    found = until(look, lambda found: found["EndpointStatus"] in ("InService", "Failed"))
    assert found["EndpointStatus"] == status, found.get("FailureReason")
    return found
