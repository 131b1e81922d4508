"""The front door of models that Bedrock keeps: what serves, what it costs, its answers.

It is called `<endpoint>-bedrock` and has a deployment log like any endpoint (lambdas/bedrock_serving.py keeps it); what
requests name is the ARN of a custom model deployment, or of a provisioned throughput.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from configuration.errors import UserError
from pipelines import deployments

if TYPE_CHECKING:
    import boto3

    from configuration.config import Config

SUFFIX = "-bedrock"
UNTIL_DEPLOYED = "Approve a version to deploy it: fmops approve N"


def is_front_door(name: str) -> bool:
    return name.endswith(SUFFIX)


def keeps(package: dict[str, Any]) -> bool:
    """Whether Bedrock keeps a version's model: then its SourceUri is the custom model's ARN."""
    return ":custom-model/" in str(package.get("SourceUri", ""))


def chosen_door(config: Config, session: boto3.Session, name: str) -> str:
    """Which of an endpoint and its sibling on Bedrock serves what was decided last; the endpoint where neither does."""
    if is_front_door(name):
        return name
    last = {door: _decided(deployments.log(config, session, door)) for door in (name, f"{name}{SUFFIX}")}
    return max(last, key=lambda door: (last[door], door == name))


def _decided(log: list[deployments.Deployment]) -> str:
    return max((item["approved"] for item in log if item["state"] == "in_service"), default="")


def serving(config: Config, session: boto3.Session, name: str) -> deployments.Deployment:
    """The deployment that serves. Raises UserError without one."""
    found = [item for item in deployments.log(config, session, name) if item["state"] == "in_service"]
    if not found:
        raise UserError(f"Nothing is in service behind {name}. {UNTIL_DEPLOYED}")
    return found[-1]


def invoke(config: Config, session: boto3.Session, name: str, text: str, max_tokens: int | None = None) -> str:
    """One prompt in, the generated text out. Raises UserError with Bedrock's reason."""
    arn = serving(config, session, name)["endpoint_config_name"]
    with _readable():
        answer = _runtime(session).converse(**request(arn, text, max_tokens))
    return "".join(block.get("text", "") for block in answer["output"]["message"]["content"])


def stream(
    config: Config, session: boto3.Session, name: str, text: str, max_tokens: int | None = None
) -> Iterator[str]:
    """The generated text, piece by piece, as the model writes it."""
    arn = serving(config, session, name)["endpoint_config_name"]
    with _readable():
        for event in _runtime(session).converse_stream(**request(arn, text, max_tokens))["stream"]:
            piece = event.get("contentBlockDelta", {}).get("delta", {}).get("text")
            if piece:
                yield str(piece)


def request(model: str, text: str, max_tokens: int | None) -> dict[str, Any]:
    """Converse's request for one prompt."""
    limits = {} if max_tokens is None else {"inferenceConfig": {"maxTokens": max_tokens}}
    return {"modelId": model, "messages": [{"role": "user", "content": [{"text": text}]}], **limits}


def lines(name: str, log: list[deployments.Deployment]) -> Iterator[str]:
    """What is in service, or on its way there, and what it costs."""
    living = [item for item in log if item["state"] in ("in_service", *deployments.UNDER_WAY)]
    if not living:
        yield f"{name}   not deployed"
        return
    last = living[-1]
    yield f"{name}   {deployments.WORDS[last['state']]}   version {deployments.version_of(last)}"
    yield f"  model      {last['model_name']}"
    if last["endpoint_config_name"]:
        yield f"  asked as   {last['endpoint_config_name']}"
    yield f"  cost       {cost(last['settings'])}"


def cost(settings: dict[str, Any]) -> str:
    """What it costs; Bedrock's prices of model units aren't in any list that comes with a package."""
    if settings["bedrock_serving"] == "on-demand":
        return "by the token; nothing while idle but the storage of the model"
    units, commitment = settings["bedrock_model_units"], settings["bedrock_commitment"]
    until = (
        "until it is undeployed" if commitment == "none" else f"with a commitment ({commitment}) that can't be ended"
    )
    return f"{units} model units, each by the hour, {until}: aws.amazon.com/bedrock/pricing has the price of this model"


def _runtime(session: boto3.Session) -> Any:
    from botocore.config import Config

    return session.client("bedrock-runtime", config=Config(read_timeout=120, retries={"max_attempts": 4}))


class _readable:
    """Bedrock's refusals as UserErrors."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from botocore.exceptions import ClientError, EventStreamError

        if isinstance(error, EventStreamError | ClientError):
            details: Any = error.response["Error"]
            raise UserError(f"Bedrock answered {details['Code']}: {details.get('Message', '')}") from None
