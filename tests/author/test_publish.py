"""bootstrap and publish against a real localcloud, with nothing but the endpoint URL pointing there."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from configuration.code import Code, digest, shipped
from configuration.config import Config
from configuration.errors import UserError
from configuration.names import Names
from pipelines.bootstrap import bootstrap
from pipelines.finetuning import build_definition
from pipelines.publish import Published, publish, zip_bytes
from pipelines.stacks import deploy_stack
from tests.author.cloud import running


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[boto3.Session]:
    with running(tmp_path_factory.mktemp("home")) as session:
        yield session


@pytest.fixture(scope="module")
def published(session: boto3.Session, config: Config) -> Published:
    """The first upsert of this cloud."""
    with pytest.raises(UserError, match="fmops bootstrap"):
        publish(config, session)
    assert "is created" in bootstrap(config, session)
    return publish(config, session)


def test_everything_is_new_at_first(published: Published, config: Config, session: boto3.Session) -> None:
    assert (published.pipeline, published.stack) == ("created", "created")
    definition, code = build_definition(config)
    wanted = {folder.prefix + name for folder in code.values() for name in folder.files}
    assert wanted < set(published.uploaded)
    described = session.client("sagemaker").describe_pipeline(PipelineName=config.name)
    assert described["PipelineDefinition"] == definition
    assert described["RoleArn"] == Names.of(config).role("pipeline")


def test_what_was_uploaded_is_the_code(published: Published, config: Config, session: boto3.Session) -> None:
    bucket, train = Names.of(config).artifacts_bucket, shipped("training")
    body = session.client("s3").get_object(Bucket=bucket, Key=f"{train.prefix}train.py")["Body"].read()
    assert body == train.files["train.py"]
    keys = [key for key in published.uploaded if key.startswith("code/lambdas/")]
    assert keys == [f"code/lambdas/{shipped('lambdas').sha256}.zip"]
    archive = session.client("s3").get_object(Bucket=bucket, Key=keys[0])["Body"].read()
    assert zipfile.ZipFile(io.BytesIO(archive)).namelist() == sorted(shipped("lambdas").files)


def test_a_second_time_changes_nothing(published: Published, config: Config, session: boto3.Session) -> None:
    assert "is unchanged" in bootstrap(config, session)
    again = publish(config, session)
    assert (again.changed, again.pipeline, again.stack, again.uploaded) == (False, "unchanged", "unchanged", ())
    assert again.pipeline_arn == published.pipeline_arn


def test_what_is_missing_or_cut_short_is_uploaded_again(
    published: Published, config: Config, session: boto3.Session
) -> None:
    client, bucket = session.client("s3"), Names.of(config).artifacts_bucket
    lost, cut = published.uploaded[0], published.uploaded[1]
    client.delete_object(Bucket=bucket, Key=lost)
    client.put_object(Bucket=bucket, Key=cut, Body=b"")
    expected = {key for key in (lost, cut) if not _is_empty(config, key)}
    assert set(publish(config, session).uploaded) == expected | {lost}


def _is_empty(config: Config, key: str) -> bool:
    _, code = build_definition(config)
    return any(
        key == folder.prefix + name and not body for folder in code.values() for name, body in folder.files.items()
    )


def test_a_changed_configuration_updates_what_it_concerns(
    published: Published, config: Config, session: boto3.Session
) -> None:
    training = config.training.model_copy(update={"epochs": 5})
    changed = publish(config.model_copy(update={"training": training}), session)
    assert (changed.pipeline, changed.stack, changed.uploaded) == ("updated", "unchanged", ())
    endpoint = config.endpoint.model_copy(update={"data_capture_percentage": 5})
    changed = publish(config.model_copy(update={"endpoint": endpoint}), session)
    assert (changed.pipeline, changed.stack, changed.uploaded) == ("updated", "updated", ())
    variables = session.client("lambda").get_function_configuration(FunctionName="fmops-deploy")["Environment"]
    assert json.loads(variables["Variables"]["ENDPOINT_SETTINGS"])["data_capture_percentage"] == 5
    assert publish(config, session).pipeline == "updated"


def test_a_second_configuration_lives_beside_the_first(
    published: Published, config: Config, session: boto3.Session
) -> None:
    other = config.model_copy(update={"aws": config.aws.model_copy(update={"resource_prefix": "team-b"}), "name": "b"})
    assert "is created" in bootstrap(other, session)
    assert publish(other, session).pipeline == "created"
    assert publish(config, session).changed is False


def test_a_stack_that_fails_says_why_and_can_be_repaired(
    session: boto3.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.stacks.INFRASTRUCTURE", tmp_path)
    alarm = "Type: AWS::CloudWatch::Alarm, Properties: {EvaluationPeriods: 1, Metrics: [{Id: a, Expression: b+1}]}"
    (tmp_path / "t.yaml").write_text(f"Resources: {{A: {{{alarm}}}}}\n")
    with pytest.raises(UserError, match=r"(?s)stack broken is .*ROLLBACK_COMPLETE.*A \(AWS::CloudWatch::Alarm\): "):
        deploy_stack(session, "broken", "t.yaml", {}, {})
    (tmp_path / "t.yaml").write_text("Resources:\n  Q:\n    Type: AWS::SQS::Queue\n")
    assert deploy_stack(session, "broken", "t.yaml", {}, {"a": "b"}) == "created"
    assert deploy_stack(session, "broken", "t.yaml", {}, {"a": "b"}) == "unchanged"


def test_the_zip_depends_on_its_files_alone() -> None:
    files: dict[str, Any] = {"b.py": b"2", "a.py": b"1"}
    one = zip_bytes(Code("lambdas", files, digest(files)))
    two = zip_bytes(Code("lambdas", dict(sorted(files.items())), digest(files)))
    assert one == two
    assert zip_bytes(Code("lambdas", {"a.py": b"1"}, "x")) != one
