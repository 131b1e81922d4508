"""The inference toolkit's four functions, called as the toolkit calls them, on a real tiny model."""

from __future__ import annotations

import json
import math
import shutil
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from common.failure import JobError

MESSAGES = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "set the kitchen lights"}]


def ask(inference: ModuleType, model: Any, inputs: Any, **parameters: Any) -> str:
    body = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    answer = json.loads(
        inference.output_fn(
            inference.predict_fn(inference.input_fn(body, "application/json"), model), "application/json"
        )
    )
    assert len(answer) == 1
    assert set(answer[0]) == {"generated_text"}
    text: str = answer[0]["generated_text"]
    return text


def stream(inference: ModuleType, model: Any, inputs: Any, **parameters: Any) -> list[dict[str, Any]]:
    """The lines of a streamed answer."""
    request = inference.input_fn(json.dumps({"inputs": inputs, "parameters": parameters, "stream": True}))
    lines, content_type = inference.output_fn(inference.predict_fn(request, model), "*/*")
    assert content_type == "application/jsonlines"
    found = [json.loads(line) for line in lines]
    assert all(set(line) == {"token"} for line in found[:-1])
    assert "".join(line["token"]["text"] for line in found) == found[-1]["generated_text"]
    return found


def reference(model: Any, messages: list[dict[str, str]], new_tokens: int) -> str:
    """Greedy decoding spelled out, without generate()."""
    import torch

    tokenizer = model.tokenizer
    ids = tokenizer(
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False), add_special_tokens=False
    )["input_ids"]
    start = len(ids)
    for _ in range(new_tokens):
        with torch.no_grad():
            following = int(model.model(torch.tensor([ids])).logits[0, -1].argmax())
        if following == tokenizer.eos_token_id:
            break
        ids.append(following)
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True))


def test_greedy_by_default_and_only_the_new_text(inference: ModuleType, model: Any) -> None:
    expected = reference(model, MESSAGES, 12)
    assert ask(inference, model, MESSAGES, max_new_tokens=12) == expected
    assert ask(inference, model, MESSAGES, max_new_tokens=12, temperature=0, top_p=0.5) == expected
    assert ask(inference, model, "hi there", max_new_tokens=6) == reference(
        model, [{"role": "user", "content": "hi there"}], 6
    )


def test_default_length(inference: ModuleType) -> None:
    request = inference.input_fn('{"inputs": "hi"}')
    assert (request.max_new_tokens, request.temperature, request.stop) == (128, 0.0, ())
    assert inference.input_fn('{"inputs": "hi", "parameters": null}').max_new_tokens == 128


def test_the_length_limit_is_the_environments(inference: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inference.input_fn('{"inputs": "hi", "parameters": {"max_new_tokens": 1024}}').max_new_tokens == 1024
    monkeypatch.setenv("FMOPS_MAX_NEW_TOKENS", "16")
    assert inference.input_fn('{"inputs": "hi"}').max_new_tokens == 16
    with pytest.raises(ValueError, match="max_new_tokens is 17; allowed: a whole number from 1 to 16"):
        inference.input_fn('{"inputs": "hi", "parameters": {"max_new_tokens": 17}}')


def test_sampling_differs_from_greedy(inference: ModuleType, model: Any) -> None:
    import torch

    torch.manual_seed(0)
    sampled = {ask(inference, model, "hi", max_new_tokens=10, temperature=2.0) for _ in range(4)}
    assert len(sampled) > 1
    assert ask(inference, model, "hi", max_new_tokens=10, temperature=1.0, top_p=0.001) == ask(
        inference, model, "hi", max_new_tokens=10
    )


def test_stop_ends_before_the_first_stop_text(inference: ModuleType, model: Any) -> None:
    whole = ask(inference, model, MESSAGES, max_new_tokens=40)
    stop = whole[5:8]
    stopped = ask(inference, model, MESSAGES, max_new_tokens=40, stop=["never there", stop])
    assert stopped == whole[: whole.find(stop)]
    assert ask(inference, model, MESSAGES, max_new_tokens=40, stop="never there") == whole
    last = stream(inference, model, MESSAGES, max_new_tokens=40, stop=stop)[-1]
    assert last["details"]["finish_reason"] == "stop_sequence"
    assert last["details"]["generated_tokens"] < 40, "generation ends there, it is not only cut"


def test_end_token_ends_the_answer(inference: ModuleType, base: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        # Embeddings for which the end token always wins: the answer is empty.
        weights.model.norm.weight.zero_()
        weights.lm_head.weight.zero_()
    weights.generation_config.eos_token_id = [0, 5]
    weights.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    model = inference.model_fn(str(tmp_path))
    assert ask(inference, model, "hi", max_new_tokens=10) == ""
    last = stream(inference, model, "hi", max_new_tokens=10)[-1]
    assert last["details"] == {"finish_reason": "eos_token", "generated_tokens": 1}


def test_too_long_names_both_numbers(inference: ModuleType, model: Any) -> None:
    with pytest.raises(
        ValueError, match=r"the prompt has \d{4} tokens and max_new_tokens is 100; together they may be 1024"
    ):
        ask(inference, model, "lights " * 1100, max_new_tokens=100)
    assert ask(inference, model, "hi", max_new_tokens=1) is not None, "the model is still usable"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        ("[]", '"inputs"'),
        ("{}", '"inputs"'),
        ('{"inputs": "hi", "streams": true}', "unknown key streams; allowed: inputs, parameters, stream"),
        ('{"inputs": "hi", "stream": 1}', "stream is 1; allowed: true, false"),
        (r'{"inputs": "\ud800"}', "inputs is not valid Unicode at character 0"),
        (b'{"inputs": "' + b"x" * (6 << 20) + b'"}', "at most 6291456 are allowed"),
        ('{"inputs": ""}', "inputs is empty"),
        ('{"inputs": 3}', "inputs must be a text or a list of messages, not a number"),
        ('{"inputs": []}', "not an empty list"),
        ('{"inputs": ["hi"]}', "inputs[0] must be"),
        (
            '{"inputs": [{"role": "tool", "content": "x"}]}',
            "inputs[0].role is 'tool'; allowed: system, user, assistant",
        ),
        ('{"inputs": [{"role": "user", "content": "x", "name": "y"}]}', "unknown key in inputs[0] name"),
        ('{"inputs": [{"role": "assistant", "content": "x"}]}', "there is nothing to answer"),
        ('{"inputs": "hi", "parameters": []}', "parameters must be an object"),
        (
            '{"inputs": "hi", "parameters": {"top_q": 3}}',
            "unknown parameter top_q; allowed: max_new_tokens, max_tokens, max_completion_tokens, temperature, top_p,",
        ),
        ('{"inputs": "hi", "parameters": {"max_new_tokens": 0}}', "max_new_tokens is 0"),
        ('{"inputs": "hi", "parameters": {"max_new_tokens": true}}', "max_new_tokens is True"),
        ('{"inputs": "hi", "parameters": {"max_new_tokens": "10"}}', "max_new_tokens is '10'"),
        ('{"inputs": "hi", "parameters": {"max_new_tokens": 2.0}}', "max_new_tokens is 2.0"),
        ('{"inputs": "hi", "parameters": {"temperature": -1}}', "temperature is -1; allowed: a number from 0 to 5"),
        ('{"inputs": "hi", "parameters": {"temperature": NaN}}', "temperature is nan"),
        ('{"inputs": "hi", "parameters": {"temperature": 1%s}}' % ("0" * 400), "temperature is 1000"),
        ('{"inputs": "hi", "parameters": {"do_sample": 1}}', "do_sample is 1; allowed: true, false"),
        ('{"inputs": "hi", "parameters": {"do_sample": true, "temperature": 0}}', "temperature is 0: leave one"),
        ('{"inputs": "hi", "parameters": {"seed": -1}}', "seed is -1; allowed: a whole number from 0"),
        ('{"inputs": "hi", "parameters": {"top_p": 1.5}}', "top_p is 1.5"),
        ('{"inputs": "hi", "parameters": {"top_p": 0}}', "top_p is 0"),
        ('{"inputs": "hi", "parameters": {"stop": [""]}}', "stop must be a text or a list"),
        ('{"inputs": "hi", "parameters": {"stop": 3}}', "stop must be a text or a list"),
    ],
)
def test_bad_requests_say_what_is_wrong(inference: ModuleType, body: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        inference.input_fn(body, "application/json")
    assert said in str(caught.value)


def test_media_types(inference: ModuleType) -> None:
    assert inference.input_fn('{"inputs": "hi"}', "application/json; charset=utf-8").messages[0]["content"] == "hi"
    with pytest.raises(ValueError, match="content type 'text/csv' is not supported"):
        inference.input_fn("hi", "text/csv")
    assert json.loads(inference.output_fn([{"generated_text": "é"}], "*/*")) == [{"generated_text": "é"}]
    with pytest.raises(ValueError, match="accept 'text/html' is not supported"):
        inference.output_fn([], "text/html")


def test_many_threads_get_their_own_answers(inference: ModuleType, lively: Any) -> None:
    model = lively
    prompts = [f"set light {number} to {number * 3} percent" for number in range(8)]
    expected = [ask(inference, model, prompt, max_new_tokens=8) for prompt in prompts]
    answers: dict[int, str] = {}

    def worker(number: int) -> None:
        answers[number] = ask(inference, model, prompts[number], max_new_tokens=8)

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[number] for number in range(len(prompts))] == expected
    assert len(set(expected)) > 1


@pytest.fixture
def adapter_only(base: Path, tmp_path: Path) -> Path:
    """What train.py writes with merge=false: tokenizer and adapter/, with an adapter that changes the answers."""
    import warnings

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base),
            LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    adapted.peft_config["default"].base_model_name_or_path = "base"
    adapted.save_pretrained(folder / "adapter", save_embedding_layers=False)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def test_an_adapter_is_applied_to_its_base_model(
    inference: ModuleType, model: Any, base: Path, adapter_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMOPS_BASE_MODEL_DIR", str(base))
    tuned = inference.model_fn(str(adapter_only))
    answer = ask(inference, tuned, MESSAGES, max_new_tokens=12)
    assert answer == reference(tuned, MESSAGES, 12)
    assert answer != ask(inference, model, MESSAGES, max_new_tokens=12)


def test_an_adapter_component_is_applied_to_the_model(
    inference: ModuleType, base: Path, adapter_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMOPS_BASE_MODEL_DIR", str(base))
    merged = ask(inference, inference.model_fn(str(adapter_only)), MESSAGES, max_new_tokens=12)
    monkeypatch.setenv("SAGEMAKER_ADAPTER_DIR", str(adapter_only / "adapter"))
    assert ask(inference, inference.model_fn(str(base)), MESSAGES, max_new_tokens=12) == merged
    with pytest.raises(RuntimeError, match="holds no base weights, only an adapter"):
        inference.model_fn(str(adapter_only))
    monkeypatch.setenv("SAGEMAKER_ADAPTER_DIR", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"is no PEFT adapter: it has no adapter_config\.json"):
        inference.model_fn(str(base))


def test_an_adapter_component_brings_the_template_that_it_was_trained_with(
    inference: ModuleType, base: Path, adapter_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_only / "adapter"
    (adapter / "chat_template.jinja").write_text("<s>{{ messages[-1].content }}</s>")
    monkeypatch.setenv("SAGEMAKER_ADAPTER_DIR", str(adapter))
    tuned = inference.model_fn(str(base))
    prompt = tuned._encode(inference.input_fn('{"inputs": "hi"}'))
    assert tuned.tokenizer.decode(prompt) == "<s>hi</s>"


def test_sampling_can_be_switched_off_and_on(inference: ModuleType) -> None:
    off = inference.input_fn('{"inputs": "hi", "parameters": {"do_sample": false, "temperature": 2}}')
    on = inference.input_fn('{"inputs": "hi", "parameters": {"do_sample": true, "seed": 4}}')
    assert (off.temperature, on.temperature, on.seed) == (0.0, 1.0, 4)


def test_a_server_that_cannot_stream_says_so(
    inference: ModuleType, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mms", ModuleType("mms"))
    request = inference.input_fn('{"inputs": "hi", "stream": true, "parameters": {"max_new_tokens": 2}}')
    with pytest.raises(ValueError, match="this container's server can't stream"):
        inference.predict_fn(request, model)


def test_what_cannot_be_loaded_is_said(
    inference: ModuleType, base: Path, adapter_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMOPS_BASE_MODEL_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(RuntimeError, match="holds only an adapter and its base model is not in"):
        inference.model_fn(str(adapter_only))
    weights = adapter_only / "adapter" / "adapter_model.safetensors"
    weights.rename(weights.with_name("adapter_model.bin"))
    with pytest.raises(RuntimeError, match="holds no model"):
        inference.model_fn(str(adapter_only))
    pickled = tmp_path / "pickled"
    shutil.copytree(base, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(JobError, match="safetensors"):
        inference.model_fn(str(pickled))


def test_temperature_is_finite(inference: ModuleType) -> None:
    with pytest.raises(ValueError, match="temperature is inf"):
        inference.input_fn(json.dumps({"inputs": "hi", "parameters": {"temperature": math.inf}}))
