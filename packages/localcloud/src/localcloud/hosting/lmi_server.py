"""An LMI container's answers: its contract, its defaults, its formatters, its 424. Runs in the model server's process.

    python -m localcloud.hosting.toolkit_server --server lmi --model-dir DIR

Sources: DJL Serving 0.36, engines/python/setup/djl_python: lmi_vllm/vllm_async_service.py,
custom_formatter_handling.py, adapter_formatter_mixin.py, service_loader.py; Request.java for what a failure looks like
on the wire. Not covered: a model.py with a `handle` or SageMaker's functions, embeddings, sessions, several adapters in
one process.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from localcloud.hosting import lmi_requests
from localcloud.hosting.lmi_engine import Engine
from localcloud.hosting.lmi_options import read_options

JSON, JSON_LINES = "application/json", "application/jsonlines"
Formatter = Callable[..., Any]


class Failed(Exception):
    """What LMI answers with 424."""


class Formatters:
    """The formatters in a directory's model.py, if there is one."""

    def __init__(self, directory: Path, namespace: str) -> None:
        self.read: Formatter | None = None
        self.write: Formatter | None = None
        path = directory / "model.py"
        if not path.is_file():
            return
        # Each is looked for in a module of its own, of the same name, as LMI does.
        self.read = _decorated(_module(path, namespace), "is_input_formatter")
        self.write = _decorated(_module(path, namespace), "is_output_formatter")
        if self.read is None and self.write is None:
            raise RuntimeError(
                f"{path} has neither an input_formatter nor an output_formatter: not hosted by localcloud"
            )


class Lmi:
    """A loaded model behind LMI's contract."""

    def __init__(self, model_dir: Path) -> None:
        sys.path.insert(0, str(Path(__file__).parent / "djl"))
        adapter = os.environ.get("SAGEMAKER_ADAPTER_DIR")
        self._base = Formatters(model_dir, "base")
        self._own = Formatters(Path(adapter), "adapter") if adapter else self._base
        self.engine = Engine(model_dir, read_options(model_dir, os.environ), Path(adapter) if adapter else None)

    def answer(self, body: bytes, content_type: str, accept: str) -> tuple[bytes | Iterator[str], str]:
        """(the answer or the lines of a stream, its content type); Failed with what LMI says."""
        write = self._own.write or self._base.write
        try:
            call = lmi_requests.read(self._formatted(_decode(body, content_type)), self.engine)
        except Failed:
            raise
        except Exception as error:
            raise Failed(f"Input parsing failed: {error}") from error
        steps = self.engine.generate(call.prompt, lmi_requests.sampling(call))
        if call.request.stream:
            if write is not None:
                chunks = lmi_requests.chunks(call, steps)
                return (_text(write(chunk)) + "\n" for chunk in chunks), JSON_LINES
            if call.lmi:
                return (line + "\n" for line in lmi_requests.lmi_lines(call, steps)), JSON_LINES
            found = (chunk[6:].strip() for chunk in lmi_requests.chunks(call, steps))
            return (("" if line == "[DONE]" else line) + "\n" for line in found), JSON_LINES
        done = list(steps)
        if write is not None:
            try:
                answer = _text(write(lmi_requests.whole(call, done)))
            except Exception as error:
                raise Failed("Custom output formatter execution failed") from error
        elif call.lmi:
            answer = json.dumps(lmi_requests.lmi_answer(call, done), ensure_ascii=False)
        else:
            answer = lmi_requests.whole(call, done).model_dump_json()
        return answer.encode() + b"\n", JSON

    def _formatted(self, payload: Any) -> dict[str, Any]:
        if "adapters" in payload:
            name = payload.pop("adapters")
            if not os.environ.get("SAGEMAKER_ADAPTER_DIR"):
                raise ValueError(f"LoRA adapter {name} not found in registry. Available adapters: []")
        read = self._own.read or self._base.read
        if read is not None:
            try:
                payload = read(payload, tokenizer=self.engine.tokenizer)
            except Exception as error:
                # LMI drops the formatter's own reason.
                raise Failed("Custom formatter failed: Custom input formatter execution failed") from error
        if "model" not in payload:
            payload["model"] = lmi_requests.MODEL
        if payload["model"] != lmi_requests.MODEL:
            raise ValueError(f"The model `{payload['model']}` does not exist.")
        found: dict[str, Any] = payload
        return found


def failure(error: Exception) -> tuple[int, dict[str, Any]]:
    """How LMI answers a failure: status and body."""
    return 424, {"code": 424, "error": str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"}


def _decode(body: bytes, content_type: str) -> Any:
    if JSON in content_type:
        return json.loads(body.decode("utf-8"))
    if "text/plain" in content_type:
        return {"inputs": [body.decode("utf-8")]}
    raise ValueError(f"localcloud's LMI takes {JSON} and text/plain, not {content_type[:100]}")


def _text(formatted: Any) -> str:
    return formatted if isinstance(formatted, str) else json.dumps(formatted, ensure_ascii=False)


def _module(path: Path, namespace: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ns_{namespace}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _decorated(module: ModuleType, mark: str) -> Formatter | None:
    for name in dir(module):
        found = getattr(module, name)
        if callable(found) and getattr(found, mark, False):
            formatter: Formatter = found
            return formatter
    return None
