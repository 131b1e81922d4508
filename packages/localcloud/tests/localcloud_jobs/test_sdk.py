"""The SageMaker SDK's ModelTrainer against a whole localcloud: its staged drivers run as they are, torchrun too."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import boto3

from localcloud.keys import Keys
from localcloud_jobs.conftest import own_opt_ml, until

ROOT = Path(__file__).resolve().parents[1]
CLIENT = Path(__file__).with_name("sdk_client.py")
TRAIN = """
import json, os, pathlib, sys
import sibling
rank = os.environ.get("RANK", "0")
rows = pathlib.Path(os.environ["SM_CHANNEL_TRAIN"], "a.txt").read_text()
seen = {"argv": sys.argv[1:], "rows": rows, "world": os.environ.get("WORLD_SIZE"), "model": os.environ["MODEL"],
        "sibling": sibling.WORD, "hps": json.loads(os.environ["SM_HPS"])}
pathlib.Path(os.environ["SM_MODEL_DIR"], f"seen-{rank}.json").write_text(json.dumps(seen))
"""


@contextlib.contextmanager
def served(home: Path) -> Iterator[str]:
    """A localcloud process of its own; its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "localcloud", "--home", str(home), "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "LOCALCLOUD_CONCURRENT_JOBS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def test_model_trainer_runs_its_own_drivers(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(TRAIN)
    (tmp_path / "code" / "sibling.py").write_text("WORD = 'here'")
    with served(tmp_path / "home") as url:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "123456789012",
            "AWS_SECRET_ACCESS_KEY": Keys.of_home(tmp_path / "home").secret,
            "AWS_DEFAULT_REGION": "eu-west-1",
            "HOME": str(tmp_path),
            "SAGEMAKER_VALIDATE_ROLE": "false",
            "TelemetryOptOut": "true",
        }
        command = [sys.executable, "-W", "ignore", str(CLIENT), str(tmp_path / "code")]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stderr
        names = json.loads(ran.stdout.splitlines()[-1])
        for kind, ranks in (("basic", ["0"]), ("torchrun", ["0", "1"])):
            check(url, tmp_path / "home", names[kind], kind, ranks)


def check(url: str, home: Path, name: str, kind: str, ranks: list[str]) -> None:
    """One ModelTrainer job has run to its end, with what the drivers pass on, and its log and model arrived."""
    account = {
        "endpoint_url": url,
        "region_name": "eu-west-1",
        "aws_access_key_id": "123456789012",
        "aws_secret_access_key": Keys.of_home(home).secret,
    }
    with contextlib.ExitStack() as closing:
        sagemaker, s3, logs = (
            closing.enter_context(contextlib.closing(boto3.client(service, **account)))
            for service in ("sagemaker", "s3", "logs")
        )
        job = until(
            lambda: sagemaker.describe_training_job(TrainingJobName=name),
            lambda job: job["TrainingJobStatus"] in ("Completed", "Failed"),
        )
        found = logs.filter_log_events(
            logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/algo-1-"
        )
        key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://sdk/")
        log = "\n".join(event["message"] for event in found["events"])
        assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), log)
        body = s3.get_object(Bucket="sdk", Key=key)["Body"].read()
    assert "Training Container Execution Completed" in log
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert tar.getnames() == [f"seen-{rank}.json" for rank in ranks]
        member = tar.extractfile("seen-0.json")
        assert member is not None
        seen = json.loads(member.read())
    assert seen["argv"] == ["--epochs", "3", "--text", "a b", "--flag", "true"]
    assert seen["hps"] == {"epochs": 3, "text": "a b", "flag": True}
    assert (seen["rows"], seen["sibling"]) == ("row", "here")
    assert seen["world"] == (None if kind == "basic" else "2")
    assert seen["model"] == "/opt/ml/model" if own_opt_ml() else str(home.resolve() / "jobs" / name / "opt/ml/model")
