"""A localcloud with a tiny model that stands in for Bedrock's, a trainer of its own, and data of each family."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from localcloud import LocalCloud, control

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/bedrock"
MICRO = "amazon.nova-micro-v1:0"
LLAMA = "meta.llama3-1-8b-instruct-v1:0"
HAIKU = "anthropic.claude-haiku-4-5-20251001-v1:0"
ENDED = ("Completed", "Failed", "Stopped")
ANSWER = "the light is on"
PATIENCE = 120.0
TEMPLATE = (
    "<s>{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama that speaks bytes, in Hugging Face's layout."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "model"
    letters = {char: number for number, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 2)}
    bytes_ = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, **letters}, []))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    weights = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, eos_token_id=1, **sizes)
    )
    with torch.no_grad():
        weights.lm_head.weight[1].fill_(0)  # random weights draw the end by chance
    weights.generation_config = GenerationConfig(eos_token_id=1)
    weights.save_pretrained(folder)
    return folder


class Bedrock:
    """A running localcloud and short ways to use Bedrock in it."""

    def __init__(self, at: LocalCloud | control.Info) -> None:
        self.at = at
        self._open: dict[tuple[str, str], Any] = {}

    def __call__(self, service: str = "bedrock", region: str = "us-east-1") -> Any:
        if (service, region) not in self._open:
            self._open[service, region] = boto3.client(
                service,
                endpoint_url=self.at.url,
                region_name=region,
                aws_access_key_id=ACCOUNT,
                aws_secret_access_key=self.at.secret,
                config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
            )
        return self._open[service, region]

    @property
    def cloud(self) -> LocalCloud:
        """The one in this process."""
        assert isinstance(self.at, LocalCloud)
        return self.at

    @property
    def runtime(self) -> Any:
        return self("bedrock-runtime")

    def close(self) -> None:
        for client in self._open.values():
            client.close()

    def put(self, key: str, body: str | bytes) -> str:
        """An object in the bucket `data`; its URI."""
        self("s3").put_object(Bucket="data", Key=key, Body=body)
        return f"s3://data/{key}"

    def object(self, key: str) -> str:
        found: bytes = self("s3").get_object(Bucket="data", Key=key)["Body"].read()
        return found.decode()

    def job(self, name: str, data: str, region: str = "us-east-1", **changes: Any) -> str:
        """Start a customization job over rows of training data; its ARN."""
        request: dict[str, Any] = {
            "jobName": name,
            "customModelName": f"{name}-model",
            "roleArn": ROLE,
            "baseModelIdentifier": f"{MICRO}:128k",
            "trainingDataConfig": {"s3Uri": self.put(f"{name}/train.jsonl", data)},
            "outputDataConfig": {"s3Uri": "s3://data/output"},
        }
        arn: str = self("bedrock", region).create_model_customization_job(**{**request, **changes})["jobArn"]
        return arn

    def ended(self, arn: str, region: str = "us-east-1") -> dict[str, Any]:
        """A customization job at its end."""
        bedrock = self("bedrock", region)
        return until(lambda: bedrock.get_model_customization_job(jobIdentifier=arn), lambda job: job["status"] in ENDED)


def until(look: Callable[[], dict[str, Any]], good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Look until it is good; AssertionError with the last look when it never is."""
    deadline, pause = time.monotonic() + PATIENCE, 0.02
    while True:
        seen = look()
        if good(seen):
            return seen
        assert time.monotonic() < deadline, f"still {seen!r}"
        time.sleep(pause)
        pause = min(1.5 * pause, 0.2)


def conversations(count: int = 8, answer: str = ANSWER) -> str:
    """Rows in Bedrock's own form."""
    row = {
        "schemaVersion": "bedrock-conversation-2024",
        "messages": [
            {"role": "user", "content": [{"text": "turn it on"}]},
            {"role": "assistant", "content": [{"text": answer}]},
        ],
    }
    return f"{json.dumps(row)}\n" * count


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def status(error: pytest.ExceptionInfo[ClientError]) -> int:
    return int(error.value.response["ResponseMetadata"]["HTTPStatusCode"])


def configured(tiny: Path, at: Path, **more: Any) -> str:
    """A file for LOCALCLOUD_BEDROCK."""
    trainer = [sys.executable, str(Path(__file__).with_name("trainer.py"))]
    at.write_text(json.dumps({"model": str(tiny), "train": trainer, **more}))
    return str(at)


@pytest.fixture(scope="module")
def bedrock(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bedrock]:
    """One localcloud for a module, whose clock is fast."""
    folder = tmp_path_factory.mktemp("bedrock")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LOCALCLOUD_BEDROCK", configured(tiny, folder / "bedrock.json"))
        patched.setenv("LOCALCLOUD_STOP_GRACE_SECONDS", "0.5")
        with LocalCloud(folder / "home", clock_speed=100) as cloud:
            found = Bedrock(cloud)
            found("s3").create_bucket(Bucket="data")
            yield found
            found.close()
