"""A model server that behaves as the SageMaker inference toolkit does inside AWS's framework images.

    python -m localcloud.hosting.toolkit_server --model-dir DIR [--program inference.py] [--code DIR] [--port 8080]
        [--server toolkit|huggingface|lmi]

`<model dir>/code/inference.py` provides `model_fn(model_dir)` and, where the defaults don't suit,
`input_fn(data, content_type)`, `predict_fn(data, model)`, `output_fn(prediction, accept)` or, instead of those three,
`transform_fn(model, data, content_type, accept)`; each may take a further `context`. Defaults: JSON, CSV and text in;
`model.predict(data)` or `model(data)`; JSON or CSV out. GET /ping is 200 once the model is loaded, 503 before.
POST /invocations answers the output; a ValueError of input_fn or predict_fn is the caller's fault: 400 with
`{"error": reason}`; any other exception is 500 with one line, its traceback goes to the log, and the server stays up.
Where the prediction or the output is an iterator (text, bytes, or objects that become JSON lines), its pieces are sent
as they come, in chunked transfer encoding; an error on the way breaks the connection off, and a caller that goes away
closes the iterator. A body of more than 64 MiB is refused with 413. A requirements.txt beside the program is not
installed.

`--server huggingface` answers as the Hugging Face toolkit on Multi Model Server does: 400 for every exception of a
handler, nothing streamed. `--server lmi` is AWS's LMI image (lmi_server.py), which needs no program.

It knows nothing of localcloud's state, and stands on the standard library's threaded server: one local process with few
connections, handlers that block in native code, and nothing to install beside what the model needs.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import inspect
import io
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Protocol, cast

JSON, CSV, TEXT = "application/json", "text/csv", "text/plain"
JSON_LINES = "application/jsonlines"
MOST_BYTES = 64 << 20

Output = bytes | Generator[bytes, None, None]
Failure = Callable[[Exception], tuple[int, dict[str, Any]]]
"""What a server answers to a handler's exception: status and body."""


class Answering(Protocol):
    """A loaded model."""

    def answer(self, body: bytes, content_type: str, accept: str) -> tuple[Output, str]: ...


class BadRequest(ValueError):
    """The request can't be served as it is: 400 (or 415 for a content type) with the reason."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


class Model:
    """A loaded model and the functions around it."""

    def __init__(self, model_dir: Path, code_dir: Path, program: str) -> None:
        self._context = SimpleNamespace(
            system_properties={"model_dir": str(model_dir), "gpu_id": None}, manifest={}, request_processor=[]
        )
        module = _load(code_dir, program)
        self._functions = {
            name: getattr(module, name)
            for name in ("model_fn", "input_fn", "predict_fn", "output_fn", "transform_fn")
            if callable(getattr(module, name, None))
        }
        if "model_fn" not in self._functions:
            raise RuntimeError(f"{program} has no model_fn(model_dir): localcloud can't load a model without one")
        self.model = self._call("model_fn", 1, str(model_dir))

    def answer(self, body: bytes, content_type: str, accept: str) -> tuple[Output, str]:
        """(response body or its pieces, its content type); BadRequest or whatever the functions raise."""
        kind = content_type.split(";")[0].strip().lower()
        data: Any = body
        if kind.startswith("text/") or kind.endswith("json") or kind in ("", JSON):
            try:
                data = body.decode("utf-8")
            except UnicodeDecodeError as error:
                raise BadRequest(f"the body is not UTF-8: {error}") from None
        if "transform_fn" in self._functions:
            return _response(self._call("transform_fn", 4, self.model, data, content_type, accept), accept)
        if "input_fn" in self._functions:
            data = self._call("input_fn", 2, data, content_type)
        else:
            data = default_input(data, kind)
        if "predict_fn" in self._functions:
            prediction = self._call("predict_fn", 2, data, self.model)
        else:
            prediction = default_predict(data, self.model)
        if "output_fn" in self._functions:
            return _response(self._call("output_fn", 2, prediction, accept), accept)
        return default_output(prediction, accept)

    def _call(self, name: str, count: int, *arguments: Any) -> Any:
        function = self._functions[name]
        return function(*arguments, self._context) if _takes(function, count + 1) else function(*arguments)


def default_input(data: str | bytes, kind: str) -> Any:
    """JSON, CSV (rows of numbers where they are numbers) or text; BadRequest 415 for another content type."""
    if kind in ("", JSON) or kind.endswith("+json"):
        try:
            return json.loads(data)
        except ValueError as error:
            raise BadRequest(f"the body is not JSON: {error}") from None
    if kind == CSV:
        return [[_number(cell) for cell in row] for row in csv.reader(io.StringIO(str(data))) if row]
    if kind == TEXT:
        return data
    raise BadRequest(f"content type {kind!r} is not supported; send {JSON} or {CSV}", 415)


def default_predict(data: Any, model: Any) -> Any:
    """`model.predict(data)`, or `model(data)`."""
    predict = getattr(model, "predict", model)
    if not callable(predict):
        raise RuntimeError(f"a {type(model).__name__} has no predict(): define predict_fn(data, model)")
    return predict(data)


def default_output(prediction: Any, accept: str) -> tuple[Output, str]:
    """The prediction as CSV when asked for, else as JSON; arrays and tensors become lists, iterators JSON lines."""
    if isinstance(prediction, Iterator):
        return _begun(prediction), JSON_LINES
    value = prediction.tolist() if hasattr(prediction, "tolist") else prediction
    if accept.split(";")[0].strip().lower() == CSV:
        rows = value if isinstance(value, list) else [value]
        out = io.StringIO()
        csv.writer(out).writerows(row if isinstance(row, list) else [row] for row in rows)
        return out.getvalue().encode(), CSV
    return json.dumps(value, default=_plain).encode(), JSON


def _response(value: Any, accept: str) -> tuple[Output, str]:
    """What output_fn or transform_fn may return: str, bytes, an iterator of them, or (one of these, content type)."""
    content_type = accept if accept and "*" not in accept else JSON
    if isinstance(value, tuple) and len(value) == 2:
        value, content_type = value
    if isinstance(value, str):
        return value.encode(), content_type
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), content_type
    if isinstance(value, Iterator):
        return _begun(value), content_type
    return default_output(value, content_type)


def _begun(pieces: Iterator[Any]) -> Generator[bytes, None, None]:
    """The pieces as bytes. The first one is made now: what goes wrong before it can still be answered properly."""
    encoded = _encoded(pieces)
    first = next(encoded, None)

    def rest() -> Generator[bytes, None, None]:
        yield b""  # so that closing it reaches the iterator even when nothing was sent
        if first is not None:
            yield first
            yield from encoded

    begun = rest()
    next(begun)
    return begun


def _encoded(pieces: Iterator[Any]) -> Generator[bytes, None, None]:
    try:
        for piece in pieces:
            if isinstance(piece, str):
                yield piece.encode()
            elif isinstance(piece, bytes | bytearray | memoryview):
                yield bytes(piece)
            else:
                yield json.dumps(piece, default=_plain).encode() + b"\n"
    finally:
        if isinstance(pieces, Generator):
            pieces.close()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} can't be written as JSON: return it from output_fn as str or bytes")


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def _load(code_dir: Path, program: str) -> ModuleType:
    path = code_dir / program
    if not path.is_file():
        raise RuntimeError(
            f"no inference code: {program} is not in the model's code/ directory. localcloud runs models that bring "
            "code/inference.py with model_fn; it has no container images"
        )
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def toolkit_failure(error: Exception) -> tuple[int, dict[str, Any]]:
    """The caller's fault where it is a ValueError, else the handler's own."""
    if isinstance(error, BadRequest):
        return error.status, {"error": str(error)}
    if isinstance(error, ValueError):
        return 400, {"error": str(error)}
    first = next(iter(str(error).splitlines()), "")
    return 500, {"error": f"{type(error).__name__}: {first}"}


def huggingface_failure(error: Exception) -> tuple[int, dict[str, Any]]:
    """The Hugging Face toolkit wraps every exception into a 400 (handler_service.py, handle); the body is MMS's."""
    status = error.status if isinstance(error, _NotAnAnswer) else 400
    return status, {"code": status, "type": "InternalServerException", "message": str(error)}


class _NotAnAnswer(Exception):
    """Multi Model Server can't send what the handler returned."""

    status = 503


class HuggingFaceModel(Model):
    """The same functions in a Multi Model Server, which sends whole answers only."""

    def __init__(self, model_dir: Path, code_dir: Path, program: str) -> None:
        # Handlers look whether they run there: the server's package is importable in its workers.
        sys.modules.setdefault("mms", ModuleType("mms"))
        super().__init__(model_dir, code_dir, program)

    def answer(self, body: bytes, content_type: str, accept: str) -> tuple[Output, str]:
        out, kind = super().answer(body, content_type, accept)
        if isinstance(out, bytes):
            return out, kind
        out.close()
        raise _NotAnAnswer("Invalid model predict output")


class LmiModel:
    """AWS's LMI image."""

    def __init__(self, model_dir: Path) -> None:
        from localcloud.hosting.lmi_server import Lmi  # only here: it brings pydantic and transformers along

        self._lmi = Lmi(model_dir)

    def answer(self, body: bytes, content_type: str, accept: str) -> tuple[Output, str]:
        """(response body or its pieces, its content type)."""
        out, kind = self._lmi.answer(body, content_type, accept)
        return (out if isinstance(out, bytes) else _begun(out)), kind


def lmi_failure(error: Exception) -> tuple[int, dict[str, Any]]:
    """LMI's 424."""
    from localcloud.hosting.lmi_server import failure

    return failure(error)


class Server(ThreadingHTTPServer):
    """Answers /ping from the start, /invocations once `model` is set."""

    daemon_threads = True
    request_queue_size = 128
    model: Answering | None = None
    failure: Failure

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a caller that went away is no news
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version = "localcloud-toolkit"
    sys_version = ""

    @property
    def _model(self) -> Answering | None:
        return cast(Server, self.server).model

    def do_GET(self) -> None:
        if self.path != "/ping":
            self._send(404, b"", TEXT)
        else:
            self._send(503 if self._model is None else 200, b"\n", TEXT)

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        model = self._model
        if self.path != "/invocations":
            self._send(404, b"", TEXT)
        elif model is None:
            self._fail(503, "the model is not loaded yet")
        else:
            self._invoke(model, body)

    def _body(self) -> bytes | None:
        """The request's body; None when it was refused. What is not read stays in the connection, which is closed."""
        given = self.headers.get("Content-Length", "")
        if self.headers.get("Transfer-Encoding") or not given.isdecimal():
            self.close_connection = True
            self._fail(411, "Content-Length is missing")
        elif int(given) > MOST_BYTES:
            self.close_connection = True
            self._fail(413, f"the body has {int(given)} bytes; at most {MOST_BYTES} are allowed")
        else:
            return self.rfile.read(int(given))
        return None

    def _invoke(self, model: Answering, body: bytes) -> None:
        accept = self.headers.get("Accept") or os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or JSON
        try:
            out, content_type = model.answer(
                body, self.headers.get("Content-Type") or JSON, JSON if accept == "*/*" else accept
            )
        except Exception as error:
            if not isinstance(error, ValueError):
                traceback.print_exc()
            status, answer = cast(Server, self.server).failure(error)
            self._send(status, json.dumps(answer).encode(), JSON)
        else:
            if isinstance(out, bytes):
                self._send(200, out, content_type)
            else:
                self._stream(out, content_type)

    def _stream(self, pieces: Generator[bytes, None, None], content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in pieces:
                if piece:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception:
            # The answer has begun: without its last chunk the caller sees that it is not whole.
            traceback.print_exc()
            self.close_connection = True
        finally:
            pieces.close()

    def _fail(self, status: int, reason: str) -> None:
        self._send(status, json.dumps({"error": reason}).encode(), JSON)

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        # The log is the model's own; a line a ping would drown it.
        pass


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Serve a model directory over /ping and /invocations.")
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--code", type=Path, help="directory of the program (default: MODEL_DIR/code)")
    parser.add_argument("--program", default="inference.py")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0 picks a free one")
    parser.add_argument("--port-file", type=Path, help="written once the port is bound")
    parser.add_argument("--server", choices=("toolkit", "huggingface", "lmi"), default="toolkit")
    options = parser.parse_args(arguments)
    # Siblings of this file must not be importable as top-level modules by the model's code.
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [path for path in sys.path if path != here]

    failures = {"toolkit": toolkit_failure, "huggingface": huggingface_failure, "lmi": lmi_failure}
    server = Server((options.host, options.port), _Handler)
    server.failure = failures[options.server]
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    if options.port_file:
        part = options.port_file.with_suffix(".part")
        part.write_text(str(server.server_port))
        part.replace(options.port_file)
    try:
        if options.server == "lmi":
            server.model = LmiModel(options.model_dir)
        else:
            kind = HuggingFaceModel if options.server == "huggingface" else Model
            server.model = kind(options.model_dir, options.code or options.model_dir / "code", options.program)
    except Exception as error:
        traceback.print_exc()
        print(f"the model could not be loaded: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"serving {'LMI' if options.server == 'lmi' else options.program} on port {server.server_port}", flush=True)
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
