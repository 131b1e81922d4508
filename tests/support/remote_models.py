"""A server that speaks Converse and InvokeEndpoint as models do, and fails as often as it is told to."""

from __future__ import annotations

import functools
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import botocore.session
from botocore.validate import ParamValidator

CONVERSE, INVOKE = re.compile(r"/model/([^/]+)/converse"), re.compile(r"/endpoints/([^/]+)/invocations")
Says = Callable[[str, str], str]
"""(model, last user message) -> its answer."""


class ModelServer(ThreadingHTTPServer):
    """`throttled` and `broken`: shares of requests that get a 429 and a 5xx; drawn from one seed."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, says: Says, throttled: float, broken: float, seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.says, self.throttled, self.broken, self.seconds = says, throttled, broken, seconds
        self.draw, self.lock = random.Random(5), threading.Lock()
        self.answered: Counter[tuple[str, str]] = Counter()
        """How often each (model, question) was answered."""
        self.refused = 0
        self.busy = self.at_once = 0
        self.wrong: list[str] = []
        self.hold: Callable[[], None] = lambda: None
        """Called before each answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.busy += 1
            server.at_once = max(server.at_once, server.busy)
            drawn = server.draw.random()
        try:
            if drawn < server.throttled:
                self._refuse(429, "ThrottlingException")
            elif drawn < server.throttled + server.broken:
                self._refuse(500, "InternalServerException")
            else:
                server.hold()
                if server.seconds:
                    time.sleep(server.seconds)
                self._answer(body)
        finally:
            with server.lock:
                server.busy -= 1

    def _refuse(self, status: int, code: str) -> None:
        with self.server.lock:
            self.server.refused += 1
        self._send(status, {"message": "later"}, code)

    def _answer(self, body: dict[str, Any]) -> None:
        path = unquote(self.path)
        if match := CONVERSE.fullmatch(path):
            self._check("bedrock-runtime", "Converse", {"modelId": match[1], **body})
            if match[1] == "absent":
                self._send(400, {"message": "The provided model identifier is invalid."}, "ValidationException")
                return
            said = self._said(match[1], body["messages"][-1]["content"][0]["text"])
            usage = {"inputTokens": 10, "outputTokens": 2, "totalTokens": 12}
            message = {"role": "assistant", "content": [{"text": said}]}
            self._send(200, {"output": {"message": message}, "stopReason": "end_turn", "usage": usage,
                             "metrics": {"latencyMs": 1}})  # fmt: skip
        elif match := INVOKE.fullmatch(path):
            self._check("sagemaker-runtime", "InvokeEndpoint", {"EndpointName": match[1], "Body": json.dumps(body)})
            said = self._said(match[1], body["messages"][-1]["content"])
            usage = {"prompt_tokens": 10, "completion_tokens": 2}
            choices = [{"index": 0, "message": {"role": "assistant", "content": said}}]
            self._send(200, {"choices": choices, "usage": usage})
        else:
            self._send(404, {"message": f"no such path: {path}"}, "ResourceNotFoundException")

    def _said(self, model: str, question: str) -> str:
        with self.server.lock:
            self.server.answered[model, question] += 1
        return self.server.says(model, question)

    def _check(self, service: str, operation: str, members: dict[str, Any]) -> None:
        report = ParamValidator().validate(members, _shape(service, operation))
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


@functools.cache
def _shape(service: str, operation: str) -> Any:
    return botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape


@contextmanager
def serving(says: Says, throttled: float = 0.0, broken: float = 0.0, seconds: float = 0.0) -> Iterator[ModelServer]:
    """A server of models while the block runs."""
    server = ModelServer(says, throttled, broken, seconds)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert server.wrong == []
