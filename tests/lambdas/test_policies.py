"""The policies for people allow what the Python API, and so the command line and the notebook, really calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from configuration.config import Config
from configuration.errors import UserError
from configuration.names import Names
from fmops.pipeline import Pipeline
from pipelines import deployments
from tests.author.test_infrastructure import allowed, people
from tests.lambdas.conftest import ROOT
from tests.lambdas.support import settings
from tests.support.waiting import until

# The action where it isn't called as the operation (Service Authorization Reference); none: any caller may.
ACTIONS = {
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "lambda:Invoke": "lambda:InvokeFunction",
    "sts:GetCallerIdentity": "",
}
SERVICES = {"sagemaker-runtime": "sagemaker"}


@pytest.fixture
def own(session: boto3.Session) -> boto3.Session:
    """A session whose clients are made after the recording has begun: they copy its event handlers."""
    return boto3.Session(region_name=session.region_name)


@pytest.fixture
def said() -> list[str]:
    """What people are told."""
    return []


@pytest.fixture
def pipeline(own: boto3.Session, said: list[str], tmp_path: Path) -> Pipeline:
    """In the account of the tests, as somebody without localcloud's conveniences sees it."""
    path = tmp_path / "pipeline.yaml"
    path.write_text((ROOT / "pipeline.yaml").read_text("utf-8").partition("\n# Environments:")[0])
    made = Pipeline(path, say=said.append)
    made.__dict__["session"] = own
    return made


@contextlib.contextmanager
def recorded(session: boto3.Session) -> Iterator[set[str]]:
    """The IAM actions of all calls of the session's clients."""
    found: set[str] = set()

    def note(model: Any, **_: Any) -> None:
        service = model.service_model.service_name
        name = f"{SERVICES.get(service, service)}:{model.name}"
        if action := ACTIONS.get(name, name):
            found.add(action)

    events = session._session.get_component("event_emitter")
    events.register("before-call", note, unique_id="policies")
    try:
        yield found
    finally:
        events.unregister("before-call", unique_id="policies")


def test_a_reviewer_can_look_decide_and_follow(
    own: boto3.Session,
    pipeline: Pipeline,
    said: list[str],
    register: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deployments, "AWS_POLL_SECONDS", deployments.LOCAL_POLL_SECONDS)
    endpoint = "fmops-endpoint"
    metadata = {key: str(value) for key, value in settings(endpoint).items()}
    for number in (1, 2):
        register(f"reviewed-{number}", "PendingManualApproval", metadata, "fmops-models")
    with recorded(own) as called:
        assert len(pipeline.versions()) >= 2
        newest = pipeline.versions()[0].number
        for number in (newest - 1, newest):
            version = pipeline.version(number)
            version.evaluation()
            version.approve("looks good", wait=True)
        pipeline.endpoint.summary()
        with contextlib.suppress(KeyError):  # the tests' model answers in a form of its own
            pipeline.endpoint.invoke("hello")
        pipeline.version(newest).reject("wrong units")
        assert f"Back to version {newest - 1}: fmops rollback" in said[-1]
        pipeline.endpoint.rollback(reason="wrong units", wait=True)
        # The way back is the registry's: the version that was rejected is none.
        pipeline.version(newest - 1).reject("this one, too")
        assert "no earlier version" in said[-1]
        version.lineage()
        version.deployments()
        from pipelines.registry import other_groups

        other_groups(own, "fmops", "fmops-models")
    assert called - allowed(people("ReviewerPolicy")) == set()
    assert {"sagemaker:UpdateModelPackage", "lambda:InvokeFunction", "sagemaker:QueryLineage"} <= called


def test_an_operator_can_upsert_start_and_watch(
    session: boto3.Session, own: boto3.Session, pipeline: Pipeline, config: Config, tmp_path: Path
) -> None:
    names = Names.of(config)
    s3 = session.client("s3")
    s3.put_object(Bucket=names.artifacts_bucket, Key=f"base-models/{config.model.base}/config.json", Body=b"{}")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "p{row}", "completion": "c"}}\n' for row in range(200)))
    with recorded(own) as called:
        pipeline.upsert()
        run = pipeline.start(data=rows)

        def lines_of_prepare() -> list[str]:
            with contextlib.suppress(UserError):
                return list(run.logs("Prepare"))
            return []

        until(lines_of_prepare, pause=0.2)
        run.stop()
        pipeline.versions()
    assert called - allowed(people("OperatorPolicy")) == set()
    assert {"sagemaker:StartPipelineExecution", "s3:PutObject"} <= called
