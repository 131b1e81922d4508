"""One model server process: started, watched, restarted, invoked over kept-alive loopback connections."""

from __future__ import annotations

import contextlib
import http.client
import logging
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localcloud.context import Context
from localcloud.errors import AwsError
from localcloud.hosting.model_files import Prepared, prepare
from localcloud.jobs.logs import LogSink
from localcloud.jobs.process import Process
from localcloud.jobs.states import REASON_LIMIT
from localcloud.store import Document

_LOG = logging.getLogger("localcloud.hosting")
_TOOLKIT = Path(__file__).with_name("toolkit_server.py")
_MAX_BACKOFF_SECONDS = 30.0
_STOP_SECONDS = 5.0


class StartError(Exception):
    """The server never answered /ping; `str()` is the endpoint's FailureReason."""


@dataclass(frozen=True)
class Answer:
    """What a model server answered."""

    status: int
    body: bytes
    content_type: str
    custom_attributes: str | None


class ModelServer:
    """The server of one production variant.

    After it was ready once, a server that ends is started again (at once, then after longer and longer pauses), as
    SageMaker restarts containers; meanwhile invocations get ServiceUnavailable.
    """

    def __init__(self, ctx: Context, endpoint: str, variant: str, model: Document, root: Path, timeout: float) -> None:
        self._ctx, self._variant, self._model, self._root, self._timeout = ctx, variant, model, root, timeout
        self.log_group = f"/aws/sagemaker/Endpoints/{endpoint}"
        self.log_stream = f"{variant}/i-{uuid.uuid4().hex[:17]}"
        self._lock = threading.Condition()
        self._idle: list[http.client.HTTPConnection] = []
        self._port = 0
        self._startup_seconds = 0.0
        self._stopping = False
        self._in_flight = 0
        self._prepared: Prepared | None = None
        self._process: Process | None = None

    def start(self, startup_seconds: float) -> None:
        """Put the model in place and wait until it answers; StartError or TransferError with the reason otherwise."""
        self._startup_seconds = startup_seconds
        prepared = prepare(self._ctx, self._model, self._root)
        with self._lock:
            self._prepared = prepared
        process = self._launch()
        self._wait_ready(process, time.monotonic() + startup_seconds)
        threading.Thread(target=self._watch, args=(process,), name=f"watch-{self._variant}", daemon=True).start()

    def stop(self) -> None:
        """End the process and remove its files."""
        with self._lock:
            self._stopping = True
            process, prepared = self._process, self._prepared
            idle, self._idle = self._idle, []
            self._lock.notify_all()
        for connection in idle:
            connection.close()
        if process is not None:
            process.end(_STOP_SECONDS)
        if prepared is not None:
            prepared.layout.remove()

    def drain(self, seconds: float) -> None:
        """Wait until no invocation is under way."""
        with self._lock:
            self._lock.wait_for(lambda: self._in_flight == 0, seconds)

    def invoke(self, body: bytes, headers: dict[str, str]) -> Answer:
        """POST /invocations; the answer whatever its status, status 0 when it came too late.

        AwsError ServiceUnavailable while the server is down.
        """
        with self._in_use():
            for attempt in range(2):
                connection, reused = self._connection()
                try:
                    connection.request("POST", "/invocations", body, headers)
                    response = connection.getresponse()
                    data = response.read()
                except TimeoutError:
                    connection.close()
                    reason = f"the invocation timed out waiting for container primary ({self._timeout:g} s)"
                    return Answer(0, reason.encode(), "text/plain", None)
                except (OSError, http.client.HTTPException):
                    connection.close()
                    # An idle connection may have died with the last process; a fresh one tells the truth.
                    if reused and attempt == 0:
                        self._forget_idle()
                        continue
                    raise _unavailable(self._variant) from None
                self._give_back(connection)
                return Answer(
                    response.status,
                    data,
                    response.headers.get("Content-Type") or "application/json",
                    response.headers.get("X-Amzn-SageMaker-Custom-Attributes"),
                )
            raise _unavailable(self._variant)

    def _launch(self) -> Process:
        prepared = self._prepared
        assert prepared is not None
        port_file = prepared.layout.root / "port"
        port_file.unlink(missing_ok=True)
        command = [
            *(sys.executable, str(_TOOLKIT), "--model-dir", str(prepared.model_dir), "--code", str(prepared.code_dir)),
            *("--program", prepared.program, "--port", "0", "--port-file", str(port_file)),
        ]
        sink = LogSink(self._ctx, self.log_group, self.log_stream, prepared.layout.log)
        with self._lock:
            if self._stopping:
                raise StartError("the endpoint was deleted")
            self._process = Process(command, prepared.environment, prepared.layout.root / "work", sink)
            return self._process

    def _wait_ready(self, process: Process, deadline: float) -> None:
        assert self._prepared is not None
        port_file = self._prepared.layout.root / "port"
        while process.poll() is None and not self._stopping:
            if time.monotonic() > deadline:
                process.end(_STOP_SECONDS)
                raise StartError(self._reason(process, "it did not answer /ping in time"))
            if port_file.exists():
                port = int(port_file.read_text())
                if _pings(port):
                    with self._lock:
                        self._port = port
                    return
            time.sleep(0.05)
        code = process.wait()
        raise StartError(self._reason(process, f"it ended with exit code {code}"))

    def _reason(self, process: Process, what: str) -> str:
        text = (
            f"The primary container for production variant {self._variant} did not pass the ping health check "
            f"({what}). Please check CloudWatch logs for this endpoint. "
        )
        return text + process.tail()[-(REASON_LIMIT - len(text)) :]

    def _watch(self, process: Process) -> None:
        pause, since = 0.0, time.monotonic()
        while True:
            process.wait()
            if time.monotonic() - since > _MAX_BACKOFF_SECONDS:
                pause = 0.0
            with self._lock:
                self._port = 0
                if self._stopping or self._lock.wait_for(lambda: self._stopping, pause):
                    return
            pause = min(_MAX_BACKOFF_SECONDS, max(0.5, pause * 2))
            _LOG.warning("%s %s: the model server ended and is started again", self.log_group, self.log_stream)
            try:
                process = self._launch()
                self._wait_ready(process, time.monotonic() + self._startup_seconds)
            except (StartError, OSError) as error:
                _LOG.warning("%s %s: %s", self.log_group, self.log_stream, error)
            since = time.monotonic()

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        with self._lock:
            self._in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1
                self._lock.notify_all()

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if not self._port:
                raise _unavailable(self._variant)
            if self._idle:
                return self._idle.pop(), True
            return http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout), False

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._stopping and connection.port == self._port:
                self._idle.append(connection)
                return
        connection.close()

    def _forget_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _pings(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _unavailable(variant: str) -> AwsError:
    message = f"The model server of variant {variant} is not answering; it is being started again."
    return AwsError("ServiceUnavailable", message, 503)
