"""One model server process: started, watched, restarted, invoked over kept-alive loopback connections."""

from __future__ import annotations

import http.client
import logging
import shutil
import sys
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from localcloud.context import Context
from localcloud.errors import AwsError
from localcloud.hosting.lmi_options import check_accelerators, read_options
from localcloud.hosting.model_files import Prepared
from localcloud.jobs.logs import LogSink
from localcloud.jobs.process import Emit, Process
from localcloud.jobs.states import REASON_LIMIT

_LOG = logging.getLogger("localcloud.hosting")
_TOOLKIT = Path(__file__).with_name("toolkit_server.py")
_MAX_BACKOFF_SECONDS = 30.0
_STOP_SECONDS = 5.0
_PIECE_BYTES = 1 << 16


class StartError(Exception):
    """The server never answered /ping; `str()` is the endpoint's FailureReason."""


def check_machine(prepared: Prepared, gpus: int, where: str) -> None:
    """StartError where an LMI container could not start: its options, and the GPUs that it has."""
    if prepared.server != "lmi":
        return
    try:
        check_accelerators(read_options(prepared.model_dir, prepared.environment), gpus, where)
    except ValueError as error:
        prepared.layout.remove()
        reason = f"The primary container did not pass the ping health check. vLLM can't be started: {error}."
        raise StartError(reason) from None


class Unanswered(AwsError):
    """ServiceUnavailable: the server is down, or ended before it answered anything."""

    def __init__(self, subject: str) -> None:
        message = f"The model server of {subject} is not answering; it is being started again."
        super().__init__("ServiceUnavailable", message, 503)


@dataclass(frozen=True)
class Answer:
    """What a model server answered."""

    status: int
    body: bytes
    content_type: str
    custom_attributes: str | None


class ModelServer:
    """One instance of a production variant: a process over the variant's model files, with a directory of its own.

    After it was ready once, a server that ends is started again (at once, then after longer and longer pauses), as
    SageMaker restarts containers; meanwhile invocations get ServiceUnavailable. Whoever invokes it holds it
    (`hold`, `release`) so that it is not stopped under an invocation.
    """

    def __init__(
        self,
        ctx: Context,
        log_group: str,
        variant: str,
        instance: str,
        prepared: Prepared,
        timeout: float,
        subject: str = "",
    ) -> None:
        self._ctx, self._prepared, self._timeout = ctx, prepared, timeout
        self._subject = subject or f"production variant {variant}"
        self.log_group = log_group
        self.log_stream = f"{variant}/{instance}"
        self._home = prepared.layout.root / "instances" / instance
        self._seen = prepared.layout.seen / "instances" / instance
        self._lock = threading.Condition()
        self._idle: list[http.client.HTTPConnection] = []
        self._port = 0
        self._startup_seconds = 0.0
        self._stopping = False
        self._in_flight = 0
        self._peak = 0
        self._process: Process | None = None

    def start(self, startup_seconds: float) -> None:
        """Start the process and wait until it answers; StartError with the reason otherwise."""
        self._prepare(startup_seconds)
        process = self._launch()
        self._wait_ready(process, time.monotonic() + startup_seconds)
        threading.Thread(target=self._watch, args=(process,), name=f"watch-{self.log_stream}", daemon=True).start()

    def _prepare(self, startup_seconds: float) -> None:
        self._startup_seconds = startup_seconds
        for part in ("work", "tmp"):
            (self._home / part).mkdir(parents=True)

    def stop(self) -> None:
        """End the process and remove its directory."""
        with self._lock:
            self._stopping = True
            process = self._process
            idle, self._idle = self._idle, []
            self._lock.notify_all()
        for connection in idle:
            connection.close()
        if process is not None:
            process.end(_STOP_SECONDS)
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def up(self) -> bool:
        """Whether it answers now, as far as is known."""
        return self._port != 0

    @property
    def in_flight(self) -> int:
        """Invocations under way."""
        return self._in_flight

    def hold(self) -> None:
        """Count an invocation that begins."""
        with self._lock:
            self._in_flight += 1
            self._peak = max(self._peak, self._in_flight)

    def release(self) -> None:
        """Count an invocation that ended."""
        with self._lock:
            self._in_flight -= 1
            self._lock.notify_all()

    def take_peak(self) -> int:
        """The most invocations at one time since the last call."""
        with self._lock:
            peak, self._peak = self._peak, self._in_flight
        return peak

    def drain(self, seconds: float) -> None:
        """Wait until no invocation is under way."""
        with self._lock:
            self._lock.wait_for(lambda: self._in_flight == 0, seconds)

    def invoke(self, body: bytes, headers: dict[str, str], seconds: float | None = None) -> Answer:
        """POST /invocations; the answer whatever its status, status 0 when it came too late.

        `seconds` is for this invocation instead of the server's own limit. Unanswered (ServiceUnavailable) while the
        server is down, or when it ends before it answers.
        """
        sent = self._send(body, headers, seconds)
        if isinstance(sent, Answer):
            return sent
        connection, response = sent
        try:
            data = response.read()
        except TimeoutError:
            connection.close()
            return self._too_late(seconds)
        except (OSError, http.client.HTTPException):
            connection.close()
            raise Unanswered(self._subject) from None
        self._give_back(connection)
        return _answer(response, data)

    def invoke_stream(self, body: bytes, headers: dict[str, str]) -> tuple[Answer, Generator[bytes, None, None]]:
        """POST /invocations; (the answer's head, its body in pieces as they come). Whoever gets it closes the pieces.

        A refusal has its whole body in the head. AwsError ModelStreamError from the pieces when the stream breaks off,
        Unanswered while the server is down.
        """
        sent = self._send(body, headers)
        if isinstance(sent, Answer):
            return sent, _nothing()
        connection, response = sent
        if not 200 <= response.status < 300:
            head = _answer(response, response.read())
            self._give_back(connection)
            return head, _nothing()
        pieces = self._pieces(connection, response)
        next(pieces)  # it has begun: closing it now frees the connection even if nothing is read
        return _answer(response, b""), pieces

    def _pieces(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> Generator[bytes, None, None]:
        whole = False
        try:
            yield b""
            while piece := response.read1(_PIECE_BYTES):
                yield piece
            whole = not response.length
        except TimeoutError:
            reason = f"The model did not finish its response within {self._timeout:g} s."
            raise _stream_error("ModelInvocationTimeExceeded", reason) from None
        except (OSError, http.client.HTTPException):
            pass
        finally:
            if whole:
                self._give_back(connection)
            else:
                connection.close()
        if not whole:
            raise _stream_error("StreamBroken", "The connection to the model was closed before the response ended.")

    def _send(
        self, body: bytes, headers: dict[str, str], seconds: float | None = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse] | Answer:
        for attempt in range(2):
            connection, reused = self._connection()
            connection.timeout = seconds or self._timeout
            if connection.sock is not None:
                connection.sock.settimeout(connection.timeout)
            try:
                connection.request("POST", "/invocations", body, headers)
                return connection, connection.getresponse()
            except TimeoutError:
                connection.close()
                return self._too_late(seconds)
            except (OSError, http.client.HTTPException):
                connection.close()
                # An idle connection may have died with the last process; a fresh one tells the truth.
                if not reused or attempt:
                    break
                self._forget_idle()
        raise Unanswered(self._subject)

    def _too_late(self, seconds: float | None) -> Answer:
        reason = f"the invocation timed out waiting for container primary ({seconds or self._timeout:g} s)"
        return Answer(0, reason.encode(), "text/plain", None)

    def _launch(self) -> Process:
        prepared, port_file = self._prepared, self._home / "port"
        port_file.unlink(missing_ok=True)
        command = [
            *(sys.executable, str(_TOOLKIT), "--model-dir", str(prepared.model_dir), "--code", str(prepared.code_dir)),
            *("--program", prepared.program, "--port", "0", "--port-file", str(port_file), "--server", prepared.server),
        ]
        environment = prepared.environment | {"TMPDIR": str(self._seen / "tmp")}
        sink = self._sink(self._home / "output.log")
        with self._lock:
            if self._stopping:
                raise StartError("the endpoint was deleted")
            self._process = Process(command, environment, self._home / "work", sink)
            return self._process

    def _sink(self, file: Path) -> Emit:
        """Where the server's output goes."""
        return LogSink(self._ctx, self.log_group, self.log_stream, file)

    def _wait_ready(self, process: Process, deadline: float) -> None:
        port_file = self._home / "port"
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
        if self._stopping:
            raise StartError("the endpoint was deleted")
        code = process.wait()
        raise StartError(self._reason(process, f"it ended with exit code {code}"))

    def _reason(self, process: Process, what: str) -> str:
        text = (
            f"The primary container for {self._subject} did not pass the ping health check "
            f"({what}). Please check CloudWatch logs for this endpoint. "
        )
        return text + process.tail()[-(REASON_LIMIT - len(text)) :]

    def _watch(self, process: Process) -> None:
        # Exponential backoff, forgotten once a server has stayed up.
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

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if not self._port:
                raise Unanswered(self._subject)
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


def _answer(response: http.client.HTTPResponse, body: bytes) -> Answer:
    return Answer(
        response.status,
        body,
        response.headers.get("Content-Type") or "application/json",
        response.headers.get("X-Amzn-SageMaker-Custom-Attributes"),
    )


def _nothing() -> Generator[bytes, None, None]:
    yield from ()


def _stream_error(code: str, message: str) -> AwsError:
    return AwsError("ModelStreamError", message, 400, {"ErrorCode": code})
