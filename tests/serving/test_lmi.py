"""One contract on both servers: the handler, and an LMI container with our formatters in its model archive.

The LMI side is localcloud's shadow of it, whose rules are read from DJL Serving's source (docs/fidelity.md).
"""

from __future__ import annotations

import importlib
import json
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from configuration.code import bundle
from localcloud.hosting.lmi_server import Failed, Formatters, Lmi
from tests.serving.test_server import payloads

TOOLS = [{"type": "function", "function": {"name": "HassTurnOn", "parameters": {"type": "object"}}}]
TEMPLATES = {
    "chatml": None,
    "begins with bos": "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] ",
    "tools": "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"
    "{{ messages | map(attribute='content') | join(' ') }}",
    "no system role": "{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}<model>",
}


def requests() -> Iterator[dict[str, Any]]:
    """50 requests, each form by turns: texts, messages, systems, tools, samples, stops."""
    for number in range(50):
        text = f"set light {number} to {number * 7 % 100} percent" + " please" * (number % 3)
        messages: list[dict[str, str]] = [{"role": "user", "content": text}]
        if number % 4 == 1:
            messages.insert(0, {"role": "system", "content": "Answer with a tool call."})
        if number % 5 == 2:
            messages += [{"role": "assistant", "content": "{}"}, {"role": "user", "content": "and again"}]
        more: dict[str, Any] = {}
        if number % 7 == 3:
            more["repetition_penalty"] = 1.3
        if number % 9 == 4:
            more["stop"] = ["e", "ing"]
        extra: dict[str, Any] = {"tools": TOOLS} if number % 6 == 5 else {}
        length = 4 + number % 9
        if number % 2:
            yield {"messages": messages, "max_tokens": length, **more, **extra}
        elif number % 4:
            yield {"inputs": messages, "parameters": {"max_new_tokens": length, "details": True, **more}, **extra}
        else:
            yield {
                "inputs": text,
                "parameters": {"max_new_tokens": length, "return_full_text": number % 8 == 0, **more},
            }


@pytest.fixture(scope="module")
def archive(lively_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory as train.py writes it."""
    folder = tmp_path_factory.mktemp("lmi") / "model"
    shutil.copytree(lively_weights, folder)
    bundle("serving", folder / "code")
    shutil.copyfile(folder / "code" / "model.py", folder / "model.py")
    (folder / "serving.properties").write_text("option.max_model_len=256\n")
    return folder


@pytest.fixture(scope="module")
def handler(inference: ModuleType, archive: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMOPS_CACHE_TOKENS", "256")
        model = inference.model_fn(str(archive))
    model.context, model._limit = 256, "the model's context"
    yield model
    model.close()


@pytest.fixture(scope="module")
def lmi(archive: Path) -> Iterator[Lmi]:
    before = list(sys.path)
    yield Lmi(archive)
    sys.path[:] = before


def of_handler(inference: ModuleType, model: Any, body: dict[str, Any]) -> Any:
    out = inference.output_fn(inference.predict_fn(inference.input_fn(json.dumps(body)), model), "*/*")
    return [json.loads(line) for line in out[0]] if isinstance(out, tuple) else json.loads(out)


def of_lmi(lmi: Lmi, body: dict[str, Any]) -> Any:
    out, _ = lmi.answer(json.dumps(body).encode(), "application/json", "*/*")
    return (
        json.loads(out) if isinstance(out, bytes) else [json.loads(line) for line in "".join(out).split("\n") if line]
    )


def plain(answer: Any) -> Any:
    """Without what differs between any two answers."""
    if isinstance(answer, list):
        return [plain(item) for item in answer]
    return {key: value for key, value in answer.items() if key not in ("id", "created")}


@pytest.mark.parametrize("template", TEMPLATES)
def test_fifty_prompts_have_the_same_tokens_and_the_same_answers(
    inference: ModuleType, handler: Any, lmi: Lmi, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    generate = lmi.engine.generate
    monkeypatch.setattr(lmi.engine, "generate", lambda ids, how: seen.append(ids) or generate(ids, how))  # type: ignore[func-returns-value]
    read = lmi._base.read
    assert read is not None
    if TEMPLATES[template] is not None:
        server = sys.modules[read.__module__]._FORMAT.Server(256, TEMPLATES[template])
        monkeypatch.setitem(read.__globals__, "_SERVER", server)
        monkeypatch.setattr(handler.tokenizer, "chat_template", TEMPLATES[template])
    answered = refused = 0
    for body in requests():
        if template != "tools" and "tools" in body:
            same_refusal(inference, handler, lmi, body)
            refused += 1
            continue
        expected = plain(of_handler(inference, handler, body))
        assert plain(of_lmi(lmi, body)) == expected, body
        assert seen.pop() == handler._encode(inference.input_fn(json.dumps(body)))
        answered += 1
        body["stream"] = True
        assert said(of_lmi(lmi, body)) == said(of_handler(inference, handler, body))
    assert (answered + refused, refused > 0) == (50, template != "tools")


def test_a_seed_and_a_temperature_reach_vllm(lmi: Lmi) -> None:
    body = {"inputs": "set light 3", "parameters": {"max_new_tokens": 12, "temperature": 1.5, "seed": 5, "top_k": 50}}
    assert of_lmi(lmi, body) == of_lmi(lmi, body)
    body["parameters"]["top_k"] = 1  # type: ignore[index]
    assert of_lmi(lmi, body) == of_lmi(lmi, {"inputs": "set light 3", "parameters": {"max_new_tokens": 12}})


def said(lines: list[dict[str, Any]]) -> Any:
    """A stream as a whole: how long a text that may become a stop text is held back is each server's own."""
    if "choices" in lines[0]:
        choices = [line["choices"][0] for line in lines]
        texts = [choice["delta"].get("content", "") for choice in choices]
        return "".join(texts), len(lines), [choice["finish_reason"] for choice in choices]
    text = "".join(line["token"]["text"] for line in lines)
    return text, [line["token"]["id"] for line in lines], lines[-1]["generated_text"], lines[-1]["details"]


def same_refusal(inference: ModuleType, handler: Any, lmi: Lmi, body: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as ours:  # noqa: PT011
        of_handler(inference, handler, body)
    with pytest.raises(Failed) as theirs:
        of_lmi(lmi, body)
    assert str(theirs.value) == f"Input parsing failed: {ours.value}"


BAD: list[dict[str, Any]] = [
    {},
    {"inputs": ""},
    {"inputs": None},
    {"inputs": "hi", "messages": []},
    {"inputs": "hi", "parameters": {"temperature": float("nan")}},
    {"inputs": "hi", "parameters": {"max_new_tokens": 10**30}},
    {"inputs": "hi", "parameters": {"top_q": 1}},
    {"inputs": "light " * 300},
    {"messages": [{"role": "robot", "content": "hi"}]},
    {"messages": [{"role": "user", "content": "hi"}], "n": 2},
    {"prompt": "raw"},
    {"inputs": "\ud800"},
]


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
def test_both_servers_refuse_in_the_same_words(
    inference: ModuleType, handler: Any, lmi: Lmi, body: dict[str, Any]
) -> None:
    same_refusal(inference, handler, lmi, body)


def refusal(lmi: Lmi, body: bytes) -> str:
    """What a 424 says; nothing where there is an answer."""
    try:
        out, _ = lmi.answer(body, "application/json", "*/*")
        assert isinstance(out, bytes) or list(out)
    except Failed as failed:
        return str(failed)
    return ""


def test_no_payload_is_more_than_a_424(lmi: Lmi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_MAX_NEW_TOKENS", "16")
    counts = {"answered": 0, "refused": 0}
    for body in payloads(random.Random(20261125)):
        begin = time.process_time()
        said = refusal(lmi, body)
        counts["refused" if said else "answered"] += 1
        assert "\n" not in said
        assert len(said) < 1000
        assert time.process_time() - begin < 5, body[:200]
    assert counts["refused"] > 200
    assert sum(counts.values()) > 300


def test_what_vllm_itself_refuses_is_no_answer(lmi: Lmi) -> None:
    write = lmi._base.write
    assert write is not None
    error = type("ErrorResponse", (), {"model_dump": lambda self: {"error": {"message": "no room", "code": 400}}})()
    with pytest.raises(ValueError, match="no room"):
        write(error)
    assert json.loads(write('data: {"error": {"message": "no room"}}\n\n')) == {"error": "no room"}
    assert write("data: [DONE]\n\n") == ""


def test_what_callers_left_behind_is_bounded(archive: Path, lmi: Lmi) -> None:
    read = lmi._base.read
    assert read is not None
    format_ = sys.modules[read.__module__]._FORMAT
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(format_, "MOST_OPEN", 5)
        for _ in range(9):
            read({"inputs": "hi"}, tokenizer=lmi.engine.tokenizer)
        assert len(format_._open) == 5
    format_._open.clear()


def test_formatters_of_two_versions_live_beside_each_other(archive: Path, tmp_path: Path) -> None:
    """A new version's adapter comes into a process that has an old one's modules; nothing of either stays by name."""
    sys.path.insert(0, str(Path(importlib.import_module("localcloud.hosting").__file__ or "").parent / "djl"))
    try:
        folders = []
        for name in ("old", "new"):
            folder = tmp_path / name
            shutil.copytree(archive / "code", folder / "code")
            shutil.copyfile(archive / "model.py", folder / "model.py")
            folders.append(folder)
        bounds = folders[1] / "code" / "common" / "answer_bounds.py"
        bounds.write_text(bounds.read_text().replace("DEFAULT_NEW_TOKENS = 128", "DEFAULT_NEW_TOKENS = 7"))
        (folders[1] / "chat_template.jinja").write_text("{{ messages[0].content }}")
        formatters = [Formatters(folder, folder.name) for folder in folders]
    finally:
        sys.path.pop(0)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(archive)
    reads = [found.read for found in formatters if found.read is not None]
    old, new, again = (read({"inputs": "hi"}, tokenizer=tokenizer) for read in (*reads, reads[0]))
    assert (old["max_tokens"], new["max_tokens"], again["max_tokens"]) == (128, 7, 128)
    assert tokenizer.decode(new["prompt"]) == "hi"
    assert old["prompt"] == again["prompt"] != new["prompt"]
    assert "lmi_format" not in sys.modules


def test_a_formatter_without_its_code_ends_the_server(archive: Path, tmp_path: Path, lmi: Lmi) -> None:
    shutil.copyfile(archive / "model.py", tmp_path / "model.py")
    with pytest.raises(RuntimeError, match=r"is empty: model\.py needs the serving code there"):
        Formatters(tmp_path, "bare")


@pytest.mark.parametrize(
    "damage", ["OPTION_MAX_MODEL_LEN=auto", "OPTION_MAX_MODEL_LEN=32k", "template not UTF-8", "code"]
)
def test_whatever_is_wrong_at_the_load_ends_the_server(
    archive: Path, tmp_path: Path, lmi: Lmi, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """LMI takes a ValueError at the import for "there is no model.py", and would answer without the contract."""
    shutil.copytree(archive / "code", tmp_path / "code")
    shutil.copyfile(archive / "model.py", tmp_path / "model.py")
    if damage.startswith("OPTION"):
        monkeypatch.setenv(*damage.split("="))
    elif damage == "code":
        (tmp_path / "code" / "answers.py").write_text("raise ValueError('no')")
    else:
        (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(RuntimeError, match=r"model\.py can't be used, so nothing is answered"):
        Formatters(tmp_path, f"damaged-{damage}")


def test_a_stream_of_a_forgotten_request_ends_with_an_error(lmi: Lmi) -> None:
    """What a formatter raises in LMI's loop over a stream leaves the client waiting."""
    write = lmi._base.write
    assert write is not None
    chunk = {"id": "cmpl-nobody", "choices": [{"text": "x", "finish_reason": None}]}
    assert "belongs to no request" in json.loads(write(f"data: {json.dumps(chunk)}\n\n"))["error"]
    assert "error" in json.loads(write("data: {damaged\n\n"))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft 0.21 asks transformers 5.23 for a renamed attribute
def test_an_adapter_answers_with_its_own_formatters_and_template_over_a_bare_base(
    inference: ModuleType, archive: Path, lively_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mode adapter: the base model's directory has neither formatters nor, here, the template that was trained with."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(2)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(lively_weights),
        LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False),
    )
    adapter = tmp_path / "adapter"
    adapted.save_pretrained(adapter, save_embedding_layers=False)
    shutil.copytree(archive / "code", adapter / "code")
    shutil.copyfile(archive / "model.py", adapter / "model.py")
    (adapter / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    monkeypatch.setenv("SAGEMAKER_ADAPTER_DIR", str(adapter))
    monkeypatch.setenv("OPTION_MAX_MODEL_LEN", "100")
    monkeypatch.setattr(sys, "path", list(sys.path))
    lmi = Lmi(lively_weights)
    handler = inference.model_fn(str(lively_weights))
    body = {"inputs": "set light 3", "parameters": {"max_new_tokens": 9}}
    assert of_lmi(lmi, body) == of_handler(inference, handler, body)
    assert lmi.engine.tokenizer.chat_template != handler.tokenizer.chat_template
    with pytest.raises(Failed, match="together they may be 100"):
        of_lmi(lmi, {"inputs": "set light 3", "parameters": {"max_new_tokens": 99}})
