"""The handler behind a real HTTP server: streams, many callers, and payloads made to break it."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from configuration.code import bundle
from tests.support.waiting import until

LIMITS = {"FMOPS_MAX_NEW_TOKENS": "16", "OMP_NUM_THREADS": "1"}
ROOT = Path(__file__).resolve().parents[2]
TOOLKIT = ROOT / "packages/localcloud/src/localcloud/hosting/toolkit_server.py"


@pytest.fixture(scope="module")
def port(lively_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server process of the tiny model with the shipped folder as its code directory."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(lively_weights, folder / "model")
    bundle("serving", folder / "model" / "code")
    command = [
        *(
            sys.executable,
            str(TOOLKIT),
            "--port",
            "0",
        ),
        *("--model-dir", str(folder / "model"), "--port-file", str(folder / "port")),
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **LIMITS})
    try:

        def up() -> bool:
            assert server.poll() is None, (folder / "log").read_text()
            return (folder / "port").exists() and ask(int((folder / "port").read_text()), method="GET")[0] == 200

        until(up)
        yield int((folder / "port").read_text())
        assert server.poll() is None, (folder / "log").read_text()
    finally:
        server.kill()
        server.wait()


def ask(port: int, body: bytes = b"", method: str = "POST", kind: str = "application/json") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, "/invocations" if method == "POST" else "/ping", body, {"Content-Type": kind})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def good(port: int, number: int = 0) -> str:
    body = {"inputs": f"set light {number} to 5", "parameters": {"max_new_tokens": 8}}
    status, answer = ask(port, json.dumps(body).encode())
    assert status == 200, answer
    text: str = json.loads(answer)[0]["generated_text"]
    return text


def test_callers_at_the_same_time_get_their_own_answers(port: int) -> None:
    alone = [good(port, number) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda number: good(port, number), range(6))) == alone
    assert len(set(alone)) > 1


def test_a_stream_comes_as_json_lines(port: int) -> None:
    request = {"inputs": "set light 1", "parameters": {"max_new_tokens": 6}}
    whole = json.loads(ask(port, json.dumps(request).encode())[1])[0]["generated_text"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/invocations", json.dumps(request | {"stream": True}), {"Accept": "*/*"})
    response = connection.getresponse()
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.headers["Content-Type"] == "application/jsonlines"
    lines = [json.loads(line) for line in response]
    connection.close()
    assert len(lines) == lines[-1]["details"]["generated_tokens"]
    assert "".join(line["token"]["text"] for line in lines) == lines[-1]["generated_text"] == whole


def test_a_stream_that_cannot_begin_is_a_400(port: int) -> None:
    body = {"inputs": "light " * 2000, "stream": True, "parameters": {"max_new_tokens": 16}}
    status, answer = ask(port, json.dumps(body).encode())
    assert (status, "together they may be" in answer.decode()) == (400, True)


def payloads(draw: random.Random) -> Iterator[bytes]:
    """Bodies that are wrong in every way that we could think of; none of them is a request that must be served."""
    whole = json.dumps({"inputs": [{"role": "user", "content": "hi"}], "parameters": {"max_new_tokens": 2}}).encode()
    for _ in range(60):  # cut, with bytes changed, or with bytes put in between
        broken = bytearray(whole[: draw.randrange(len(whole) + 1)])
        for _ in range(draw.randrange(4)):
            broken.insert(draw.randrange(len(broken) + 1), draw.choice([0, 0x7B, 0x22, 0xC3, 0xFF, 0x5C]))
        yield bytes(broken)
    values: list[Any] = [
        None,
        True,
        0,
        -1,
        1e308,
        "",
        "x",
        [],
        {},
        [[]],
        {"a": 1},
        10**100,
        float("nan"),
        "\0",
        "é" * 50,
    ]
    for _ in range(120):
        names = ["inputs", "parameters", "stream", "role", "\0"]
        yield json.dumps({draw.choice(names): draw.choice(values) for _ in range(draw.randrange(1, 4))}).encode()
        inside = ["max_new_tokens", "temperature", "top_p", "seed", "stop", "do_sample", "top_k"]
        parameters = {name: draw.choice(values) for name in draw.sample(inside, draw.randrange(1, 4))}
        yield json.dumps({"inputs": draw.choice(values), "parameters": parameters}).encode()
    openai = [
        "max_tokens",
        "tools",
        "tool_choice",
        "stream_options",
        "n",
        "model",
        "repetition_penalty",
        "stop",
        "stream",
    ]
    for _ in range(60):
        message = {
            "role": draw.choice(["user", "system", 3, None]),
            "content": draw.choice([*values, [{"type": "text"}]]),
        }
        more = {name: draw.choice([*values, [{"type": "function"}]]) for name in draw.sample(openai, draw.randrange(4))}
        yield json.dumps({"messages": draw.choice([[message], [message] * 2, message]), **more}).encode()
    yield b"[" * 200_000 + b"]" * 200_000
    yield b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    yield b'{"inputs": "' + b"x" * 7_000_000 + b'"}'
    yield b'{"inputs": "hi", "parameters": {"max_new_tokens": ' + b"9" * 5000 + b"}}"
    yield b'{"inputs": "hi", "parameters": {"temperature": 1e999}}'
    yield rb'{"inputs": "\ud800\udc00\ud800"}'
    yield rb'{"inputs": "\u0000", "parameters": {"stop": "\ud800", "max_new_tokens": 2}}'
    yield '{"inputs": "hi"}'.encode("utf-16")
    yield b"\xef\xbb\xbf{}"
    yield bytes(draw.randrange(256) for _ in range(4000))


def test_no_payload_brings_the_server_down_or_is_its_own_fault(port: int) -> None:
    before = good(port)
    counts: dict[int, int] = {}
    for body in payloads(random.Random(20261124)):
        status, answer = ask(port, body)
        counts[status] = counts.get(status, 0) + 1
        assert status in (200, 400), (body[:200], status, answer[:500])
        assert len(answer) < 3000, "an answer does not repeat a huge request"
        if status == 400:
            assert set(json.loads(answer)) == {"error"}
    assert counts[400] > 200
    assert good(port) == before


def test_a_request_that_http_itself_refuses(port: int) -> None:
    assert ask(port, b"hi", kind="text/csv; \x01")[0] == 400
    for head, status in (
        (b"Content-Length: 99999999999", b"413"),
        (b"Content-Length: -5", b"411"),
        (b"Content-Length: many", b"411"),
        (b"Transfer-Encoding: chunked", b"411"),
        (b"X: y", b"411"),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
            raw.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
            answer = b""
            while part := raw.recv(4096):
                answer += part
        assert answer.startswith(b"HTTP/1.1 " + status), answer
    with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
        raw.sendall(b"POST /invocations HTTP/1.1\r\nContent-Length: 50\r\n\r\nhalf of it")
    assert good(port)
