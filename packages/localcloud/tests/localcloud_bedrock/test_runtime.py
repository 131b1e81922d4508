"""Inference: Converse, native bodies, streams, what is refused, and how many models are loaded."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

from localcloud.bedrock.model_servers import model_servers
from localcloud.bedrock.problems import in_stream, problem
from localcloud.context import Context
from localcloud.protocol import call
from localcloud_bedrock.conftest import ACCOUNT, HAIKU, LLAMA, MICRO, ROLE, Bedrock, code, status, until

HI = [{"role": "user", "content": [{"text": "hi"}]}]
GREEDY = {"temperature": 0.0, "maxTokens": 12}
PROFILE = f"us.{HAIKU}"
CLAUDE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 12, "messages": [{"role": "user", "content": "hi"}]}
NOVA = {"messages": HI, "inferenceConfig": {"maxTokens": 12, "temperature": 0}}


@pytest.fixture(scope="module", autouse=True)
def _one_model(tiny: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LOCALCLOUD_BEDROCK_MODELS", "1")
        yield


@pytest.fixture(scope="module")
def answer(_one_model: None, bedrock: Bedrock) -> dict[str, Any]:
    """What the model says greedily, through Converse."""
    found: dict[str, Any] = bedrock.runtime.converse(modelId=MICRO, messages=HI, inferenceConfig=GREEDY)
    return found


def text(answer: dict[str, Any]) -> str:
    [block] = answer["output"]["message"]["content"]
    return str(block["text"])


def native(bedrock: Bedrock, model: str, body: dict[str, Any], region: str = "us-east-1") -> dict[str, Any]:
    found = bedrock("bedrock-runtime", region).invoke_model(modelId=model, body=json.dumps(body))
    assert found["contentType"] == "application/json"
    parsed: dict[str, Any] = json.loads(found["body"].read())
    return parsed


def chunks(bedrock: Bedrock, model: str, body: dict[str, Any], region: str = "us-east-1") -> list[dict[str, Any]]:
    client = bedrock("bedrock-runtime", region)
    found = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))
    return [json.loads(event["chunk"]["bytes"]) for event in found["body"]]


def test_converse_counts_what_it_generates(bedrock: Bedrock, answer: dict[str, Any]) -> None:
    assert answer["stopReason"] == "max_tokens"
    prompt = len("user: hi\nassistant: ") + 1
    assert answer["usage"] == {"inputTokens": prompt, "outputTokens": 12, "totalTokens": prompt + 12}
    assert answer["metrics"]["latencyMs"] >= 1
    counted = bedrock.runtime.count_tokens(modelId=MICRO, input={"converse": {"messages": HI}})
    assert counted["inputTokens"] == prompt
    system = bedrock.runtime.converse(
        modelId=MICRO, messages=HI, system=[{"text": "be brief"}], inferenceConfig={"maxTokens": 1}
    )
    assert system["usage"]["inputTokens"] == prompt + len("system: be brief\n")


def test_a_stop_sequence_ends_an_answer_before_it(bedrock: Bedrock, answer: dict[str, Any]) -> None:
    whole = text(answer)
    stop = next(char for char in whole[1:] if char.isascii() and char.strip())
    config = {**GREEDY, "stopSequences": [stop]}
    for found in (
        bedrock.runtime.converse(modelId=MICRO, messages=HI, inferenceConfig=config),
        bedrock.runtime.converse(modelId=PROFILE, messages=HI, inferenceConfig=config),
    ):
        assert found["stopReason"] == "stop_sequence"
        assert text(found) == whole[: whole.index(stop)]
    said = native(bedrock, PROFILE, {**CLAUDE, "temperature": 0, "stop_sequences": [stop]})
    assert (said["stop_reason"], said["stop_sequence"]) == ("stop_sequence", stop)
    with pytest.raises(ClientError, match="not supported by this model"):
        bedrock("bedrock-runtime", "us-west-2").converse(modelId=LLAMA, messages=HI, inferenceConfig=config)


def test_a_stream_says_what_the_answer_says(bedrock: Bedrock, answer: dict[str, Any]) -> None:
    stream = bedrock.runtime.converse_stream(modelId=MICRO, messages=HI, inferenceConfig=GREEDY)["stream"]
    events = [(kind, content) for event in stream for kind, content in event.items()]
    kinds = [kind for kind, _ in events]
    deltas = [content for kind, content in events if kind == "contentBlockDelta"]
    assert kinds == [
        "messageStart",
        *["contentBlockDelta"] * len(deltas),
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]
    assert len(deltas) > 1
    assert "".join(delta["delta"]["text"] for delta in deltas) == text(answer)
    assert dict(events)["messageStop"]["stopReason"] == "max_tokens"
    assert dict(events)["metadata"]["usage"] == answer["usage"]


def test_nova_in_its_own_form(bedrock: Bedrock, answer: dict[str, Any]) -> None:
    for body in (NOVA, {**NOVA, "schemaVersion": "messages-v1", "system": [{"text": "be brief"}]}):
        found = native(bedrock, MICRO, body)
        assert set(found) == {"output", "stopReason", "usage"}
        assert found["output"]["message"]["role"] == "assistant"
    said = native(bedrock, MICRO, NOVA)
    assert (text(said), said["stopReason"]) == (text(answer), "max_tokens")
    assert said["usage"]["totalTokens"] == answer["usage"]["totalTokens"]
    streamed = chunks(bedrock, MICRO, NOVA)
    deltas = [chunk["contentBlockDelta"]["delta"]["text"] for chunk in streamed if "contentBlockDelta" in chunk]
    assert "".join(deltas) == text(answer)
    assert streamed[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == 12


def test_claude_in_its_own_form(bedrock: Bedrock, answer: dict[str, Any]) -> None:
    body = {**CLAUDE, "temperature": 0}
    found = native(bedrock, PROFILE, body)
    assert found["content"] == [{"type": "text", "text": text(answer)}]
    assert (found["type"], found["role"], found["stop_reason"]) == ("message", "assistant", "max_tokens")
    assert found["usage"] == {"input_tokens": answer["usage"]["inputTokens"], "output_tokens": 12}
    blocks = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert native(bedrock, PROFILE, {**body, "messages": blocks})["content"] == found["content"]
    streamed = chunks(bedrock, PROFILE, body)
    assert [chunk["type"] for chunk in streamed[:2]] == ["message_start", "content_block_start"]
    assert [chunk["type"] for chunk in streamed[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    assert "".join(chunk["delta"]["text"] for chunk in streamed[2:-3]) == text(answer)
    assert streamed[-2]["delta"]["stop_reason"] == "max_tokens"


def test_llama_in_its_own_form(bedrock: Bedrock, answer: dict[str, Any]) -> None:
    prompt = "<s>user: hi\nassistant: "
    body = {"prompt": prompt, "max_gen_len": 12, "temperature": 0}
    found = native(bedrock, LLAMA, body, "us-west-2")
    assert set(found) == {"generation", "prompt_token_count", "generation_token_count", "stop_reason"}
    assert (found["generation_token_count"], found["stop_reason"]) == (12, "length")
    streamed = chunks(bedrock, LLAMA, body, "us-west-2")
    assert "".join(chunk["generation"] for chunk in streamed) == found["generation"]
    assert streamed[-1]["stop_reason"] == "length"
    whole = bedrock("bedrock-runtime", "us-west-2").converse(modelId=LLAMA, messages=HI, inferenceConfig=GREEDY)
    assert text(whole) == text(answer)


@pytest.mark.parametrize(
    ("model", "body", "said"),
    [
        (MICRO, {}, r"required key \[messages\] not found"),
        (MICRO, {**NOVA, "prompt": "x"}, r"extraneous key \[prompt\]"),
        (MICRO, {**NOVA, "schemaVersion": "messages-v2"}, "messages-v1"),
        (MICRO, {**NOVA, "inferenceConfig": {"maxTokens": 0}}, "maxTokens"),
        (MICRO, {**NOVA, "inferenceConfig": {"maxTokens": 10_001}}, "maxTokens"),
        (MICRO, {**NOVA, "inferenceConfig": {"temperature": "warm"}}, "expected type: Number"),
        (MICRO, {"messages": [{"role": "user", "content": [{"image": {}}]}]}, "text only"),
        (PROFILE, {key: CLAUDE[key] for key in ("max_tokens", "messages")}, r"\[anthropic_version\] not found"),
        (PROFILE, {**CLAUDE, "anthropic_version": "2023-06-01"}, "bedrock-2023-05-31"),
        (PROFILE, {key: CLAUDE[key] for key in ("anthropic_version", "messages")}, r"\[max_tokens\] not found"),
        (PROFILE, {**CLAUDE, "max_tokens": 64_001}, "64001 > 64000"),
        (PROFILE, {**CLAUDE, "messages": [{"role": "assistant", "content": "a"}]}, "start with a user message"),
        (PROFILE, {**CLAUDE, "messages": CLAUDE["messages"] * 2}, "alternate"),  # type: ignore[operator]
    ],
)
def test_bodies_that_are_refused(bedrock: Bedrock, model: str, body: dict[str, Any], said: str) -> None:
    with pytest.raises(ClientError, match=said) as caught:
        native(bedrock, model, body)
    assert (code(caught), status(caught)) == ("ValidationException", 400)


@pytest.mark.parametrize(
    ("model", "changes", "error", "said"),
    [
        ("no-such.model-v1:0", {}, "ValidationException", "model identifier is invalid"),
        (HAIKU, {}, "ValidationException", "with on-demand throughput isn’t supported"),
        (f"eu.{MICRO}", {}, "ValidationException", "model identifier is invalid"),
        (f"{MICRO}:128k", {}, "ValidationException", "doesn't support on-demand throughput"),
        ("anthropic.claude-3-haiku-20240307-v1:0", {}, "ResourceNotFoundException", "end of its life"),
        (f"arn:aws:bedrock:us-east-1:{'1' * 12}:imported-model/{'a' * 12}", {}, "AccessDeniedException", "access"),
        (f"arn:aws:bedrock:us-east-1:123456789012:imported-model/{'a' * 12}", {}, "ResourceNotFoundException", "find"),
        (MICRO, {"messages": []}, "ValidationException", "start with a user message"),
        (MICRO, {"messages": [{"role": "user", "content": [{"text": " "}]}]}, "ValidationException", "is blank"),
        (MICRO, {"inferenceConfig": {"maxTokens": 10_001}}, "ValidationException", "model limit of 10000"),
        (MICRO, {"messages": [{"role": "user", "content": [{"text": "x" * 300}]}]}, "ValidationException", "too long"),
        (MICRO, {"additionalModelRequestFields": {"top_k": 3}}, "ValidationException", "inferenceConfig.topK"),
        (
            MICRO,
            {"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}},
            "NotImplemented",
            "guardrail",
        ),
    ],
)
def test_what_converse_refuses(bedrock: Bedrock, model: str, changes: dict[str, Any], error: str, said: str) -> None:
    with pytest.raises(ClientError, match=said) as caught:
        bedrock.runtime.converse(**{"modelId": model, "messages": HI, "inferenceConfig": GREEDY, **changes})
    assert code(caught) == error
    with pytest.raises(ClientError, match=said):
        bedrock.runtime.converse_stream(**{"modelId": model, "messages": HI, "inferenceConfig": GREEDY, **changes})


def test_a_limit_beyond_the_stand_ins_context_is_cut(bedrock: Bedrock, answer: dict[str, Any]) -> None:
    config = {"temperature": 0.0, "maxTokens": 5000}
    found = bedrock.runtime.converse(modelId=MICRO, messages=HI, inferenceConfig=config)
    assert text(found).startswith(text(answer).rstrip("�"))
    assert found["usage"]["totalTokens"] <= 256
    more = {"additionalModelRequestFields": {"inferenceConfig": {"topK": 1}}, "inferenceConfig": {"maxTokens": 12}}
    assert text(bedrock.runtime.converse(modelId=MICRO, messages=HI, **more)) == text(answer), "greedy by topK"


def test_a_stream_that_nobody_reads_on_gives_the_model_back(bedrock: Bedrock, answer: dict[str, Any]) -> None:
    ctx, servers = Context(ACCOUNT, "us-east-1", bedrock.cloud.cloud), model_servers(bedrock.cloud.cloud)
    for read in (0, 1, 3):
        request = {"modelId": MICRO, "messages": HI, "inferenceConfig": {"maxTokens": 200}}
        events = call(ctx, "bedrock-runtime", "ConverseStream", request)["stream"]
        assert list(servers.loaded().values()) == [1]
        assert len(list(itertools.islice(events, read))) == read
        events.close()
        assert list(servers.loaded().values()) == [0]


def test_an_error_in_a_stream_is_an_event_of_it(bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield {"messageStart": {"role": "assistant"}}
        raise in_stream(problem("ModelErrorException", "the model went away"))

    operations = bedrock.cloud.cloud.operations["bedrock-runtime"]
    monkeypatch.setitem(operations, "ConverseStream", lambda ctx, request: {"stream": broken()})
    stream = bedrock.runtime.converse_stream(modelId=MICRO, messages=HI)["stream"]
    with pytest.raises(EventStreamError, match="the model went away") as caught:
        list(stream)
    assert caught.value.response["Error"]["Code"] == "modelStreamErrorException"


def test_an_imported_model_takes_the_place_of_another(bedrock: Bedrock, answer: dict[str, Any], tiny: Path) -> None:
    for path in tiny.iterdir():
        bedrock.put(f"mine/{path.name}", path.read_bytes())
    source = {"s3DataSource": {"s3Uri": "s3://data/mine/"}}
    bedrock().create_model_import_job(jobName="mine", importedModelName="mine", roleArn=ROLE, modelDataSource=source)
    job = until(lambda: bedrock().get_model_import_job(jobIdentifier="mine"), lambda job: job["status"] != "InProgress")
    servers = model_servers(bedrock.cloud.cloud)
    assert servers.loaded() == {tiny: 0}
    arn = job["importedModelArn"]
    body = {"prompt": "<s>user: hi\nassistant: ", "temperature": 0}
    own = native(bedrock, arn, {**body, "max_gen_len": 12})
    assert (own["generation_token_count"], own["stop_reason"]) == (12, "length")
    openai = native(bedrock, arn, {**body, "max_tokens": 12})
    assert openai["object"] == "text_completion"
    assert openai["choices"][0]["text"] == own["generation"]
    chat = native(bedrock, arn, {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 12, "temperature": 0})
    assert chat["choices"][0]["message"] == {"role": "assistant", "content": text(answer)}
    assert chat["usage"]["completion_tokens"] == 12
    assert text(bedrock.runtime.converse(modelId=arn, messages=HI, inferenceConfig=GREEDY)) == text(answer)
    [loaded] = servers.loaded()
    assert loaded.name == arn.rpartition("/")[2]
    with (
        servers.use(Context(ACCOUNT, "us-east-1", bedrock.cloud.cloud), loaded),
        pytest.raises(ClientError, match="which is all") as caught,
    ):
        bedrock.runtime.converse(modelId=MICRO, messages=HI)
    assert (code(caught), status(caught)) == ("ModelNotReadyException", 429)
    bedrock().delete_imported_model(modelIdentifier="mine")
    assert servers.loaded() == {}
