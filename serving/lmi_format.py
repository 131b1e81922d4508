"""Between our request contract and vLLM's completions, for LMI's formatters (model.py). Runs in the LMI container.

    {"inputs": "turn on the lamp"}  ->  {"prompt": [1, 529, ...], "max_tokens": 128, "temperature": 0.0, ...}
    CompletionResponse              ->  [{"generated_text": "..."}], or OpenAI's answer to a request in OpenAI's form

The prompt goes as token ids, those that the handler would use: a text would get a second beginning-of-sequence token.
All sampling parameters are said, so that neither LMI's defaults (30 tokens) nor those of the model's
generation_config.json are left to answer. LMI calls the formatter of the answer without the request, so what that
needs is kept here by the request's id, which comes back as the answer's.

LMI answers any failure with 424, and drops the reason of a formatter that raises; see `_Refused`.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from answers import Answer, Piece
from chat_request import Request, check
from encoding import encode

from common.prompts import end_of_turn

MOST_OPEN = 4096
"""Requests that are remembered; one whose caller went away is never closed, and makes room in the end."""
_REASONS = {"length": "length", "stop": "eos_token"}


class _Refused(dict[str, Any]):
    """A request that LMI may not take. It looks into it next, outside of what hides the reason, and learns it there."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    def __contains__(self, key: object) -> bool:
        raise ValueError(self._reason)


@dataclass(frozen=True)
class Server:
    """What it was started with: tokens that prompt and answer may have together, and the trained chat template."""

    context: int
    chat_template: str | None


@dataclass
class _Open:
    """A request under way."""

    request: Request
    answer: Answer
    text: str = ""
    tokens: int = 0


_open: OrderedDict[str, _Open] = OrderedDict()


def server(folder: Path) -> Server:
    """What the folder of model.py and the environment say; serving.properties goes before OPTION_*, as in LMI."""
    template, properties = folder / "chat_template.jinja", folder / "serving.properties"
    lines = properties.read_text(encoding="utf-8").splitlines() if properties.is_file() else []
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    context = said.get("option.max_model_len") or os.environ.get("OPTION_MAX_MODEL_LEN") or 2**31
    return Server(int(context), template.read_text(encoding="utf-8") if template.is_file() else None)


def to_vllm(payload: Any, tokenizer: Any, server: Server) -> dict[str, Any]:
    """vLLM's completion request. One that is refused is a dictionary that raises ValueError when it is looked into."""
    try:
        request = check(payload)
        prompt = encode(tokenizer, request, server.context, chat_template=server.chat_template)
        end = end_of_turn(tokenizer, server.chat_template)
    except ValueError as error:
        return _Refused(str(error))
    answer = Answer(request, len(prompt))
    _open[answer.identity] = _Open(request, answer)
    while len(_open) > MOST_OPEN:
        _open.popitem(last=False)
    return {
        "prompt": prompt,
        "add_special_tokens": False,
        "max_tokens": request.max_new_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "min_p": 0.0,
        "repetition_penalty": request.repetition_penalty,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": request.seed,
        "stop": list(request.stop),
        # The base model's settings may not name it, and an adapter brings no settings.
        "stop_token_ids": [] if end is None else [end],
        "stream": request.stream,
        "return_token_ids": True,
        "request_id": answer.identity,
    }


def from_vllm(response: Any) -> str:
    """The answer's JSON, the lines for a chunk of a stream, or nothing for its end. ValueError for vLLM's refusal."""
    if isinstance(response, str):
        try:
            return _lines(response.removeprefix("data:").strip())
        except ValueError as error:
            # LMI's loop over a stream doesn't catch: what is raised here leaves the client waiting for ever.
            return json.dumps({"error": str(error)}, ensure_ascii=False)
    found = response.model_dump()
    if "choices" not in found:
        raise ValueError(_reason(found))
    under_way = _of(found)
    choice = found["choices"][0]
    tokens = found["usage"]["completion_tokens"]
    return json.dumps(under_way.answer.whole(choice["text"], _finish(choice), tokens), ensure_ascii=False)


def _lines(chunk: str) -> str:
    if not chunk or chunk == "[DONE]":
        return ""
    found = json.loads(chunk)
    if "choices" not in found:
        return json.dumps({"error": _reason(found)}, ensure_ascii=False)
    if not found["choices"]:
        return ""
    choice, under_way = found["choices"][0], _of(found, ended=found["choices"][0].get("finish_reason") is not None)
    under_way.text += choice["text"]
    tokens = choice.get("token_ids") or []
    # vLLM may put several tokens into a chunk: the last one has the text of all.
    pieces = [Piece(token, "") for token in tokens[:-1]]
    under_way.tokens += len(tokens)
    last, text = (tokens or [-1])[-1], choice["text"]
    if choice.get("finish_reason") is None:
        pieces.append(Piece(last, text))
    else:
        pieces.append(Piece(last, text, _finish(choice), under_way.text, under_way.tokens))
    lines = [line for piece in pieces for line in under_way.answer.lines(piece)]
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)


def _of(found: dict[str, Any], *, ended: bool = True) -> _Open:
    """What is remembered of the request that an answer belongs to."""
    identity = str(found["id"]).removeprefix("cmpl-")
    under_way = _open.get(identity)
    if under_way is None:
        raise ValueError(f"the answer {identity} belongs to no request")
    if ended:
        del _open[identity]
    return under_way


def _finish(choice: dict[str, Any]) -> str:
    """vLLM's finish_reason in our words; a stop text is its stop_reason."""
    if isinstance(choice.get("stop_reason"), str):
        return "stop_sequence"
    return _REASONS.get(choice["finish_reason"], "length")


def _reason(found: dict[str, Any]) -> str:
    error = found.get("error", found)
    return str(error.get("message", error) if isinstance(error, dict) else error)
