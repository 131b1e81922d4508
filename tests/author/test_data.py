"""Rows on their way to S3: one file or a folder, under a key that a version's metadata can hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from common.dials import DialError
from configuration.config import Config
from configuration.dials import by_parameter
from configuration.errors import UsageProblem, UserError
from configuration.layers import load_config
from pipelines.bootstrap import bootstrap
from pipelines.data import check, check_inputs, upload
from tests.author.cloud import running

ROW = '{"prompt": "p%d", "completion": "c"}\n'


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, config: Config) -> Iterator[boto3.Session]:
    with running(tmp_path_factory.mktemp("home")) as session:
        bootstrap(config, session)
        yield session


def keys(session: boto3.Session, uri: str) -> list[str]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    found = session.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return [item["Key"].removeprefix(prefix) for item in found]


def test_a_folder_is_checked_and_uploaded_whole_under_its_content(
    config: Config, session: boto3.Session, tmp_path: Path
) -> None:
    (tmp_path / "inner").mkdir()
    for number, name in enumerate(("a.jsonl", "inner/b (1).jsonl")):
        (tmp_path / name).write_text("".join(ROW % (number * 100 + row) for row in range(60)))
    assert "120" in check(config, tmp_path)
    uri = upload(config, session, tmp_path)
    assert uri.endswith("/")
    assert keys(session, uri) == ["a.jsonl", "inner/b__1_.jsonl"]
    assert upload(config, session, tmp_path) == uri
    (tmp_path / "a.jsonl").write_text(ROW % 1)
    assert upload(config, session, tmp_path) != uri


@pytest.mark.parametrize(
    "name", ["my data (1).csv", "a,b.csv", "täglich.csv", "x" * 200 + ".csv", "a&b=c?.csv", "plain.csv"]
)
def test_a_files_name_never_fails_a_run(config: Config, session: boto3.Session, tmp_path: Path, name: str) -> None:
    """The URI becomes a version's metadata after a paid training: letters, digits and _.:/=+-@, 256 characters."""
    (tmp_path / name).write_text("prompt,completion\na,b\n")
    uri = upload(config, session, tmp_path / name)
    assert uri.endswith(".csv")
    assert len(uri) <= 256
    assert by_parameter()["InputDataUri"].read(uri) == uri
    with pytest.raises(DialError):
        by_parameter()["InputDataUri"].read("s3://bucket/my data (1).csv")


@pytest.mark.parametrize(
    ("settings", "row", "said"),
    [
        ("training: {task: dpo}", '{"prompt": "p%d", "chosen": "a", "rejected": "b"}', ""),
        ("training: {task: dpo}", ROW, "line 1: task dpo learns from two answers"),
        ("", '{"prompt": "p%d", "chosen": "a", "rejected": "b"}', "set training.task: dpo"),
        ("", '{"text": "t%d"}', "but the gate asks for more"),
        ("gate: {rules: [{metric: validation_loss, against: value, not_worse_than: 9.0}]}", '{"text": "t%d"}', ""),
        (
            "data: {columns: {chosen: x, rejected: y}}\ntraining: {task: dpo}",
            '{"prompt": "p%d", "x": "a", "y": "b"}',
            "",
        ),
    ],
)
def test_a_file_is_checked_at_home_as_the_pipeline_will(tmp_path: Path, settings: str, row: str, said: str) -> None:
    path, rows = tmp_path / "pipeline.yaml", tmp_path / "rows.jsonl"
    gate = "gate: {rules: [{metric: token_f1, against: base, better_by: 0.1}]}"
    path.write_text(settings if "gate" in settings else f"{settings}\n{gate}\n")
    rows.write_text("".join(f"{row.strip()}\n" % number for number in range(40)))
    if said:
        with pytest.raises(UsageProblem, match=said):
            check(load_config(path), rows)
    else:
        assert "good=40" in check(load_config(path), rows)


def test_what_is_not_there_is_named_before_a_run_starts(config: Config, session: boto3.Session, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is nothing under s3://fmops-training-data-.*/raw/"):
        check_inputs(config, session, {})
    (tmp_path / "a.jsonl").write_text(ROW % 1)
    given = {"InputDataUri": upload(config, session, tmp_path / "a.jsonl")}
    with pytest.raises(UserError, match="There is no base model under s3://"):
        check_inputs(config, session, given)
    check_inputs(config, session, {**given, "BaseModel": "org/name"})
