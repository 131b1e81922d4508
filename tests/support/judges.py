"""A server that speaks Converse and InvokeEndpoint, and holds every request against botocore's models."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import botocore.session
from botocore.validate import ParamValidator

Says = Callable[[str, str, str], str]
"""(the request, answer A, answer B) -> what the judge says."""
CONVERSE, INVOKE = re.compile(r"/model/([^/]+)/converse"), re.compile(r"/endpoints/([^/]+)/invocations")


class JudgeServer(ThreadingHTTPServer):
    """Answers as `says` does; the first `throttled` requests get a 429; `at_once` is how many came together at most."""

    daemon_threads = True

    def __init__(self, says: Says, throttled: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.says, self.throttled = says, throttled
        self.lock, self.busy, self.at_once = threading.Lock(), 0, 0
        self.asked: list[tuple[str, str]] = []
        """(model or endpoint, question) of each request that was answered."""
        self.wrong: list[str] = []
        self.gate: threading.Barrier | None = None
        """Requests wait here for each other, where a test wants to see them together."""

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
        try:
            if throttled:
                self._send(429, {"message": "Too many requests"}, "ThrottlingException")
                return
            if server.gate:
                server.gate.wait(30)
            self._answer(body)
        finally:
            with server.lock:
                server.busy -= 1

    def _answer(self, body: dict[str, Any]) -> None:
        path = unquote(self.path)
        if match := CONVERSE.fullmatch(path):
            self._check("bedrock-runtime", "Converse", {"modelId": match[1], **body})
            if match[1] == "absent":
                self._send(400, {"message": "The provided model identifier is invalid."}, "ValidationException")
                return
            said = self._said(match[1], body["system"][0]["text"], body["messages"][0]["content"][0]["text"])
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
            said = self._said(match[1], body["messages"][0]["content"], body["messages"][1]["content"])
            usage = {"prompt_tokens": 50, "completion_tokens": 3, "total_tokens": 53}
            self._send(
                200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": said}}], "usage": usage}
            )
        else:
            self._send(404, {"message": f"no such path: {path}"}, "ResourceNotFoundException")

    def _said(self, name: str, system: str, question: str) -> str:
        with self.server.lock:
            self.server.asked.append((name, question))
        parts = dict(re.findall(r"<([a-zA-Z-]+)-[0-9a-f]{12}>\n(.*?)\n</", question, re.DOTALL))
        if "answer-A" not in parts:
            return "Verdict: tie"
        return self.server.says(parts["request"], parts["answer-A"], parts["answer-B"])

    def _check(self, service: str, operation: str, members: dict[str, Any]) -> None:
        shape = botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape
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
    assert server.wrong == []
