"""Asks a model that answers over an API: Amazon Bedrock (Converse) or a SageMaker endpoint. Runs in the processing
containers of evaluations, and on a laptop (`fmops evaluate`).

    remote = remote_of("endpoint:fmops-endpoint", at_once=8)
    remote.answer([{"role": "user", "content": "lights off"}], (), 64)    # Answer(text, input_tokens, ...)

A request is sent once: botocore's own retries are off, so that attempts are counted in one place (patience.py).
RemoteError says whether the same request may be answered later. Every answer is the likeliest one (temperature 0).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from common.failure import JobError
from common.rows import Message

CONNECT_SECONDS, READ_SECONDS = 10, 120
FORMS = "bedrock:<model id, inference profile or ARN> or endpoint:<name>[/<inference component>]"
PASSING = frozenset(
    {
        *("ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown", "Throttling"),
        *("ServiceUnavailable", "ServiceUnavailableException", "ModelNotReadyException", "ModelTimeoutException"),
        *("InternalFailure", "InternalServerException", "InternalDependencyException", "RequestTimeout"),
    }
)
"""Errors of Converse and InvokeEndpoint that pass: botocore's models and the API references' retry advice."""


class RemoteError(JobError):
    """A request that was not answered; `passing`: the same request may be answered later."""

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


@dataclass(frozen=True)
class Answer:
    """What a model said, what it cost, and the seconds from the request to the answer's last byte."""

    text: str
    input_tokens: int
    output_tokens: int
    seconds: float


class Remote(Protocol):
    """A model behind an API."""

    @property
    def where(self) -> str:
        """How `remote_of` names it."""

    def refusal(self, messages: Sequence[Message], tools: Sequence[Any]) -> str:
        """Why it can't be asked this; empty where it can."""

    def answer(self, messages: Sequence[Message], tools: Sequence[Any], max_tokens: int) -> Answer:
        """Sends one request. Raises RemoteError."""


@dataclass(frozen=True)
class BedrockRemote:
    """A model, inference profile, custom model deployment or provisioned throughput of Amazon Bedrock."""

    client: Any
    model: str

    @property
    def where(self) -> str:
        return f"bedrock:{self.model}"

    def refusal(self, messages: Sequence[Message], tools: Sequence[Any]) -> str:
        if tools or _calls(messages):
            return "Converse is asked for texts alone here: rows with tools, tool calls or their results are refused"
        return "" if any(message["role"] == "user" for message in messages) else "Converse needs a user's message"

    def answer(self, messages: Sequence[Message], tools: Sequence[Any], max_tokens: int) -> Answer:
        if reason := self.refusal(messages, tools):
            raise RemoteError(reason)
        system = [{"text": message["content"]} for message in messages if message["role"] == "system"]
        request: dict[str, Any] = {
            "modelId": self.model,
            "messages": [
                {"role": message["role"], "content": [{"text": message["content"]}]}
                for message in messages
                if message["role"] != "system"
            ],
            "inferenceConfig": {"maxTokens": max_tokens, "temperature": 0.0},
        }
        started = time.perf_counter()
        said = _asked(self.where, lambda: self.client.converse(**request, **({"system": system} if system else {})))
        seconds = time.perf_counter() - started
        # Reasoning is no part of the answer; a model that stopped before its first word has said nothing.
        text = "".join(block.get("text", "") for block in said["output"]["message"].get("content", ()))
        return Answer(text, said["usage"]["inputTokens"], said["usage"]["outputTokens"], seconds)


@dataclass(frozen=True)
class EndpointRemote:
    """A SageMaker endpoint that takes OpenAI's `messages`: docs/contracts.md, requests to an endpoint."""

    client: Any
    name: str
    component: str = ""

    @property
    def where(self) -> str:
        return f"endpoint:{self.name}" + (f"/{self.component}" if self.component else "")

    def refusal(self, messages: Sequence[Message], tools: Sequence[Any]) -> str:
        return "an endpoint takes tools, but no tool calls and no results of theirs" if _calls(messages) else ""

    def answer(self, messages: Sequence[Message], tools: Sequence[Any], max_tokens: int) -> Answer:
        if reason := self.refusal(messages, tools):
            raise RemoteError(reason)
        body: dict[str, Any] = {
            "messages": [{"role": message["role"], "content": message["content"]} for message in messages],
            "max_tokens": max_tokens,
            "temperature": 0,
            **({"tools": list(tools)} if tools else {}),
        }
        request = {"EndpointName": self.name, "ContentType": "application/json", "Body": json.dumps(body)}
        if self.component:
            request["InferenceComponentName"] = self.component
        started = time.perf_counter()
        # The body comes after the head: a connection may break in it, too.
        said = _asked(self.where, lambda: self.client.invoke_endpoint(**request)["Body"].read())
        seconds = time.perf_counter() - started
        try:
            found = json.loads(said)
            usage = found.get("usage") or {}
            text = found["choices"][0]["message"]["content"] or ""
            tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
            return Answer(str(text), *tokens, seconds)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise RemoteError(f"{self.where} answers in another form than OpenAI's: {error!r}") from None


def remote_of(where: str, at_once: int) -> Remote:
    """The model that `where` names (FORMS), which `at_once` threads may ask. Raises JobError."""
    kind, _, name = where.partition(":")
    if not name or kind not in ("bedrock", "endpoint"):
        raise JobError(f"{where!r} names no model; allowed: {FORMS}")
    if kind == "bedrock":
        return BedrockRemote(client_of("bedrock-runtime", at_once, region_of(name)), name)
    endpoint, _, component = name.partition("/")
    return EndpointRemote(client_of("sagemaker-runtime", at_once), endpoint, component)


def client_of(service: str, at_once: int = 1, region: str | None = None, attempts: int = 1) -> Any:
    """A client of AWS in the region of this job or shell, unless it is given; raises JobError without one."""
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=at_once,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        tcp_keepalive=True,
    )
    region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return _asked(service, lambda: boto3.client(service, region_name=region, config=config))


def region_of(name: str) -> str | None:
    """The region in an ARN: a model is asked where it lies. None of a plain id."""
    parts = name.split(":")
    return (parts[3] or None) if len(parts) > 5 and parts[0] == "arn" else None


def _calls(messages: Sequence[Message]) -> bool:
    return any(message.get("tool_calls") or message["role"] == "tool" for message in messages)


def _asked(where: str, call: Callable[[], Any]) -> Any:
    """What a call of botocore returns; its errors as RemoteErrors in one line."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, SSLError

    try:
        return call()
    except ClientError as error:
        raise RemoteError(f"{where}: {_line(error)}", passes(error.response)) from None
    except (HTTPClientError, OSError) as error:  # refused, reset, timed out; a broken body is one of these, too
        raise RemoteError(f"{where}: {_line(error)}", not isinstance(error, SSLError)) from None
    except BotoCoreError as error:
        raise RemoteError(f"{where}: {_line(error)}") from None


def passes(response: Mapping[str, Any]) -> bool:
    """Whether an error response of AWS says that the request may be answered later.

    A model's own error passes where the model answered 5xx or 429, or did not say; a 4xx is the request's fault.
    """
    code = response.get("Error", {}).get("Code", "")
    if code in ("ModelError", "ModelErrorException"):
        status = int(response.get("OriginalStatusCode") or response.get("originalStatusCode") or 500)
        return status >= 500 or status == 429
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    return code in PASSING or status == 429 or status >= 500


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
