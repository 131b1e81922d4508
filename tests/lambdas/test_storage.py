"""lambdas/storage.py against a real S3: what lies under the inputs of a run, and the end of its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.lambdas.support import load
from tests.support.tiny_model import make_tiny_model

storage = load("storage")
DATA = "fmops-training-data-111122223333-us-east-1"
ARTIFACTS = "fmops-model-artifacts-111122223333-us-east-1"


@pytest.fixture
def s3(session: boto3.Session) -> Any:
    return session.client("s3")


def call(session: boto3.Session, event: dict[str, Any]) -> Any:
    answer = session.client("lambda").invoke(FunctionName="fmops-storage", Payload=json.dumps(event).encode())
    found = json.loads(answer["Payload"].read())
    return found if "FunctionError" not in answer else found["errorMessage"]


def test_every_change_under_the_inputs_is_another_run(session: boto3.Session, s3: Any) -> None:
    rows, model = f"s3://{DATA}/raw-storage/", f"s3://{ARTIFACTS}/base-models/storage/"
    for number in range(3):
        s3.put_object(Bucket=DATA, Key=f"raw-storage/{number}.jsonl", Body=b"one")
    s3.put_object(Bucket=ARTIFACTS, Key="base-models/storage/config.json", Body=b"{}")
    event = {"command": "look", "input_data_uri": rows, "base_model": model, "training_epochs": "3"}
    first = call(session, event)
    assert (first["objects"], len(first["manifest"]), len(first["run"])) == ("3", 64, 32)
    assert call(session, event) == first
    seen = {first["run"]}
    # Another parameter, another model, other rows: another run; and the manifest is about the rows alone.
    for changed in ({**event, "training_epochs": "4"}, {**event, "base_model": "org/name"}):
        found = call(session, changed)
        assert found["manifest"] == first["manifest"]
        seen.add(found["run"])
    s3.put_object(Bucket=ARTIFACTS, Key="base-models/storage/config.json", Body=b"{ }")
    found = call(session, event)
    assert found["manifest"] == first["manifest"]
    seen.add(found["run"])
    manifests = {first["manifest"]}
    changes = [
        lambda: s3.put_object(Bucket=DATA, Key="raw-storage/0.jsonl", Body=b"two"),  # of the same size
        lambda: s3.put_object(Bucket=DATA, Key="raw-storage/new.jsonl", Body=b"one"),
        lambda: s3.delete_object(Bucket=DATA, Key="raw-storage/1.jsonl"),
    ]
    for change in changes:
        change()
        found = call(session, event)
        seen.add(found["run"])
        manifests.add(found["manifest"])
    assert (len(seen), len(manifests)) == (7, 4)


def test_more_objects_than_a_page(session: boto3.Session, s3: Any) -> None:
    for number in range(1003):
        s3.put_object(Bucket=DATA, Key=f"raw-many/{number:05d}", Body=b"x")
    event = {"command": "look", "input_data_uri": f"s3://{DATA}/raw-many/", "base_model": "org/name"}
    before = call(session, event)
    assert before["objects"] == "1003"
    s3.put_object(Bucket=DATA, Key="raw-many/01002", Body=b"y")
    assert call(session, event)["manifest"] != before["manifest"]


@pytest.mark.parametrize(
    ("uri", "words"),
    [(f"s3://{DATA}/raw-nothing/", "There is nothing under"), ("s3://fmops-absent-bucket/x/", "There is no bucket")],
)
def test_an_input_that_is_not_there_ends_the_run_before_a_machine_starts(
    session: boto3.Session, uri: str, words: str
) -> None:
    assert words in call(session, {"command": "look", "input_data_uri": uri, "base_model": "org/name"})


def test_a_base_model_that_is_not_there_ends_the_run_too(session: boto3.Session, s3: Any) -> None:
    s3.put_object(Bucket=DATA, Key="raw-modelless/0.jsonl", Body=b"one")
    uri = f"s3://{ARTIFACTS}/base-models/absent/"
    event = {"command": "look", "input_data_uri": f"s3://{DATA}/raw-modelless/", "base_model": uri}
    assert f"There is no base model under {uri}" in call(session, event)


def test_an_outline_says_of_a_base_model_what_its_files_would(session: boto3.Session, s3: Any, tmp_path: Path) -> None:
    from common.findings import refusal
    from common.method_check import Wanted
    from common.model_check import check_model

    base = make_tiny_model(tmp_path / "base", ["turn on the light"])
    (base / "README.md").write_text("---\nlicense: mit\n---\n")
    place = "base-models/outlined/"
    for file in base.iterdir():
        s3.put_object(Bucket=ARTIFACTS, Key=place + file.name, Body=file.read_bytes())
    s3.put_object(Bucket=ARTIFACTS, Key=f"{place}original/deep/params.json", Body=b"{}")
    s3.put_object(Bucket=ARTIFACTS, Key=f"{place}modeling_x.py", Body=b"import os")
    s3.put_object(Bucket=DATA, Key="raw-outlined/0.jsonl", Body=b"one")
    event = {
        "command": "look",
        "input_data_uri": f"s3://{DATA}/raw-outlined/",
        "base_model": f"s3://{ARTIFACTS}/{place}",
    }
    plain = call(session, event)
    assert plain["base_model"] == ""
    event["outlines"] = f"s3://{DATA}/outlines/"
    found = call(session, event)
    assert found["run"] == plain["run"], "where outlines lie decides nothing"
    assert found == call(session, event)

    def outline(uri: str, folder: Path) -> Path:
        prefix = uri.removeprefix(f"s3://{DATA}/")
        assert prefix.startswith("outlines/")
        folder.mkdir()
        for item in s3.list_objects_v2(Bucket=DATA, Prefix=prefix)["Contents"]:
            s3.download_file(DATA, item["Key"], str(folder / item["Key"].removeprefix(prefix)))
        return folder

    copied = outline(found["base_model"], tmp_path / "copied")
    small = {file.name for file in base.iterdir()} - {"model.safetensors"}
    assert {file.name for file in copied.iterdir()} == small | {"weights.json", "outline.json"}
    wanted = Wanted("lora", "all-linear", 1024, True)
    assert check_model(copied, wanted) == check_model(base, wanted)

    whole = (base / "model.safetensors").read_bytes()
    for number, (body, said) in enumerate(
        [
            (whole[:-1], "it isn't whole, and must be copied again"),
            (b"version https://git-lfs.github.com/spec/v1", "not a whole safetensors file (42 bytes)"),
            (b"", "not a whole safetensors file (0 bytes)"),
        ]
    ):
        s3.put_object(Bucket=ARTIFACTS, Key=f"{place}model.safetensors", Body=body)
        other = call(session, event)["base_model"]
        assert other != found["base_model"]
        assert said in refusal(check_model(outline(other, tmp_path / f"other-{number}"), wanted))


def test_a_long_header_is_read_to_its_end(session: boto3.Session, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    outline = load("outline")
    monkeypatch.setattr(outline, "FIRST_READ", 16)
    header = json.dumps(
        {f"layer.{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(9)}
    )
    body = len(header).to_bytes(8, "little") + header.encode()
    s3.put_object(Bucket=ARTIFACTS, Key="base-models/long/model.safetensors", Body=body)
    found = storage.stored(s3, f"s3://{ARTIFACTS}/base-models/long/")
    uri = outline.write_outline(s3, f"s3://{ARTIFACTS}/base-models/long/", found, f"s3://{DATA}/outlines/")
    key = f"{uri.removeprefix(f's3://{DATA}/')}weights.json"
    written = json.loads(s3.get_object(Bucket=DATA, Key=key)["Body"].read())
    assert written["files"]["model.safetensors"] == {"bytes": len(body), "header": header}


def test_a_finished_training_leaves_no_checkpoints_and_nobody_elses_are_touched(
    session: boto3.Session, s3: Any
) -> None:
    for key in ("mine/a/checkpoint-1/model", "mine/a/checkpoint-2/model", "others/a/model", "mine-too/model"):
        s3.put_object(Bucket=ARTIFACTS, Key=f"checkpoints/fmops/{key}", Body=b"x")
    place = f"s3://{ARTIFACTS}/checkpoints/fmops"
    assert call(session, {"command": "clear", "uri": f"{place}/mine/"}) == {"cleared": "2 objects"}
    assert call(session, {"command": "clear", "uri": f"{place}/mine/"}) == {"cleared": "0 objects"}
    left = s3.list_objects_v2(Bucket=ARTIFACTS, Prefix="checkpoints/fmops/")["Contents"]
    assert [item["Key"] for item in left] == ["checkpoints/fmops/mine-too/model", "checkpoints/fmops/others/a/model"]


@pytest.mark.parametrize(
    "uri", [f"s3://{ARTIFACTS}/training/", f"s3://{ARTIFACTS}/", f"s3://{ARTIFACTS}/checkpoints/x"]
)
def test_nothing_but_a_runs_checkpoints_is_cleared(session: boto3.Session, uri: str) -> None:
    assert "nothing else is cleared" in call(session, {"command": "clear", "uri": uri})


def test_where_bedrock_trains_the_other_branchs_base_model_is_no_matter(session: boto3.Session, s3: Any) -> None:
    s3.put_object(Bucket=DATA, Key="raw-bedrock/0.jsonl", Body=b"one")
    event = {
        "command": "look",
        "input_data_uri": f"s3://{DATA}/raw-bedrock/",
        "base_model": f"s3://{ARTIFACTS}/base-models/absent/",
        "outlines": f"s3://{DATA}/outlines/",
        "otherwise": f"s3://{ARTIFACTS}/code/x/",
        "service": "bedrock",
        "bedrock_base_model": "amazon.nova-micro-v1:0:128k",
        "training_method": "lora",
    }
    found = call(session, event)
    assert (found["base_model"], found["bedrock_family"]) == (event["otherwise"], event["bedrock_base_model"])
    assert "belongs to no family" in call(session, {**event, "bedrock_base_model": "acme.large-v1:0"})
    assert "no base model under" in call(session, {**event, "service": "sagemaker"})
