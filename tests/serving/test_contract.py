"""The request contract: what clients send, in both forms, means the same and is refused in the same words."""

from __future__ import annotations

import json
import time
from types import ModuleType
from typing import Any

import pytest

MESSAGES = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "set the kitchen lights"}]
TOOL = {"type": "function", "function": {"name": "HassTurnOn", "parameters": {"type": "object", "properties": {}}}}


def ask(inference: ModuleType, model: Any, body: dict[str, Any]) -> Any:
    request = inference.input_fn(json.dumps(body), "application/json")
    return json.loads(inference.output_fn(inference.predict_fn(request, model), "application/json"))


def stream(inference: ModuleType, model: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
    request = inference.input_fn(json.dumps(body | {"stream": True}), "application/json")
    lines, content_type = inference.output_fn(inference.predict_fn(request, model), "*/*")
    assert content_type == "application/jsonlines"
    return [json.loads(line) for line in lines]


def test_openais_form_means_the_same_and_gets_openais_answer(inference: ModuleType, lively: Any) -> None:
    (plain,) = ask(inference, lively, {"inputs": MESSAGES, "parameters": {"max_new_tokens": 9, "details": True}})
    answer = ask(inference, lively, {"messages": MESSAGES, "max_tokens": 9, "model": "any", "user": "me"})
    assert set(answer) == {"id", "object", "created", "model", "choices", "usage"}
    assert answer["object"] == "chat.completion"
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": plain["generated_text"]}
    assert (choice["index"], choice["finish_reason"]) == (0, "length")
    assert plain["details"] == {"finish_reason": "length", "generated_tokens": 9}
    prompt = len(lively._encode(inference.input_fn(json.dumps({"messages": MESSAGES}))))
    assert answer["usage"] == {"prompt_tokens": prompt, "completion_tokens": 9, "total_tokens": prompt + 9}


def test_a_stream_in_openais_form(inference: ModuleType, lively: Any) -> None:
    body = {"messages": MESSAGES, "max_tokens": 9}
    whole = ask(inference, lively, body)["choices"][0]["message"]["content"]
    chunks = stream(inference, lively, body | {"stream_options": {"include_usage": True}})
    *texts, usage = chunks
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in texts) == whole
    assert texts[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in texts] == [None] * (len(texts) - 1) + ["length"]
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 9)
    assert all(chunk["choices"] for chunk in stream(inference, lively, body)), "no numbers unless asked for"


def test_finish_reasons(inference: ModuleType, lively: Any) -> None:
    body = {"messages": MESSAGES, "max_tokens": 30}
    text = ask(inference, lively, body)["choices"][0]["message"]["content"]
    stopped = ask(inference, lively, body | {"stop": text[4:6]})["choices"][0]
    assert (stopped["finish_reason"], stopped["message"]["content"]) == ("stop", text[: text.find(text[4:6])])
    (details,) = ask(
        inference,
        lively,
        {"inputs": MESSAGES, "parameters": {"max_new_tokens": 30, "stop": text[4:6], "details": True}},
    )
    assert details["details"]["finish_reason"] == "stop_sequence"


def test_return_full_text_puts_the_sent_text_before(inference: ModuleType, lively: Any) -> None:
    body = {"inputs": "set light 4", "parameters": {"max_new_tokens": 6}}
    (answer,) = ask(inference, lively, body)
    body["parameters"] = {"max_new_tokens": 6, "return_full_text": True}
    assert ask(inference, lively, body) == [{"generated_text": "set light 4" + answer["generated_text"]}]
    assert stream(inference, lively, body)[-1]["generated_text"] == "set light 4" + answer["generated_text"]


def test_top_k_and_the_repetition_penalty_reach_the_model(inference: ModuleType, lively: Any) -> None:
    def text(**parameters: Any) -> str:
        found = ask(inference, lively, {"inputs": "set light 4", "parameters": {"max_new_tokens": 20, **parameters}})
        return str(found[0]["generated_text"])

    assert text(temperature=2.0, top_k=1) == text(), "the likeliest of one is the likeliest"
    assert len({text(temperature=2.0, top_k=50, seed=seed) for seed in range(4)}) > 1
    assert text(top_k=0) == text(top_k=-1) == text(repetition_penalty=1.0) == text()
    assert text(repetition_penalty=5.0) != text()


# What LangChain, LiteLLM, huggingface_hub and the OpenAI SDK put into a request besides what was asked.
@pytest.mark.parametrize(
    "body",
    [
        {
            "inputs": "hi",
            "parameters": {"watermark": False, "details": False, "best_of": None, "return_full_text": False},
        },
        {
            "inputs": "hi",
            "parameters": {"typical_p": 1.0, "frequency_penalty": 0.0, "n": 1, "num_beams": 1, "seed": None},
        },
        {"inputs": "hi", "parameters": {"max_tokens": 4, "stop": ["</s>"], "decoder_input_details": False}},
        {"messages": MESSAGES, "model": "sagemaker", "stream": False, "n": 1, "presence_penalty": 0, "logprobs": False},
        {"messages": MESSAGES, "max_completion_tokens": 5, "max_tokens": None, "top_p": 0.9, "tool_choice": "auto"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
        {"messages": [{"role": "user", "content": "hi", "name": None}], "temperature": 0.7, "top_k": 40},
    ],
)
def test_what_clients_send_is_taken(inference: ModuleType, body: dict[str, Any]) -> None:
    request = inference.input_fn(json.dumps(body))
    assert request.messages[-1]["role"] == "user"
    assert request.max_new_tokens in (4, 5, 128)


def test_texts_in_parts_are_lines(inference: ModuleType) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = inference.input_fn(json.dumps({"messages": [{"role": "user", "content": parts}]}))
    assert request.messages == ({"role": "user", "content": "a\nb"},)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"top_k": 2.5}, "top_k is 2.5; allowed: a whole number from -1 to 1000000"),
        ({"top_k": -2}, "top_k is -2; allowed"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; allowed: a number from 0.1 to 10"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty is inf"),
        ({"max_new_tokens": 4, "max_tokens": 5}, "max_new_tokens and max_tokens differ, though they mean the same"),
        ({"max_tokens": 0}, "max_tokens is 0; allowed: a whole number from 1 to 1024"),
        ({"n": 2}, "n is 2, which this server can't do; allowed: 1"),
        ({"n": True}, "n is True, which this server can't do"),
        ({"watermark": True}, "watermark is True, which this server can't do; allowed: false"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is 0.5"),
        ({"stop": ["x" * 1001]}, "stop must be a text or a list"),
        ({"stop": ["a"] * 9}, "at most 8 texts"),
    ],
)
def test_both_forms_refuse_in_the_same_words(inference: ModuleType, parameters: dict[str, Any], said: str) -> None:
    reasons = []
    for body in ({"inputs": MESSAGES, "parameters": parameters}, {"messages": MESSAGES, **parameters}):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            inference.input_fn(json.dumps(body))
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]
    assert said in reasons[0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": "hi", "messages": MESSAGES}, "the body must be"),
        ({"messages": "hi"}, "messages must be a list of messages, not a text"),
        ({"messages": []}, "not an empty list"),
        ({"messages": MESSAGES, "parameters": {}}, "unknown key parameters; allowed: messages,"),
        ({"messages": MESSAGES, "model": 3}, "model must be a text, not a number"),
        ({"messages": MESSAGES, "tool_choice": "required"}, "tool_choice is 'required'; allowed: auto, none"),
        ({"messages": MESSAGES, "stream_options": []}, "stream_options must be an object"),
        ({"messages": MESSAGES, "stream_options": {"x": 1}}, "unknown key in stream_options x"),
        ({"messages": MESSAGES, "tools": [{"name": "f"}]}, "tools[0] must be"),
        ({"messages": MESSAGES, "tools": {}}, "tools must be a list of at most 128 definitions"),
        ({"inputs": MESSAGES, "parameters": {"return_full_text": True}}, "which needs inputs to be a text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role is 'tool'; allowed: system, user, assistant"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "has a part that is not"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "unknown key in messages[0] tool_calls"),
    ],
)
def test_refusals(inference: ModuleType, body: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        inference.input_fn(json.dumps(body))
    assert said in str(caught.value)


def test_tools_reach_the_template(inference: ModuleType, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}{{ messages[-1].content }}"
    monkeypatch.setattr(model.tokenizer, "chat_template", template)
    for body in ({"inputs": "hi"}, {"messages": [{"role": "user", "content": "hi"}]}):
        with_tools = model._encode(inference.input_fn(json.dumps(body | {"tools": [TOOL]})))
        assert model.tokenizer.decode(with_tools) == "[HassTurnOn]hi"
    none = {"messages": [{"role": "user", "content": "hi"}], "tools": [TOOL], "tool_choice": "none"}
    assert model.tokenizer.decode(model._encode(inference.input_fn(json.dumps(none)))) == "hi"


def test_a_prompt_beyond_all_room_is_refused_before_it_is_tokenized(
    inference: ModuleType, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = inference.input_fn(json.dumps({"inputs": "x" * 4_000_000}))
    begin = time.process_time()
    with pytest.raises(ValueError, match=r"the prompt has 40000\d\d characters .* together they may be 1024"):
        model._encode(request)
    assert time.process_time() - begin < 1
