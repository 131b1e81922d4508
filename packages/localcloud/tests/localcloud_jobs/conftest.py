"""A cloud over a temporary home with the directory delegate, and short ways to start jobs in it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localcloud.context import Cloud, Context
from localcloud.jobs.isolation import isolation
from localcloud.protocol import call
from localcloud.server import assemble, end
from localcloud.store import Store
from localcloud_jobs.directory_delegate import DirectoryDelegate

ACCOUNT, REGION = "123456789012", "eu-west-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/job"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/any:latest"
ENDED = {"Completed", "Failed", "Stopped"}
SPEED = 20
PATIENCE = 400.0
"""Of the clock of these clouds: 20 seconds that SageMaker waits take one."""


@dataclass
class Bench:
    """A running cloud and its caller."""

    ctx: Context
    delegate: DirectoryDelegate

    @property
    def cloud(self) -> Cloud:
        return self.ctx.cloud

    def call(self, operation: str, service: str = "sagemaker", /, **request: Any) -> dict[str, Any]:
        return call(self.ctx, service, operation, request)

    def put(self, key: str, data: str | bytes) -> str:
        """An object in bucket `data`; its URI."""
        path = self.delegate.root / ACCOUNT / "data" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return f"s3://data/{key}"

    def object(self, key: str) -> Path:
        return self.delegate.root / ACCOUNT / "data" / key

    def train(self, name: str, script: str, **changes: Any) -> str:
        """Start a training job that runs a Python script from its `code` channel."""
        code = self.put(f"code/{name}/train.py", script)
        request: dict[str, Any] = {
            "TrainingJobName": name,
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/train.py"],
            },
            "RoleArn": ROLE,
            "InputDataConfig": [channel("code", code.rsplit("/", 1)[0])],
            "OutputDataConfig": {"S3OutputPath": "s3://data/training"},
            "ResourceConfig": {"InstanceType": "ml.g5.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        }
        for key, value in changes.items():
            request[key] = request[key] + value if key == "InputDataConfig" else value
        self.call("CreateTrainingJob", **request)
        return name

    def process(self, name: str, script: str, **changes: Any) -> str:
        """Start a processing job that runs a Python script from its `code` input."""
        code = self.put(f"code/{name}/process.py", script)
        request: dict[str, Any] = {
            "ProcessingJobName": name,
            "AppSpecification": {
                "ImageUri": IMAGE,
                "ContainerEntrypoint": ["python3", "/opt/ml/processing/input/code/process.py"],
            },
            "RoleArn": ROLE,
            "ProcessingInputs": [s3_input("code", code, "/opt/ml/processing/input/code")],
            "ProcessingResources": {
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30}
            },
        }
        for key, value in changes.items():
            request[key] = request[key] + value if key == "ProcessingInputs" else value
        self.call("CreateProcessingJob", **request)
        return name

    def training_end(self, name: str) -> dict[str, Any]:
        return until(
            lambda: self.call("DescribeTrainingJob", TrainingJobName=name),
            lambda job: job["TrainingJobStatus"] in ENDED,
        )

    def processing_end(self, name: str) -> dict[str, Any]:
        return until(
            lambda: self.call("DescribeProcessingJob", ProcessingJobName=name),
            lambda job: job["ProcessingJobStatus"] in ENDED,
        )

    def log(self, group: str, name: str) -> list[str]:
        with self.delegate.lock:
            return [
                line
                for (found, stream), lines in self.delegate.logs.items()
                if found == group and stream.startswith(name + "/")
                for line in lines
            ]


def channel(name: str, uri: str, **more: Any) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
        },
        **more,
    }


def s3_input(name: str, uri: str, path: str) -> dict[str, Any]:
    return {
        "InputName": name,
        "S3Input": {"S3Uri": uri, "LocalPath": path, "S3DataType": "S3Prefix", "S3InputMode": "File"},
    }


def s3_output(name: str, uri: str, path: str, mode: str = "EndOfJob") -> dict[str, Any]:
    return {"OutputName": name, "S3Output": {"S3Uri": uri, "LocalPath": path, "S3UploadMode": mode}}


def until(look: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    """Look until it is good, however busy the machine; AssertionError with the last look when it never is."""
    deadline, pause = time.monotonic() + PATIENCE, 0.02
    while True:
        seen = look()
        if good(seen):
            return seen
        assert time.monotonic() < deadline, f"still {seen!r} after {PATIENCE:.0f} s"
        time.sleep(pause)
        pause = min(1.5 * pause, 0.2)


def open_cloud(home: Path) -> Cloud:
    home.mkdir(parents=True, exist_ok=True)
    delegate = DirectoryDelegate(home / "s3")
    (home / "s3" / ACCOUNT / "data").mkdir(parents=True, exist_ok=True)
    return assemble(Cloud(home, "http://127.0.0.1:9", Store(home / "state.sqlite"), delegate))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLOUD_STOP_GRACE_SECONDS", "0.5")
    monkeypatch.setenv("LOCALCLOUD_SYNC_SECONDS", "0.1")
    monkeypatch.setenv("LOCALCLOUD_CAPTURE_SECONDS", "0.1")
    monkeypatch.setenv("LOCALCLOUD_CLOCK_SPEED", str(SPEED))


def own_opt_ml() -> bool:
    """Whether jobs have an `/opt/ml` of their own here, if nobody asks for the other way."""
    return isolation("auto").own


WAYS = ["namespace", "rewrite"] if own_opt_ml() else ["rewrite"]
"""How a job gets its `/opt/ml`: both ways where this machine allows both."""
OWN = [way for way in WAYS if way == "namespace"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the jobs of `bench` get their `/opt/ml` (name it before `bench`)."""
    monkeypatch.setenv("LOCALCLOUD_OPT_ML", request.param)
    return str(request.param)


def opt_ml(bench: Bench, name: str, way: str) -> str:
    """What `/opt/ml` is called in a job."""
    return "/opt/ml" if way == "namespace" else str(bench.cloud.home.resolve() / "jobs" / name / "opt" / "ml")


def processes_of(home: Path) -> list[int]:
    """Everything that runs for the jobs under a home: what has its directory in the environment, or mounted."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            seen = (process / "environ").read_bytes() + (process / "mountinfo").read_bytes()
            if f"{home.resolve()}/jobs/".encode() in seen and (process / "stat").read_text().split(") ")[1][0] != "Z":
                found.append(int(process.name))
    return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    cloud = open_cloud(tmp_path / "home")
    delegate = cloud.delegate
    assert isinstance(delegate, DirectoryDelegate)
    yield Bench(Context(ACCOUNT, REGION, cloud), delegate)
    end(cloud)
    cloud.store.close()
