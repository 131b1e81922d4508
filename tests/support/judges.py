"""A server that speaks Converse and InvokeEndpoint, and holds every request against botocore's models."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
from botocore.validate import ParamValidator

from tests.support.bedrock_desk import Desk, input_shape

Says = Callable[[str, str, str], str]
"""(the request, answer A, answer B) -> what the judge says."""
CONVERSE, INVOKE = re.compile(r"/model/([^/]+)/converse"), re.compile(r"/endpoints/([^/]+)/invocations")


@dataclass
class Faults:
    """Shares of requests that are throttled, or that fail in one of the ways that pass."""

    throttled: float = 0.0
    failed: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(1))

    def next(self) -> str:
        """ "throttled", one of FAILURES, or nothing."""
        drawn = self.dice.random()
        if drawn < self.throttled:
            return "throttled"
        return self.dice.choice(FAILURES) if drawn < self.throttled + self.failed else ""


FAILURES = ("InternalServerException 500", "ServiceUnavailableException 503", "model 500", "model 503", "reset")


class Hold:
    """Lets so many requests through and keeps all others until the test lets go; `kept` of them wait."""

    def __init__(self, through: int, kept: int) -> None:
        self.through, self.missing = through, kept
        self.full, self.free, self.dropped = threading.Event(), threading.Event(), False


class JudgeServer(ThreadingHTTPServer):
    """Answers as `says` does; the first `throttled` requests get a 429; `at_once` is how many came together at most."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, says: Says, throttled: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.says, self.throttled = says, throttled
        self.lock, self.busy, self.at_once = threading.Lock(), 0, 0
        self.asked: list[tuple[str, str]] = []
        """(model or endpoint, question) of each request that was answered."""
        self.wrong: list[str] = []
        self.gate: threading.Barrier | None = None
        """Requests wait here for each other, where a test wants to see them together."""
        self.faults, self.desk, self.requests = Faults(), Desk(), 0
        self.hold: Hold | None = None
        self.answers: Callable[[str, list[dict[str, Any]]], str] | None = None
        """(model or endpoint, messages with plain texts) -> the answer, where no judge is asked."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: JudgeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.busy += 1
            server.at_once = max(server.at_once, server.busy)
            server.throttled -= 1
            throttled = server.throttled >= 0
            fault, server.requests = server.faults.next(), server.requests + 1
            held = bool(server.hold) and not throttled and not fault and self._is_held()
        try:
            if self.path.startswith(Desk.PATHS):
                self._send(*server.desk.post(self.path, body))
                return
            if held and server.hold:
                server.hold.free.wait(60)
                if server.hold.dropped:
                    self.close_connection = True
                    return
            if throttled:
                self._send(429, {"message": "Too many requests"}, "ThrottlingException")
                return
            if fault:
                self._fail(fault)
                return
            if server.gate:
                server.gate.wait(30)
            self._answer(body)
        finally:
            with server.lock:
                server.busy -= 1

    def do_GET(self) -> None:
        self._send(*self.server.desk.get(self.path))

    def do_DELETE(self) -> None:
        self._send(*self.server.desk.delete(self.path))

    def _is_held(self) -> bool:
        """Whether this request waits, of those that would be answered; the server's lock is held."""
        hold = self.server.hold
        assert hold is not None
        if hold.through > 0:
            hold.through -= 1
            return False
        hold.missing -= 1
        if hold.missing <= 0:
            hold.full.set()
        return True

    def _fail(self, fault: str) -> None:
        name, _, status = fault.partition(" ")
        if name == "throttled":
            self._send(429, {"message": "Too many requests, please wait"}, "ThrottlingException")
        elif name == "reset":
            self.close_connection = True
            # RST rather than FIN: the connection breaks, it does not end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            self.connection.close()
        elif name == "model":
            invoke = "/endpoints/" in self.path
            member = "OriginalStatusCode" if invoke else "originalStatusCode"
            error = "ModelError" if invoke else "ModelErrorException"
            self._send(424, {"message": "the model failed", member: int(status)}, error)
        else:
            self._send(int(status), {"message": "please try again"}, name)

    def _answer(self, body: dict[str, Any]) -> None:
        path = unquote(self.path)
        if match := CONVERSE.fullmatch(path):
            self._check("bedrock-runtime", "Converse", {"modelId": match[1], **body})
            if match[1] == "absent":
                self._send(400, {"message": "The provided model identifier is invalid."}, "ValidationException")
                return
            if match[1].startswith("arn:") and not self.server.desk.serves(match[1]):
                self._send(404, {"message": f"no such model: {match[1]}"}, "ResourceNotFoundException")
                return
            system = [{"role": "system", "content": part["text"]} for part in body.get("system", ())]
            turns = [
                {**turn, "content": "".join(part["text"] for part in turn["content"])} for turn in body["messages"]
            ]
            said = self._said(match[1], [*system, *turns])
            thought = {"reasoningContent": {"reasoningText": {"text": "Verdict: B, or not?"}}}
            message = {"role": "assistant", "content": [thought, {"text": said}]}
            usage = {"inputTokens": 100, "outputTokens": 7, "totalTokens": 107}
            answer = {
                "output": {"message": message},
                "stopReason": "end_turn",
                "usage": usage,
                "metrics": {"latencyMs": 5},
            }
            self._send(200, answer)
        elif match := INVOKE.fullmatch(path):
            self._check("sagemaker-runtime", "InvokeEndpoint", {"EndpointName": match[1], "Body": json.dumps(body)})
            if match[1] == "other-form":
                self._send(200, {"generated_text": "Verdict: A"})
                return
            if match[1] == "strict":
                refusal = {
                    "message": "bad request",
                    "OriginalStatusCode": 400,
                    "OriginalMessage": "max_tokens: too many",
                }
                self._send(424, refusal, "ModelError")
                return
            component = self.headers.get("X-Amzn-SageMaker-Inference-Component", "")
            said = self._said(match[1] + (f"/{component}" if component else ""), body["messages"])
            usage = {"prompt_tokens": 50, "completion_tokens": 3, "total_tokens": 53}
            self._send(
                200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": said}}], "usage": usage}
            )
        else:
            self._send(404, {"message": f"no such path: {path}"}, "ResourceNotFoundException")

    def _said(self, name: str, messages: list[dict[str, Any]]) -> str:
        question = messages[-1]["content"]
        with self.server.lock:
            self.server.asked.append((name, question))
        if self.server.answers:
            return self.server.answers(name, messages)
        parts = dict(re.findall(r"<([a-zA-Z-]+)-[0-9a-f]{12}>\n(.*?)\n</", question, re.DOTALL))
        if "answer-A" not in parts:
            return "Verdict: tie"
        return self.server.says(parts["request"], parts["answer-A"], parts["answer-B"])

    def _check(self, service: str, operation: str, members: dict[str, Any]) -> None:
        shape = input_shape(service, operation)
        report = ParamValidator().validate(members, shape)
        if report.has_errors():
            self.server.wrong.append(report.generate_report())

    def _send(self, status: int, answer: dict[str, Any], error: str = "") -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if error:
            self.send_header("x-amzn-errortype", error)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def judging(says: Says, throttled: int = 0) -> Iterator[JudgeServer]:
    """A judge's server while the block runs."""
    server = JudgeServer(says, throttled)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert server.wrong + server.desk.wrong == []


def use(server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leads every client of AWS to the server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
