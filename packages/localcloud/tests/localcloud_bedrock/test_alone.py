"""Bedrock in a localcloud of its own: without a model, and across a kill."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from localcloud import LocalCloud, control
from localcloud_bedrock.conftest import HAIKU, MICRO, Bedrock, code, configured, conversations, status, until


def test_without_a_model_everything_else_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCALCLOUD_BEDROCK", raising=False)
    message = [{"role": "user", "content": [{"text": "hi"}]}]
    with LocalCloud(tmp_path / "home") as cloud:
        bedrock = Bedrock(cloud)
        bedrock("s3").create_bucket(Bucket="data")
        assert bedrock().list_foundation_models()["modelSummaries"]
        assert bedrock().list_custom_models()["modelSummaries"] == []
        with pytest.raises(ClientError, match="LOCALCLOUD_BEDROCK: it is not set") as caught:
            bedrock.job("none", conversations())
        assert (code(caught), status(caught)) == ("NotImplemented", 501)
        with pytest.raises(ClientError, match="LOCALCLOUD_BEDROCK"):
            bedrock.runtime.converse(modelId=MICRO, messages=message)
        monkeypatch.setenv("LOCALCLOUD_BEDROCK", str(tmp_path / "absent.json"))
        with pytest.raises(ClientError, match=r"absent\.json"):
            bedrock.runtime.converse(modelId=f"us.{HAIKU}", messages=message)
        for service, operation, named in (
            ("bedrock", "list_guardrails", "bedrock:ListGuardrails"),
            ("bedrock-runtime", "list_async_invokes", "bedrock-runtime:ListAsyncInvokes"),
            ("bedrock-agent", "list_agents", "bedrock-agent:ListAgents"),
        ):
            with pytest.raises(ClientError, match=f"localcloud does not implement {named}"):
                getattr(bedrock(service), operation)()
        bedrock.close()


def test_a_job_that_was_under_way_begins_again_after_a_kill(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALCLOUD_BEDROCK", configured(tiny, tmp_path / "bedrock.json"))
    monkeypatch.setenv("LOCALCLOUD_STOP_GRACE_SECONDS", "0.5")
    home = tmp_path / "home"
    waiting = home / "bedrock" / "waiting"
    info = control.up(home, parent=os.getpid())
    try:
        first = Bedrock(info)
        first("s3").create_bucket(Bucket="data")
        arn = first.job("left", conversations(), hyperParameters={"learningRateWarmupSteps": "99"})
        until(lambda: {"there": waiting.exists()}, lambda seen: seen["there"])
        trainer = int(waiting.read_text())
        first.close()
        os.kill(info.pid, signal.SIGKILL)
        until(lambda: {"runs": runs(trainer)}, lambda seen: not seen["runs"])
        waiting.unlink()
        info = control.up(home, parent=os.getpid())
        second = Bedrock(info)
        until(lambda: {"there": waiting.exists()}, lambda seen: seen["there"])
        assert second().get_model_customization_job(jobIdentifier=arn)["status"] == "InProgress"
        second().stop_model_customization_job(jobIdentifier=arn)
        assert second.ended(arn)["status"] == "Stopped"
        second.close()
    finally:
        control.down(home)


def runs(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
