"""Streams and errors of SageMaker Runtime, over real HTTP with handlers of the test's own."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, EventStreamError

from localcloud import sagemaker
from localcloud.context import Context, Request, Response
from localcloud.errors import AwsError
from localcloud.wire import event_frame, match_rest
from localcloud_front.conftest import ACCOUNT, REGION, Clients, Inside, signed


def handle(monkeypatch: pytest.MonkeyPatch, operation: str, handler: Any) -> list[tuple[Context, Request]]:
    seen: list[tuple[Context, Request]] = []

    def recorded(ctx: Context, request: Request) -> Response:
        seen.append((ctx, request))
        answer: Response = handler(ctx, request)
        return answer

    monkeypatch.setitem(sagemaker.RUNTIME_OPERATIONS, operation, recorded)
    return seen


def test_invoke_endpoint_carries_headers_and_bytes_both_ways(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"Body": b"\x00\xff out", "ContentType": "text/x", "InvokedProductionVariant": "AllTraffic", "_x": 1}
    seen = handle(monkeypatch, "InvokeEndpoint", lambda *_: answer)
    got = inside[1]("sagemaker-runtime").invoke_endpoint(
        EndpointName="e-1", Body=b"\x00in", ContentType="application/x", Accept="text/x", TargetVariant="v"
    )
    assert got["Body"].read() == b"\x00\xff out"
    assert (got["ContentType"], got["InvokedProductionVariant"]) == ("text/x", "AllTraffic")
    ctx, request = seen[0]
    assert (ctx.account, ctx.region) == (ACCOUNT, REGION)
    assert request == {
        "EndpointName": "e-1",
        "Body": b"\x00in",
        "ContentType": "application/x",
        "Accept": "text/x",
        "TargetVariant": "v",
    }


@pytest.mark.parametrize("kind", ["file", "iterator"])
def test_a_body_may_be_a_file_or_an_iterator(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"ab" * 700_000)
    body = path if kind == "file" else iter([b"ab" * 350_000, b"ab" * 350_000])
    handle(monkeypatch, "InvokeEndpoint", lambda *_: {"Body": body})
    got = inside[1]("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"")
    assert got["Body"].read() == b"ab" * 700_000


def test_a_model_error_has_its_members_and_status(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Response:
        raise AwsError(
            "ModelError",
            "Received server error (500)",
            424,
            {"OriginalStatusCode": 500, "OriginalMessage": "boom", "LogStreamArn": "arn:x"},
        )

    handle(monkeypatch, "InvokeEndpoint", fail)
    runtime = inside[1]("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        runtime.invoke_endpoint(EndpointName="e", Body=b"")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert caught.value.response["OriginalStatusCode"] == 500
    assert caught.value.response["OriginalMessage"] == "boom"


def test_events_stream_and_an_error_on_the_way_reaches_the_reader(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(*_: Any) -> Response:
        def parts() -> Iterator[dict[str, Any]]:
            yield {"PayloadPart": {"Bytes": b"one"}}
            yield {"PayloadPart": {"Bytes": b"two"}}
            raise AwsError("ModelStreamError", "the model went away", 424, {"ErrorCode": "StreamBroken"})

        return {"Body": parts(), "ContentType": "text/plain"}

    handle(monkeypatch, "InvokeEndpointWithResponseStream", stream)
    got = inside[1]("sagemaker-runtime").invoke_endpoint_with_response_stream(EndpointName="e", Body=b"")
    events, received = iter(got["Body"]), []
    assert got["ContentType"] == "text/plain"
    received.append(next(events)["PayloadPart"]["Bytes"])
    received.append(next(events)["PayloadPart"]["Bytes"])
    assert received == [b"one", b"two"]
    with pytest.raises(EventStreamError, match="the model went away"):
        next(events)
    got["Body"].close()


def test_a_body_over_the_limit_is_refused(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = handle(monkeypatch, "InvokeEndpoint", lambda *_: {"Body": b""})
    with pytest.raises(ClientError, match="less than or equal to 6291456"):
        inside[1]("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"x" * 6_291_457)
    assert seen == []


def test_a_handler_that_breaks_is_one_line_and_no_traceback(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Response:
        raise ZeroDivisionError("seven\nby zero")

    handle(monkeypatch, "InvokeEndpoint", broken)
    with pytest.raises(ClientError) as caught:
        inside[1]("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"")
    assert caught.value.response["Error"] == {"Code": "InternalFailure", "Message": "seven"}
    assert "ZeroDivisionError" in (inside[0].cloud.home / "localcloud.log").read_text()


def test_a_session_key_belongs_to_the_account_of_its_role(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    trust = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}]}'
    arn = inside[1]("iam").create_role(RoleName="r", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    key = inside[1]("sts").assume_role(RoleArn=arn, RoleSessionName="session")["Credentials"]
    seen = handle(monkeypatch, "InvokeEndpoint", lambda *_: {"Body": b""})
    assumed = Clients(inside[0], key=(key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"]))
    assumed("sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"")
    assumed.close()
    assert seen[0][0].account == ACCOUNT


def test_frames_are_what_botocore_reads() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(event_frame({":event-type": "PayloadPart", "ü": "é"}, b"payload"))
    (event,) = list(buffer)
    assert (event.headers, event.payload) == ({":event-type": "PayloadPart", "ü": "é"}, b"payload")


def test_rest_paths_name_their_operation() -> None:
    assert match_rest("sagemaker-runtime", "POST", "/endpoints/a%2Db/invocations") == (
        "InvokeEndpoint",
        {"EndpointName": "a-b"},
    )
    assert match_rest("sagemaker-runtime", "GET", "/endpoints/a/invocations") is None
    assert match_rest("sagemaker-runtime", "POST", "/endpoints/a/b/invocations") is None


def test_operations_that_share_a_path_are_told_apart_by_their_query() -> None:
    for query, operation in (({"MaxItems": "5"}, "ListLayers"), ({"find": "LayerVersion"}, "GetLayerVersionByArn")):
        assert match_rest("lambda", "GET", "/2018-10-31/layers", query) == (operation, {})


def test_a_body_that_is_not_json_is_refused(inside: Inside) -> None:
    host = inside[0].url.removeprefix("http://")
    connection = http.client.HTTPConnection(host)
    target = {"X-Amz-Target": "SageMaker.ListModels"}
    connection.request("POST", "/", b"{", signed(inside[0], "sagemaker", "POST", "/", target, b"{"))
    answer = connection.getresponse()
    assert (answer.status, b"SerializationException" in answer.read()) == (400, True)
    connection.close()
