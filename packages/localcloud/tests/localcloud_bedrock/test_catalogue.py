"""Foundation models: where, how, until when; the rules of families; what runs without a model."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from localcloud.bedrock import catalogue, configuration, training_data
from localcloud.errors import AwsError
from localcloud_bedrock.conftest import LLAMA, MICRO, Bedrock, code, configured, conversations, status

CLAUDE_3 = "anthropic.claude-3-haiku-20240307-v1:0"
BEFORE, LEGACY, AFTER = datetime.date(2026, 3, 9), datetime.date(2026, 3, 10), datetime.date(2026, 9, 10)


def listed(bedrock: Bedrock, region: str = "us-east-1", **filters: str) -> dict[str, dict[str, object]]:
    found = bedrock("bedrock", region).list_foundation_models(**filters)["modelSummaries"]
    return {model["modelId"]: model for model in found}


def test_models_differ_by_region(bedrock: Bedrock) -> None:
    east, west, west_europe = (listed(bedrock, region) for region in ("us-east-1", "us-west-2", "eu-west-1"))
    assert east[MICRO]["inferenceTypesSupported"] == ["ON_DEMAND"]
    assert west[MICRO]["inferenceTypesSupported"] == ["INFERENCE_PROFILE"]
    tuned = east[f"{MICRO}:128k"]
    assert (tuned["customizationsSupported"], tuned["inferenceTypesSupported"]) == (["FINE_TUNING"], ["PROVISIONED"])
    assert east[f"{MICRO}:24k"]["customizationsSupported"] == []
    assert f"{MICRO}:128k" not in west
    assert west[f"{LLAMA}:128k"]["customizationsSupported"] == ["FINE_TUNING"]
    assert LLAMA in east
    assert LLAMA not in west_europe
    assert set(listed(bedrock, byCustomizationType="FINE_TUNING")) == {
        *(f"{MICRO}:128k", "amazon.nova-lite-v1:0:300k", "amazon.nova-pro-v1:0:300k", "amazon.nova-2-lite-v1:0:256k"),
    }
    assert {model["providerName"] for model in listed(bedrock, byProvider="anthropic").values()} == {"Anthropic"}
    assert listed(bedrock, byOutputModality="IMAGE") == {}


def test_a_model_by_its_id_and_its_arn(bedrock: Bedrock) -> None:
    arn = f"arn:aws:bedrock:us-east-1::foundation-model/{MICRO}"
    for identifier in (MICRO, arn):
        found = bedrock().get_foundation_model(modelIdentifier=identifier)["modelDetails"]
        assert (found["modelArn"], found["modelName"]) == (arn, "Nova Micro")
        assert found["modelLifecycle"] == {"status": "ACTIVE"}
    sonnet = bedrock().get_foundation_model(modelIdentifier="anthropic.claude-sonnet-4-5-20250929-v1:0")
    assert sonnet["modelDetails"]["modelLifecycle"]["endOfLifeTime"].date() == datetime.date(2027, 4, 8)


@pytest.mark.parametrize(
    ("identifier", "region", "error", "http"),
    [
        ("amazon.nova-nano-v1:0", "us-east-1", "ValidationException", 400),
        (f"{LLAMA}:128k", "us-east-1", "ValidationException", 400),
        (f"arn:aws:bedrock:us-west-2::foundation-model/{MICRO}", "us-east-1", "ValidationException", 400),
        ("amazon.titan-text-express-v1", "us-east-1", "ResourceNotFoundException", 404),
        ("cohere.command-r-v1:0", "us-east-1", "ResourceNotFoundException", 404),
        (CLAUDE_3, "us-east-1", "ResourceNotFoundException", 404),
        ("meta.llama3-2-1b-instruct-v1:0", "us-west-2", "ResourceNotFoundException", 404),
    ],
)
def test_a_model_that_is_not_there(bedrock: Bedrock, identifier: str, region: str, error: str, http: int) -> None:
    with pytest.raises(ClientError) as caught:
        bedrock("bedrock", region).get_foundation_model(modelIdentifier=identifier)
    assert (code(caught), status(caught)) == (error, http)


def test_availability_says_where(bedrock: Bedrock) -> None:
    for region, said in (("us-west-2", "AVAILABLE"), ("us-east-1", "NOT_AVAILABLE")):
        found = bedrock("bedrock", region).get_foundation_model_availability(modelId=f"{LLAMA}:128k")
        assert (found["regionAvailability"], found["authorizationStatus"]) == (said, "AUTHORIZED")
    with pytest.raises(ClientError) as caught:
        bedrock().get_foundation_model_availability(modelId="amazon.nova-nano-v1:0")
    assert code(caught) == "ValidationException"


@pytest.mark.parametrize(
    ("day", "state", "customizations"), [(BEFORE, "ACTIVE", ["FINE_TUNING"]), (LEGACY, "LEGACY", [])]
)
def test_a_legacy_model_takes_no_new_job(day: datetime.date, state: str, customizations: list[str]) -> None:
    offer = catalogue.find(f"{CLAUDE_3}:200k", "us-west-2", day)
    assert offer.model.status(day) == state
    assert offer.customizations("us-west-2", day) == customizations


def test_a_model_is_gone_on_its_last_day() -> None:
    assert catalogue.find(CLAUDE_3, "us-east-1", AFTER - datetime.timedelta(days=1)).model.id == CLAUDE_3
    with pytest.raises(AwsError, match="end of its life"):
        catalogue.find(CLAUDE_3, "us-east-1", AFTER)
    with pytest.raises(AwsError, match="end of its life"):
        catalogue.of_profile(f"us.{CLAUDE_3}", "us-east-1", AFTER)


PAIR = '{"prompt": "a", "completion": "b"}\n'
CLAUDE_ROW = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}


def claude(count: int, **changes: object) -> str:
    return f"{json.dumps({**CLAUDE_ROW, **changes})}\n" * count


@pytest.mark.parametrize(
    ("family", "data", "said"),
    [
        ("claude", claude(32), ""),
        ("claude", claude(32, system="be kind"), ""),
        ("claude", claude(31), "31 records; at least 32"),
        ("claude", claude(32, system="a\nHuman: b"), "reserved"),
        ("claude", claude(32, system="x" * 200_000), "33334 tokens; at most 32000"),
        ("claude", claude(32, system=["be kind"]), "system must be a text"),
        ("claude", claude(32, schemaVersion="x"), "unknown keys ['schemaVersion']"),
        ("claude", claude(32, messages=CLAUDE_ROW["messages"][1:] * 2), "message 1 must be of the role user"),
        ("claude", claude(32, messages=[*CLAUDE_ROW["messages"], CLAUDE_ROW["messages"][0]]), "the assistant's"),
        ("claude", claude(10_001), "10001 records; at most 10000"),
        ("llama", PAIR * 100, ""),
        ("llama", PAIR * 99, "99 records together; 100 to 10000"),
        ("llama", conversations(100), "not prompt and completion"),
        ("llama", '{"prompt": "a"}\n', "['prompt'], not prompt and completion"),
        ("llama", "", "0 records; at least 1"),
        ("llama", PAIR.replace("a", "x" * 97_000), "16166 tokens; at most 16000"),
        ("llama-3.3", conversations(100), ""),
        ("llama-3.3", PAIR * 100, "schemaVersion must be"),
        ("nova", conversations(8), ""),
        ("nova", conversations(8, "x" * 193_000), "32168 tokens; at most 32000"),
        ("nova", claude(8), "schemaVersion"),
        ("nova", conversations(8).replace('"text"', '"image"'), "text only"),
        ("nova", conversations(8) + "{\n", "line 9: it is not JSON"),
    ],
)
def test_the_rules_of_training_data(family: str, data: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(data)
    base = {"llama": LLAMA, "llama-3.3": "meta.llama3-3-70b-instruct-v1:0:128k"}.get(family, "")
    family = family.partition("-")[0]
    if not said:
        training_data.check(family, base, path, None)
        return
    with pytest.raises(training_data.DataError) as caught:
        training_data.check(family, base, path, None)
    assert said in str(caught.value)


def test_llama_90b_takes_shorter_rows(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(conversations(99) + conversations(1, "x" * 61_000))
    training_data.check("llama", "meta.llama3-2-11b-instruct-v1:0:128k", path, None)
    with pytest.raises(training_data.DataError, match="at most 10000"):
        training_data.check("llama", "meta.llama3-2-90b-instruct-v1:0:128k", path, None)


def test_a_day_in_the_past_brings_a_model_back(
    bedrock: Bedrock, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALCLOUD_BEDROCK", configured(tiny, tmp_path / "b.json", date="2026-03-01"))
    assert configuration.configuration().today() == datetime.date(2026, 3, 1)
    west, base = bedrock("bedrock", "us-west-2"), f"{CLAUDE_3}:200k"
    details = west.get_foundation_model(modelIdentifier=base)["modelDetails"]
    assert details["modelLifecycle"]["status"] == "ACTIVE"
    assert details["customizationsSupported"] == ["FINE_TUNING"]
    own = {"batchSize": "4", "earlyStoppingThreshold": "0.1"}
    changes = {"baseModelIdentifier": base, "hyperParameters": own}
    job = bedrock.ended(bedrock.job("claude", claude(31), "us-west-2", **changes), "us-west-2")
    assert "31 records; at least 32" in job["failureMessage"]
    monkeypatch.setenv("LOCALCLOUD_BEDROCK", configured(tiny, tmp_path / "b.json", date="2026-03-10"))
    with pytest.raises(ClientError, match="Legacy state") as caught:
        bedrock.job("late", claude(32), "us-west-2", **changes)
    assert code(caught) == "ValidationException"
