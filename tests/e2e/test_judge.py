"""A judge that is an endpoint of localcloud: a real model server behind a signed request."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import boto3
import pytest

from common.judge_labels import Pair
from localcloud import LocalCloud

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "evaluation"))

PAIRS = [Pair("p0", "", "a good one", "one"), Pair("p1", "", "one", "a good one"), Pair("p2", "", "one", "another")]
HANDLER = """
import json

def model_fn(model_dir):
    return None

def input_fn(data, content_type):
    return json.loads(data)

def predict_fn(request, model):
    asked = request["messages"][1]["content"]
    first, _, second = asked.partition("<answer-B")
    said = "tie" if ("good" in first) == ("good" in second) else "A" if "good" in first else "B"
    message = {"role": "assistant", "content": f"Verdict: {said}"}
    usage = {"prompt_tokens": len(asked), "completion_tokens": 2}
    return {"choices": [{"index": 0, "message": message}], "usage": usage}
"""


def test_an_endpoint_that_really_runs_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from judge import check, compare, judge_of

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        info = tarfile.TarInfo("code/inference.py")
        info.size = len(HANDLER.encode())
        tar.addfile(info, io.BytesIO(HANDLER.encode()))
    with LocalCloud(tmp_path / "cloud") as cloud:
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "111122223333")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", cloud.secret)
        session = boto3.Session(region_name="eu-central-1")
        s3, sagemaker = session.client("s3"), session.client("sagemaker")
        s3.create_bucket(Bucket="judges", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        s3.put_object(Bucket="judges", Key="model.tar.gz", Body=archive.getvalue())
        image = "763104351884.dkr.ecr.eu-central-1.amazonaws.com/huggingface-pytorch-inference:2.6.0-cpu-py312"
        container = {"Image": image, "ModelDataUrl": "s3://judges/model.tar.gz"}
        role = "arn:aws:iam::111122223333:role/r"
        sagemaker.create_model(ModelName="judge", PrimaryContainer=container, ExecutionRoleArn=role)
        variant = {"VariantName": "all", "ModelName": "judge", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName="judge", ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName="judge", EndpointConfigName="judge")
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="judge", WaiterConfig={"Delay": 1})
        judge = judge_of("endpoint:judge", 100, 2)
        check(judge)
        found = compare(judge, PAIRS, "Prefer what is good.", 2)
        sagemaker.delete_endpoint(EndpointName="judge")
    assert [outcome.winner for outcome in found] == ["one", "other", "tie"]
    assert all(outcome.input_tokens > 100 and outcome.output_tokens == 4 for outcome in found)
