"""Keys and sizes of disks, where the machine has disks of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from sagemaker.core.common_utils import volume_size_supported

from localcloud.context import Context
from localcloud.errors import AwsError
from localcloud.jobs import storage
from localcloud.jobs.storage import has_local_disks
from localcloud.protocol import call, service_model
from localcloud_jobs.conftest import ACCOUNT, Bench, channel
from localcloud_jobs.test_endpoints import make_model

MODEL = service_model("sagemaker")
ENUMS = ("TrainingInstanceType", "ProcessingInstanceType", "ProductionVariantInstanceType", "TransformInstanceType")
TYPES = sorted({name for shape in ENUMS for name in MODEL.shape_for(shape).enum})
KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/k"


def test_what_the_sdk_knows_to_have_local_disks_is_known_here() -> None:
    """A list of AWS's own: it lacks a family or two (g7, p6-b300), but none of its is lacking here."""
    assert len(TYPES) > 200
    local = [name for name in TYPES if has_local_disks(name)]
    assert [name for name in TYPES if not volume_size_supported(name) and name not in local] == []
    assert {name.split(".")[1] for name in local if volume_size_supported(name)} <= {"g7", "p6-b300", "p6e-gb200"}
    for family in ("m5", "c7i", "m7i-flex", "p3", "inf2", "t3", "c6gn"):
        assert not any(name.startswith(f"ml.{family}.") for name in local), family


LOCAL = ["ml.g5.2xlarge", "ml.g4dn.xlarge", "ml.g6e.xlarge", "ml.p4d.24xlarge", "ml.p5.48xlarge", "ml.m5d.large"]


@pytest.mark.parametrize("kind", ["ml.m5.large", *LOCAL])
def test_a_volume_key_is_refused_with_local_disks(bench: Bench, kind: str) -> None:
    cluster = {"InstanceType": kind, "InstanceCount": 1, "VolumeSizeInGB": 30, "VolumeKmsKeyId": KEY}

    def configure(name: str) -> None:
        make_model(bench, f"model-{name}", "x")
        variant = {"VariantName": "a", "ModelName": f"model-{name}", "InstanceType": kind, "InitialInstanceCount": 1}
        bench.call("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[variant], KmsKeyId=KEY)

    requests: dict[str, Callable[[], Any]] = {
        "TrainingInstanceType": lambda: bench.train("trains", "", ResourceConfig=cluster),
        "ProcessingInstanceType": lambda: bench.process(
            "processes", "", ProcessingResources={"ClusterConfig": cluster}
        ),
        "ProductionVariantInstanceType": lambda: configure("answers"),
    }
    cases = {shape: request for shape, request in requests.items() if kind in MODEL.shape_for(shape).enum}
    assert cases
    for name, request in cases.items():
        if kind == "ml.m5.large":
            request()
            continue
        with pytest.raises(AwsError, match=f"KmsKeyId can't be requested with instance type {kind}") as raised:
            request()
        assert raised.value.code == "ValidationException", name


def test_a_variants_volume_size_is_refused_with_local_disks(bench: Bench) -> None:
    make_model(bench, "model", "x")
    variant = {"VariantName": "a", "ModelName": "model", "InitialInstanceCount": 1, "VolumeSizeInGB": 100}
    for kind in LOCAL:
        with pytest.raises(AwsError, match="VolumeSizeInGB can't be set"):
            bench.call(
                "CreateEndpointConfig",
                EndpointConfigName="c",
                ProductionVariants=[{**variant, "InstanceType": kind}],
            )
    bench.call(
        "CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[{**variant, "InstanceType": "ml.m5.large"}]
    )


@pytest.mark.parametrize(
    ("kind", "most"), [("ml.g5.2xlarge", 450), ("ml.g4dn.xlarge", 125), ("ml.g6.xlarge", 250), ("ml.r5d.large", 75)]
)
def test_a_processing_job_gets_no_more_than_its_machines_disks_hold(bench: Bench, kind: str, most: int) -> None:
    for size, name in ((most, "fits"), (most + 1, "too-large")):
        cluster = {"InstanceType": kind, "InstanceCount": 1, "VolumeSizeInGB": size}
        if size == most:
            bench.process(name, "", ProcessingResources={"ClusterConfig": cluster})
            continue
        with pytest.raises(AwsError, match=f"greater than the total size of the local instance storage of {kind}: "):
            bench.process(name, "", ProcessingResources={"ClusterConfig": cluster})


def test_the_disks_of_every_type_with_local_ones_that_processing_has_are_known() -> None:
    """But for g7 and g7e, whose sizes the table of EC2 had not yet when it was read."""
    enum = service_model("sagemaker").shape_for("ProcessingInstanceType").enum
    local = [name.split(".") for name in enum if has_local_disks(name)]
    unknown = {family for _, family, size in local if size.removesuffix("large") not in storage._SIZES.get(family, {})}
    assert unknown == {"g7", "g7e"}


@pytest.mark.parametrize(
    ("region", "least", "refused"), [("eu-west-3", 0, True), ("eu-west-3", 1, False), ("us-east-1", 0, False)]
)
def test_scaling_to_no_instance_is_refused_where_the_region_does(
    bench: Bench, region: str, least: int, refused: bool
) -> None:
    scaling = {"Status": "ENABLED", "MinInstanceCount": least, "MaxInstanceCount": 2}
    variant = {
        "VariantName": "a",
        "InstanceType": "ml.g5.2xlarge",
        "InitialInstanceCount": 1,
        "ManagedInstanceScaling": scaling,
    }
    request = {
        "EndpointConfigName": "hosts",
        "ExecutionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/r",
        "ProductionVariants": [variant],
    }
    ctx = Context(ACCOUNT, region, bench.cloud)
    if not refused:
        call(ctx, "sagemaker", "CreateEndpointConfig", request)
        return
    with pytest.raises(AwsError, match="Min instance count needs to be greater than 0"):
        call(ctx, "sagemaker", "CreateEndpointConfig", request)


def test_restored_checkpoints_are_counted_in_the_log(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A localcloud that ran in this process before keeps its log to itself.
    monkeypatch.setattr(logging.getLogger("localcloud"), "propagate", True)
    for number in range(3):
        bench.put(f"ck/run-{number}/weights", "x" * 1000)
    script = """
import pathlib
place = pathlib.Path("/opt/ml/checkpoints")
print(sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()))
(place / "run-0" / "weights").unlink()
(place / "run-3").mkdir()
(place / "run-3" / "weights").write_text("new")
"""
    with caplog.at_level("INFO", logger="localcloud.jobs"):
        name = bench.train(
            "restores",
            script,
            CheckpointConfig={"S3Uri": "s3://data/ck"},
            InputDataConfig=[channel("x", "s3://data/ck/")],
        )
        assert bench.training_end(name)["TrainingJobStatus"] == "Completed"
    # Everything under the prefix, whichever run left it, before the job; nothing is deleted there; uploads are counted.
    assert "['run-0/weights', 'run-1/weights', 'run-2/weights']" in bench.log("/aws/sagemaker/TrainingJobs", name)
    assert bench.object("ck/run-0/weights").exists()
    said = [record.getMessage() for record in caplog.records]
    assert "restores algo-1: restored 3 files (3000 bytes) from s3://data/ck to /opt/ml/checkpoints" in said
    assert "restores algo-1: uploaded 1 file (3 bytes) from /opt/ml/checkpoints to s3://data/ck" in said


def test_tensorboard_files_follow_to_s3(bench: Bench) -> None:
    script = """
import pathlib
for place in ("/opt/ml/output/tensorboard", "/opt/ml/output/data"):
    (pathlib.Path(place) / "events").write_text("figures")
"""
    name = bench.train("watched", script, TensorBoardOutputConfig={"S3OutputPath": "s3://data/boards"})
    assert bench.training_end(name)["TrainingJobStatus"] == "Completed"
    assert bench.object("boards/watched/tensorboard-output/events").read_text() == "figures"


def test_tensorboard_files_of_a_failed_job_are_kept(bench: Bench) -> None:
    script = """
import pathlib, sys
(pathlib.Path("/opt/ml/tb") / "events").write_text("figures")
sys.exit(1)
"""
    config = {"S3OutputPath": "s3://data/boards/", "LocalPath": "/opt/ml/tb"}
    name = bench.train("fails", script, TensorBoardOutputConfig=config)
    assert bench.training_end(name)["TrainingJobStatus"] == "Failed"
    assert bench.object("boards/fails/tensorboard-output/events").read_text() == "figures"


def test_a_tensorboard_directory_elsewhere_is_refused(bench: Bench) -> None:
    config = {"S3OutputPath": "s3://data/boards", "LocalPath": "/var/log"}
    with pytest.raises(
        AwsError, match=r"TensorBoardOutputConfig.LocalPath '/var/log': in localcloud it must be in /opt/ml"
    ):
        bench.train("elsewhere", "", TensorBoardOutputConfig=config)
