"""A pipeline written with the SageMaker SDK alone: FrameworkProcessor and requirements.txt, `@step`, one that fails."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from localcloud.keys import Keys
from localcloud_jobs.conftest import OWN, until
from localcloud_jobs.test_isolation import TINY, fingerprint, wheel
from localcloud_jobs.test_sdk import served

CLIENT = Path(__file__).with_name("sdk_pipeline_client.py")
PROCESS = f"""
import importlib.metadata, pathlib
import sibling
version = importlib.metadata.version({TINY!r})
pathlib.Path("/opt/ml/processing/output/seen.txt").write_text(f"{{sibling.WORD}} {{version}}")
"""


@pytest.mark.parametrize("way", OWN, indirect=True)
def test_outputs_arrive_failures_fail_and_the_environment_stays(way: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "process.py").write_text(PROCESS)
    (source / "sibling.py").write_text("WORD = '/opt/ml/processing'")
    (source / f"{TINY}-0.0.1-py3-none-any.whl").write_bytes(wheel(TINY, "0.0.1"))
    (source / "requirements.txt").write_text(f"--no-index\n--find-links .\n{TINY}==0.0.1\n")
    before, version = fingerprint(), importlib.metadata.version(TINY)
    with served(tmp_path / "home") as url:
        secret = Keys.of_home(tmp_path / "home").secret
        account = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "123456789012",
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "eu-west-1",
        }
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
            **account,
            "HOME": str(tmp_path),
            "TelemetryOptOut": "true",
            "SAGEMAKER_VALIDATE_ROLE": "false",
        }
        command = [sys.executable, "-W", "ignore", str(CLIENT), str(source)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
        steps = ended(url, secret, json.loads(ran.stdout.splitlines()[-1]))
        assert {name: found["StepStatus"] for name, found in steps.items()} == {
            "Process": "Succeeded",
            "good": "Succeeded",
            "bad": "Failed",
        }, steps
        assert "ValueError('no rows in 42')" in steps["bad"]["FailureReason"]
        with contextlib.closing(client(url, secret, "s3")) as s3:
            seen = s3.get_object(Bucket="sdk", Key="out/seen.txt")["Body"].read().decode()
    assert seen == "/opt/ml/processing 0.0.1"
    assert fingerprint() == before
    assert importlib.metadata.version(TINY) == version


def client(url: str, secret: str, service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="123456789012",
        aws_secret_access_key=secret,
    )


def ended(url: str, secret: str, arn: str) -> dict[str, dict[str, Any]]:
    """The steps of an execution by name, when it has ended."""
    with contextlib.closing(client(url, secret, "sagemaker")) as sagemaker:
        until(
            lambda: sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)["PipelineExecutionStatus"],
            lambda status: status not in ("Executing", "Stopping"),
        )
        steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    return {found["StepName"]: found for found in steps}
