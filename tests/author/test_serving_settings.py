"""The LMI image's environment, and the GPU table against the API's own instance types."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.loaders import Loader

from common import machines
from common.machines import gpu_count, is_gpu
from configuration import serving_settings
from configuration.serving_settings import lmi_environment


@pytest.fixture(scope="module")
def hosting_types() -> set[str]:
    model = Loader().load_service_model("sagemaker", "service-2")
    return set(model["shapes"]["ProductionVariantInstanceType"]["enum"])


def test_the_table_has_every_size_that_sagemaker_hosts_on(hosting_types: set[str]) -> None:
    listed = {f"ml.{family}.{size}" for family, sizes in machines.GPUS.items() for size in sizes}
    families = tuple(f"ml.{family}." for family in machines.GPUS)
    assert {name for name in hosting_types if name.startswith(families)} == listed
    assert len(listed) >= 30


def test_what_has_gpus(hosting_types: set[str]) -> None:
    others = ("m", "c", "r", "t", "inf", "trn", "i", "d", "x", "u", "z")
    found = {name for name in hosting_types if is_gpu(name)}
    assert len(found) > 40
    assert not [name for name in found if name.removeprefix("ml.").startswith(others)]
    for name in ("ml.g5.xlarge", "ml.p4d.24xlarge", "ml.g6e.12xlarge", "ml.p3.2xlarge", "ml.gr6.4xlarge"):
        assert is_gpu(name)
    for name in ("ml.m5.xlarge", "ml.inf2.xlarge", "ml.trn1.2xlarge", "ml.c7g.large", "g5.xlarge", "", "ml.g5"):
        assert not is_gpu(name)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("ml.g4dn.12xlarge", 4),
        ("ml.g4dn.16xlarge", 1),
        ("ml.g5.2xlarge", 1),
        ("ml.g5.48xlarge", 8),
        ("ml.g6.24xlarge", 4),
        ("ml.p4de.24xlarge", 8),
        ("ml.p5.4xlarge", 1),
        ("ml.p5en.48xlarge", 8),
        ("ml.m5.xlarge", 0),
    ],
)
def test_gpu_counts(name: str, count: int) -> None:
    assert gpu_count(name) == count


def test_an_unknown_gpu_type_is_not_guessed() -> None:
    with pytest.raises(ValueError, match=r"number of GPUs of ml\.p9\.48xlarge is not known.*ml\.p4d\.\{24xlarge\}"):
        gpu_count("ml.p9.48xlarge")


def test_the_environment_of_merged_weights() -> None:
    assert lmi_environment("ml.g5.12xlarge", max_seq_length=4096) == {
        "HF_MODEL_ID": "/opt/ml/model",
        "OPTION_ASYNC_MODE": "true",
        "OPTION_ROLLING_BATCH": "disable",
        "OPTION_ENTRYPOINT": "djl_python.lmi_vllm.vllm_async_service",
        "OPTION_DTYPE": "bf16",
        "OPTION_TENSOR_PARALLEL_DEGREE": "4",
        "OPTION_MAX_MODEL_LEN": "4096",
        "OPTION_MAX_ROLLING_BATCH_SIZE": "64",
        "SERVING_FAIL_FAST": "true",
    }


@pytest.mark.parametrize(("rank", "most"), [(1, "8"), (8, "8"), (16, "16"), (20, "32"), (257, "320"), (512, "512")])
def test_adapters_add_lora_settings_with_a_rank_that_vllm_knows(rank: int, most: str) -> None:
    plain = lmi_environment("ml.g5.xlarge", max_seq_length=1024)
    with_adapters = lmi_environment("ml.g5.xlarge", max_seq_length=1024, adapters=True, lora_rank=rank)
    added = {"OPTION_ENABLE_LORA": "true", "OPTION_MAX_LORAS": "4", "OPTION_MAX_LORA_RANK": most}
    assert with_adapters == plain | added


def test_the_model_is_spread_over_all_gpus_and_every_value_is_text() -> None:
    found = lmi_environment("ml.p4d.24xlarge", max_seq_length=8192, adapters=True)
    assert found["OPTION_TENSOR_PARALLEL_DEGREE"] == "8"
    assert (found["OPTION_MAX_ROLLING_BATCH_SIZE"], found["OPTION_MAX_LORAS"]) == ("64", "4")
    assert all(isinstance(value, str) for value in found.values())


@pytest.mark.parametrize(
    ("instance_type", "more", "said"),
    [
        ("ml.m5.xlarge", {}, "ml.m5.xlarge has no GPU"),
        ("ml.g5.xlarge", {"adapters": True, "lora_rank": 513}, "lora_rank is 513; vLLM takes at most 512"),
    ],
)
def test_what_cannot_work_is_refused(instance_type: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        lmi_environment(instance_type, **{"max_seq_length": 1024, **more})
    assert said in str(caught.value)


def test_the_sdk_knows_the_image() -> None:
    from sagemaker.core import image_uris

    uri = image_uris.retrieve(
        "djl-lmi", "eu-west-1", version=serving_settings.LMI_VERSION, instance_type="ml.g5.xlarge"
    )
    assert uri.endswith("djl-inference:0.36.0-lmi27.0.0-cu130")


@pytest.mark.parametrize(
    ("machine", "kind"), [("ml.g4dn.xlarge", "fp32"), ("ml.g5.xlarge", "bf16"), ("ml.p4d.24xlarge", "bf16")]
)
def test_vllm_computes_as_training_and_evaluation_do(machine: str, kind: str) -> None:
    """A T4 only emulates bf16; left to itself vLLM would take fp16 there."""
    assert lmi_environment(machine, max_seq_length=1024)["OPTION_DTYPE"] == kind


def test_the_handler_has_one_worker() -> None:
    """Multi Model Server would start one for each vCPU, each with a model of its own."""
    from steps.register import server_environment

    build: Any = SimpleNamespace(config=SimpleNamespace(server="handler"))
    assert server_environment(build) == {
        "SAGEMAKER_PROGRAM": "inference.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "1",
    }
