"""Requests to LMI's vLLM handler as it takes them apart, and its answers: lmi_vllm/vllm_async_service.py, 0.36.

    {"inputs": text, "parameters": {...}}   a completion of the text as it stands: 30 tokens, vLLM's sampling
    {"prompt": text or ids, ...}            the same in vLLM's own words: 16 tokens
    {"messages": [...], ...}                a chat: the chat template, as many tokens as there is room for

vLLM checks types with pydantic, lenient, and leaves unknown names alone: so does this.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from localcloud.hosting.lmi_engine import Engine, Sampling, Step

MODEL = "lmi"


class _Request(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: str | None = None
    n: int = 1
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: str | list[str] | None = []
    stop_token_ids: list[int] | None = []
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    request_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    return_token_ids: bool | None = None
    add_special_tokens: bool = True


class CompletionRequest(_Request):
    """vLLM's completion request, as far as this server heeds it."""

    prompt: list[int] | list[list[int]] | str | list[str]
    max_tokens: int | None = 16
    echo: bool | None = False


class ChatRequest(_Request):
    """vLLM's chat completion request, as far as this server heeds it."""

    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None


class Response(dict[str, Any]):
    """An answer as an output formatter gets it: vLLM's is a pydantic model."""

    def model_dump(self) -> dict[str, Any]:
        return dict(self)

    def model_dump_json(self) -> str:
        return json.dumps(self, ensure_ascii=False)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True)
class Call:
    """A request on its way to the engine. `lmi` is in LMI's own form: so is its answer."""

    request: CompletionRequest | ChatRequest
    prompt: list[int]
    tokens: int
    lmi: bool = False
    details: bool = False
    before: str = ""

    @property
    def chat(self) -> bool:
        return isinstance(self.request, ChatRequest)


def read(payload: dict[str, Any], engine: Engine) -> Call:
    """A decoded and formatted payload as a call. Any exception is a 424."""
    if "prompt" in payload:
        return _completion(CompletionRequest(**payload), engine)
    if "inputs" in payload:
        parameters = dict(payload.get("parameters", {}))
        given: dict[str, Any] = {
            "prompt": payload["inputs"],
            "max_tokens": parameters.pop("max_new_tokens", 30),
            "stream": payload.get("stream", False),
        }
        full, details = parameters.pop("return_full_text", False), parameters.pop("details", False)
        if parameters.pop("do_sample", None) is False:
            parameters["temperature"] = 0.0
        call = _completion(CompletionRequest(**{**given, **parameters}), engine)
        before = str(payload["inputs"]) if full else ""
        return Call(call.request, call.prompt, call.tokens, lmi=True, details=bool(details), before=before)
    if "messages" in payload:
        chat = ChatRequest(**payload)
        prompt = engine.chat(chat.messages, chat.tools)
        wanted = chat.max_completion_tokens or chat.max_tokens
        return Call(chat, prompt, engine.room(prompt, wanted))
    raise RuntimeError("invalid payload. must contain prompt, inputs, or messages")


def _completion(request: CompletionRequest, engine: Engine) -> Call:
    prompt: Any = request.prompt
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        prompt = prompt[0]  # LMI answers the first of several
    ids = engine.encode(prompt, request.add_special_tokens) if isinstance(prompt, str) else list(prompt)
    return Call(request, ids, engine.room(ids, request.max_tokens))


def sampling(call: Call) -> Sampling:
    """How vLLM would draw tokens: what the request says, then the model's generation_config.json, then its default."""
    request = call.request
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    said = {name: value for name in names if (value := getattr(request, name)) is not None}
    return Sampling(call.tokens, request.seed, tuple(stops), said, tuple(request.stop_token_ids or ()))


def whole(call: Call, steps: list[Step]) -> Response:
    """vLLM's answer."""
    text, last = "".join(step.text for step in steps), steps[-1]
    generated = [step.token for step in steps]
    choice: dict[str, Any] = {"index": 0, "finish_reason": last.finish_reason, "stop_reason": last.stop_reason}
    if call.chat:
        choice |= {"message": {"role": "assistant", "content": text}, "logprobs": None}
    else:
        choice |= {"text": text, "logprobs": None, "token_ids": generated if call.request.return_token_ids else None}
    return Response(**_head(call, stream=False), choices=[choice], usage=_usage(call, len(generated)))


def chunks(call: Call, steps: Iterator[Step]) -> Iterator[str]:
    """vLLM's stream: server-sent events; `stream_options: {"include_usage": true}` adds one with the usage."""
    first, count = True, 0
    head = _head(call, stream=True)
    for step in steps:
        choice: dict[str, Any] = {"index": 0, "finish_reason": step.finish_reason, "stop_reason": step.stop_reason}
        if call.chat:
            choice["delta"] = ({"role": "assistant"} if first else {}) | {"content": step.text}
        else:
            choice |= {"text": step.text, "token_ids": [step.token], "logprobs": None}
        first, count = False, count + 1
        yield f"data: {json.dumps({**head, 'choices': [choice]}, ensure_ascii=False)}\n\n"
    if (call.request.stream_options or {}).get("include_usage"):
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': _usage(call, count)})}\n\n"
    yield "data: [DONE]\n\n"


def lmi_answer(call: Call, steps: list[Step]) -> dict[str, Any]:
    """The answer in LMI's own form: an object."""
    answer: dict[str, Any] = {"generated_text": call.before + "".join(step.text for step in steps)}
    if call.details:
        tokens = [{"id": step.token, "text": step.text} for step in steps]
        reason = steps[-1].stop_reason
        answer["details"] = {"finish_reason": reason, "generated_tokens": len(steps), "prefill": [], "tokens": tokens}
    return answer


def lmi_lines(call: Call, steps: Iterator[Step]) -> Iterator[str]:
    """A stream in LMI's own form."""
    text, count = call.before, 0
    for step in steps:
        text, count = text + step.text, count + 1
        line: dict[str, Any] = {"index": 0, "token": {"id": step.token, "text": step.text}}
        line |= {"generated_text": None, "details": None}
        if step.finish_reason is not None:
            line["generated_text"] = text
            if call.details:
                line["details"] = {"finish_reason": step.finish_reason, "generated_tokens": count}
        yield json.dumps(line, ensure_ascii=False)


def _usage(call: Call, generated: int) -> dict[str, int]:
    prompt = len(call.prompt)
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}


def _head(call: Call, *, stream: bool) -> dict[str, Any]:
    kind = "chatcmpl" if call.chat else "cmpl"
    what = ("chat.completion.chunk" if stream else "chat.completion") if call.chat else "text_completion"
    return {"id": f"{kind}-{call.request.request_id}", "object": what, "created": int(time.time()), "model": MODEL}
