"""Faults on request: shares of failing requests, failing jobs, events that are lost, doubled or early."""

from __future__ import annotations

import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import LocalCloud
from localcloud.bedrock.faults import Faults, faults
from localcloud.errors import AwsError
from localcloud_bedrock.conftest import Bedrock, configured, conversations, until


def _at_least(count: int, seen: dict[str, Any]) -> bool:
    return len(seen["sent"]) >= count


def drawn(found: Faults, count: int) -> list[str]:
    seen = []
    for _ in range(count):
        try:
            found.check("Converse")
            seen.append("")
        except AwsError as error:
            seen.append(error.code)
    return seen


def test_the_same_seed_fails_the_same_requests() -> None:
    settings = {"throttle": 0.3, "error": 0.2, "seed": 7}
    first = drawn(Faults(settings), 400)
    assert first == drawn(Faults(settings), 400)
    assert first != drawn(Faults({**settings, "seed": 8}), 400)
    count = Counter(first)
    assert 90 < count["ThrottlingException"] < 150
    assert 50 < count["InternalServerException"] < 110
    assert drawn(Faults({}), 10) == [""] * 10
    assert drawn(Faults({"throttle": 1.0, "operations": ["InvokeModel"]}), 3) == [""] * 3


@pytest.mark.parametrize("wrong", [{"throtle": 1}, {"throttle": 2}, {"throttle": 0.6, "error": 0.6}, {"events": "x"}])
def test_what_is_no_fault_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="LOCALCLOUD_BEDROCK_FAULTS"):
        Faults(wrong)


def test_faults_reach_requests_jobs_and_events(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLOUD_BEDROCK", configured(tiny, tmp_path / "bedrock.json"))
    monkeypatch.setenv("LOCALCLOUD_BEDROCK_FAULTS", json.dumps({"throttle": 1.0}))
    with LocalCloud(tmp_path / "home") as cloud:
        bedrock = Bedrock(cloud)
        with pytest.raises(ClientError) as caught:
            bedrock().list_custom_models()
        answer = caught.value.response
        assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == ("ThrottlingException", 429)
        faults(cloud.cloud).set(error=1.0)
        with pytest.raises(ClientError) as caught:
            bedrock.runtime.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "a"}]}])
        answer = caught.value.response
        assert answer["Error"]["Code"] == "InternalServerException"
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 500

        bedrock("s3").create_bucket(Bucket="data")
        sent: list[tuple[str, str]] = []
        emit = cloud.cloud.delegate.emit_event

        def record(account: str, region: str, source: str, kind: str, detail: dict[str, str], about: list[str]) -> None:
            job = bedrock().get_model_customization_job(jobIdentifier=detail["jobArn"])
            sent.append((detail["jobStatus"], job["status"]))
            emit(account, region, source, kind, detail, about)

        monkeypatch.setattr(cloud.cloud.delegate, "emit_event", record)
        for how, statuses in (("lost", []), ("doubled", ["InProgress"] * 2 + ["Failed"] * 2)):
            faults(cloud.cloud).set(job_failure="An internal error occurred.", events=how)
            job = bedrock.ended(bedrock.job(how, conversations()))
            assert job["failureMessage"] == "An internal error occurred."
            until(lambda: {"sent": list(sent)}, functools.partial(_at_least, len(statuses)))
            assert [told for told, _ in sent] == statuses
            sent.clear()
        faults(cloud.cloud).set(job_failure="late", events="early", early_seconds=3)
        bedrock.ended(bedrock.job("early", conversations()))
        assert sent[-1] == ("Failed", "InProgress"), "told before it is to be seen"
        bedrock.close()
