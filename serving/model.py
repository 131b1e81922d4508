"""LMI's formatters: a request in our contract to vLLM's, vLLM's answer to ours. Runs in the LMI container.

LMI loads `model.py` beside the weights (/opt/ml/model/model.py), and the one in an adapter's archive for the requests
that go to the adapter. It is copied there from code/, which has all that it needs:

    model.py  chat_template.jinja  code/model.py  code/lmi_format.py  code/chat_request.py ...  code/common/prompts.py

LMI runs this file several times, and a new version's adapter comes into a process that has an old version's modules.
So they are found by what is in them, not by their names.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from djl_python.input_parser import input_formatter  # type: ignore[import-not-found]
from djl_python.output_formatter import output_formatter  # type: ignore[import-not-found]

_HERE = Path(__file__).resolve().parent


def _ours(folder: Path) -> ModuleType:
    """lmi_format of a folder, with the modules beside it and no others of their names."""
    files = sorted(path for path in folder.rglob("*.py"))
    if not files:
        # Not a ValueError: LMI takes one for "there is no model.py" and answers without it.
        raise RuntimeError(f"{folder} is empty: model.py needs the serving code there")
    content = b"\0".join(str(path).encode() + b"\0" + path.read_bytes() for path in files)
    name = f"fmops_lmi_format_{hashlib.sha256(content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    own = {"common", *(path.stem for path in folder.glob("*.py"))}
    hidden = {key: sys.modules.pop(key) for key in list(sys.modules) if key.split(".")[0] in own}
    sys.path.insert(0, str(folder))
    try:
        module: ModuleType = __import__("lmi_format")
    finally:
        sys.path.remove(str(folder))
        for key in [key for key in sys.modules if key.split(".")[0] in own]:
            del sys.modules[key]
        sys.modules.update(hidden)
    sys.modules[name] = module
    return module


def _load() -> tuple[ModuleType, Any]:
    """The formatter and what the server was started with. No ValueError comes out, see above: LMI would answer raw."""
    try:
        module = _ours(_HERE / "code")
        return module, module.server(_HERE)
    except ValueError as error:
        raise RuntimeError(f"model.py can't be used, so nothing is answered: {error}") from error


_FORMAT, _SERVER = _load()


@input_formatter  # type: ignore[untyped-decorator]
def read_request(decoded_payload: Any, tokenizer: Any = None, **_: Any) -> dict[str, Any]:
    """What LMI gets from the client, as vLLM's completion request."""
    request: dict[str, Any] = _FORMAT.to_vllm(decoded_payload, tokenizer, _SERVER)
    return request


@output_formatter  # type: ignore[untyped-decorator]
def write_answer(response: Any) -> str:
    """What vLLM answers, whole or a chunk of a stream, as our contract's JSON."""
    answer: str = _FORMAT.from_vllm(response)
    return answer
