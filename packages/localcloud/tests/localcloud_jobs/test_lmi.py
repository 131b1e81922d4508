"""AWS's LMI image: its own contract where the model brings no formatter, its options, and the errors of each server.

What is expected here stands in DJL Serving 0.36: lmi_vllm/vllm_async_service.py, request_response_utils.py (30 tokens,
an object), Request.java (424), ModelInfo.java (serving.properties before OPTION_*).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localcloud.errors import AwsError
from localcloud.hosting.lmi_options import Options, check_adapter, gpus_of, read_options
from localcloud.hosting.lmi_server import Failed, Lmi
from localcloud_jobs.conftest import ROLE, Bench, until
from localcloud_jobs.test_endpoints import HANDLER, archive, invoke, make_config, make_model, settled
from localcloud_jobs.test_inference_components import NEEDS, WEIGHTS, component, serve

REGISTRY = "763104351884.dkr.ecr.eu-west-1.amazonaws.com"
LMI = f"{REGISTRY}/djl-inference:0.36.0-lmi27.0.0-cu130"
HUGGING_FACE = f"{REGISTRY}/huggingface-pytorch-inference:2.6.0-transformers5.5.3-cpu"
MESSAGES = [{"role": "user", "content": "turn on the light"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose answers vary, with a chat template and sampling of its own."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("lmi") / "model"
    letters = {char: number for number, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 2)}
    bytes_ = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, **letters}, []))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = "<s>{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    weights = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, eos_token_id=1, **sizes)
    )
    with torch.no_grad():
        for parameter in weights.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    weights.generation_config = GenerationConfig(eos_token_id=1)
    weights.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def raw(model: Path) -> Iterator[Lmi]:
    before = list(sys.path)
    found = Lmi(model)
    found.engine._ends.clear()  # random weights draw the end token by chance
    yield found
    sys.path[:] = before


def ask(lmi: Lmi, body: Any) -> Any:
    out, kind = lmi.answer(json.dumps(body).encode(), "application/json", "*/*")
    if isinstance(out, bytes):
        assert kind == "application/json"
        return json.loads(out)
    assert kind == "application/jsonlines"
    return [json.loads(line) for line in "".join(out).split("\n") if line]


def test_a_text_is_completed_raw_with_thirty_tokens_and_sampled(raw: Lmi, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    generate = raw.engine.generate
    monkeypatch.setattr(raw.engine, "generate", lambda ids, how: seen.append(ids) or generate(ids, how))  # type: ignore[func-returns-value]
    answer = ask(raw, {"inputs": "turn on", "parameters": {"details": True, "seed": 1, "ignored": 1}})
    assert seen == [raw.engine.tokenizer("turn on")["input_ids"]], "no chat template"
    assert set(answer) == {"generated_text", "details"}
    assert answer["details"]["generated_tokens"] == 30
    several = {ask(raw, {"inputs": "turn on"})["generated_text"] for _ in range(4)}
    assert len(several) > 1, "vLLM samples with temperature 1"
    greedy = [ask(raw, {"inputs": "turn on", "parameters": {"do_sample": False}}) for _ in range(2)]
    assert greedy[0] == greedy[1] == ask(raw, {"inputs": "turn on", "parameters": {"temperature": 0}})
    full = ask(raw, {"inputs": "turn on", "parameters": {"do_sample": False, "return_full_text": True}})
    assert full == {"generated_text": "turn on" + greedy[0]["generated_text"]}


def test_messages_go_through_the_template_and_have_the_rest_of_the_context(raw: Lmi) -> None:
    answer = ask(raw, {"messages": MESSAGES, "temperature": 0})
    prompt = len(raw.engine.chat(MESSAGES, None))
    assert answer["object"] == "chat.completion"
    assert answer["usage"] == {"prompt_tokens": prompt, "completion_tokens": 256 - prompt, "total_tokens": 256}
    lines = ask(raw, {"messages": MESSAGES, "temperature": 0, "max_tokens": 5, "stream": True})
    text = "".join(line["choices"][0]["delta"]["content"] for line in lines)
    assert answer["choices"][0]["message"]["content"].startswith(text.rstrip("\ufffd"))
    lines = ask(raw, {"inputs": "turn on", "parameters": {"max_new_tokens": 4}, "stream": True})
    assert [line["generated_text"] is not None for line in lines] == [False, False, False, True]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": MESSAGES}, "validation error"),
        ({"inputs": "x" * 250}, "This model's maximum context length is 256 tokens"),
        ({"inputs": "x", "parameters": {"temperature": "warm"}}, "temperature"),
        ({"inputs": "x", "parameters": {"temperature": -1}}, "temperature must be non-negative"),
        ({"inputs": "x", "parameters": {"top_p": 0}}, "top_p must be in"),
        ({"text": "x"}, "invalid payload. must contain prompt, inputs, or messages"),
        ({"inputs": "x", "model": "other"}, "The model `other` does not exist."),
        ({"inputs": "x", "adapters": "mine"}, "LoRA adapter mine not found in registry"),
        ({"prompt": [99999]}, "out of vocabulary"),
        ([], "list indices"),
        (3, "not iterable"),
    ],
)
def test_what_lmi_refuses(raw: Lmi, body: Any, said: str) -> None:
    with pytest.raises((Failed, ValueError)) as caught:
        ask(raw, body)
    assert said in str(caught.value)


def test_options_are_the_files_then_the_environments(tmp_path: Path) -> None:
    environment = {"OPTION_MAX_MODEL_LEN": "512", "OPTION_ENABLE_LORA": "true", "OPTION_DTYPE": "bf16", "OTHER": "1"}
    assert read_options(tmp_path, environment) == Options(512, "bf16", True)
    (tmp_path / "serving.properties").write_text("engine=Python\noption.max_model_len = 1024\n# option.dtype=fp32\n")
    assert read_options(tmp_path, environment).max_model_len == 1024
    for name, value in (("MAX_MODEL_LEN", "long"), ("MAX_LORA_RANK", "24"), ("DTYPE", "int4"), ("MAX_LORA_RANK", "0")):
        with pytest.raises(ValueError, match=f"{name.lower()} is .* takes"):
            read_options(tmp_path / "none", {f"OPTION_{name}": value})
    with pytest.raises(ValueError, match="without OPTION_ENABLE_LORA=true"):
        check_adapter(Options(), 8)
    with pytest.raises(ValueError, match="its rank is 17, and its base model's server takes 16 at most"):
        check_adapter(Options(enable_lora=True), 17)


def test_more_context_than_positions_does_not_start(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTION_MAX_MODEL_LEN", "257")
    with pytest.raises(ValueError, match="max_model_len is 257, and the model has 256 positions"):
        Lmi(model)


@pytest.mark.parametrize(
    ("machine", "count"),
    [("ml.g5.xlarge", 1), ("ml.g5.12xlarge", 4), ("ml.g6e.48xlarge", 8), ("ml.p4d.24xlarge", 8), ("ml.m5.large", 0)],
)
def test_gpus_of_a_machine(machine: str, count: int) -> None:
    assert gpus_of(machine) == count


def make_lmi(bench: Bench, name: str, model: Path, **environment: str) -> None:
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    uri = bench.put(f"models/{name}/model.tar.gz", archive(files))
    container = {"Image": LMI, "ModelDataUrl": uri, "Environment": {"HF_MODEL_ID": "/opt/ml/model", **environment}}
    bench.call("CreateModel", ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)


def make_endpoint(bench: Bench, name: str, machine: str) -> dict[str, Any]:
    variant = {"VariantName": "All", "ModelName": name, "InstanceType": machine, "InitialInstanceCount": 1}
    bench.call("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[variant])
    bench.call("CreateEndpoint", EndpointName=name, EndpointConfigName=name)
    return settled(bench, name)


def counted(bench: Bench, metric: str, endpoint: str) -> float:
    with bench.delegate.lock:
        found = [(name, value, dimensions) for _, name, value, dimensions in bench.delegate.metrics]
    return sum(value for name, value, where in found if name == metric and where.get("EndpointName") == endpoint)


def test_an_lmi_endpoint_answers_424_and_is_counted(bench: Bench, model: Path) -> None:
    make_lmi(bench, "lmi", model, OPTION_MAX_MODEL_LEN="64")
    endpoint = make_endpoint(bench, "lmi", "ml.g5.xlarge")
    assert endpoint["EndpointStatus"] == "InService", endpoint
    answer = json.loads(invoke(bench, "lmi", {"inputs": "hi", "parameters": {"max_new_tokens": 3}})["Body"])
    assert set(answer) == {"generated_text"}
    with pytest.raises(AwsError) as caught:
        invoke(bench, "lmi", {"inputs": "x" * 62})
    assert caught.value.extra["OriginalStatusCode"] == 424
    body = json.loads(caught.value.extra["OriginalMessage"])
    assert (body["code"], "maximum context length is 64" in body["error"]) == (424, True)
    until(lambda: counted(bench, "InvocationModelErrors", "lmi"), lambda found: found == 1)
    assert (counted(bench, "Invocation4XXErrors", "lmi"), counted(bench, "Invocation5XXErrors", "lmi")) == (1, 0)


def test_too_few_gpus_fail_the_endpoint(bench: Bench, model: Path) -> None:
    make_lmi(bench, "wide", model, OPTION_TENSOR_PARALLEL_DEGREE="4")
    endpoint = make_endpoint(bench, "wide", "ml.g5.xlarge")
    assert endpoint["EndpointStatus"] == "Failed"
    assert "vLLM needs 4 GPUs (OPTION_TENSOR_PARALLEL_DEGREE), and ml.g5.xlarge has 1" in endpoint["FailureReason"]


def test_an_adapter_beyond_the_servers_rank_is_refused(bench: Bench, model: Path) -> None:
    serve(bench)
    make_lmi(bench, "lora", model, OPTION_ENABLE_LORA="true", OPTION_MAX_LORA_RANK="8")
    needs = {**NEEDS, "NumberOfAcceleratorDevicesRequired": 1}
    for name, resources in (("none", NEEDS), ("base", needs)):
        bench.call(
            "CreateInferenceComponent",
            InferenceComponentName=name,
            EndpointName="house",
            VariantName="All",
            Specification={"ModelName": "lora", "ComputeResourceRequirements": resources},
            RuntimeConfig={"CopyCount": 1},
        )
    found = component(bench, "none")
    assert found["InferenceComponentStatus"] == "Failed"
    assert "vLLM needs 1 GPUs" in found["FailureReason"]
    assert component(bench, "base")["InferenceComponentStatus"] == "InService"
    config = json.dumps({"peft_type": "LORA", "r": 9})
    url = bench.put(
        "adapters/wide.tar.gz", archive({"adapter_config.json": config, "adapter_model.safetensors": WEIGHTS})
    )
    specification = {"BaseInferenceComponentName": "base", "Container": {"ArtifactUrl": url}}
    bench.call(
        "CreateInferenceComponent", InferenceComponentName="a", EndpointName="house", Specification=specification
    )
    found = component(bench, "a")
    assert found["InferenceComponentStatus"] == "Failed"
    assert "its rank is 9, and its base model's server takes 8 at most" in found["FailureReason"]


STREAMS = "\ndef output_fn(prediction, accept):\n    return iter([b'a', b'b'])\n"


def test_a_hugging_face_container_answers_400_to_every_exception(bench: Bench) -> None:
    make_model(bench, "hf", "hello", HANDLER, Image=HUGGING_FACE)
    make_model(bench, "hf-stream", "hello", HANDLER + STREAMS, Image=HUGGING_FACE)
    for name in ("hf", "hf-stream"):
        make_config(bench, name, {"AllTraffic": name})
        bench.call("CreateEndpoint", EndpointName=name, EndpointConfigName=name)
        assert settled(bench, name)["EndpointStatus"] == "InService"
    assert json.loads(invoke(bench, "hf", {"inputs": "world"})["Body"]) == [{"generated_text": "hello world"}]
    for body, reason in (({"inputs": "crash"}, "boom\nsecond line"), ({"x": 1}, "the request has no 'inputs'")):
        with pytest.raises(AwsError) as caught:
            invoke(bench, "hf", body)
        assert caught.value.extra["OriginalStatusCode"] == 400
        message = {"code": 400, "type": "InternalServerException", "message": reason}
        assert json.loads(caught.value.extra["OriginalMessage"]) == message
    until(lambda: counted(bench, "InvocationModelErrors", "hf"), lambda found: found == 2)
    assert (counted(bench, "Invocation4XXErrors", "hf"), counted(bench, "Invocation5XXErrors", "hf")) == (2, 0)
    with pytest.raises(AwsError) as caught:
        invoke(bench, "hf-stream", {"inputs": "world"})
    assert caught.value.extra["OriginalStatusCode"] == 503
