"""sagemaker-runtime: InvokeEndpoint."""

from __future__ import annotations

from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import AwsError
from localcloud.hosting.fleet import Fleet
from localcloud.hosting.host import KIND, host
from localcloud.hosting.model_server import Answer, ModelServer

_MESSAGE_LIMIT = 4096


def _invoke(ctx: Context, request: Request) -> Response:
    name = request["EndpointName"]
    for member in (
        "TargetModel",
        "TargetContainerHostname",
        "InferenceComponentName",
        "EnableExplanations",
        "SessionId",
    ):
        if request.get(member):
            raise AwsError("ValidationError", f"{member} is not supported by localcloud")
    variant, server, answer = host(ctx.cloud).using(ctx, name, lambda fleet: _serving(ctx, name, fleet).invoke(request))
    if not 200 <= answer.status < 300:
        raise _model_error(ctx, server, answer)
    response: Response = {"Body": answer.body, "ContentType": answer.content_type, "InvokedProductionVariant": variant}
    if answer.custom_attributes:
        response["CustomAttributes"] = answer.custom_attributes
    return response


def _serving(ctx: Context, name: str, fleet: Fleet | None) -> Fleet:
    """The fleet, when the endpoint may be invoked; ValidationError otherwise."""
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, name)
    if doc is None:
        raise AwsError("ValidationError", f"Endpoint {name} of account {ctx.account} not found.")
    if fleet is None or doc["EndpointStatus"] in ("Creating", "Failed", "Deleting"):
        status = doc["EndpointStatus"]
        raise AwsError("ValidationError", f"Endpoint {name} of account {ctx.account} is {status}, not InService.")
    return fleet


def _model_error(ctx: Context, server: ModelServer, answer: Answer) -> AwsError:
    """The model's own error as SageMaker wraps it: HTTP 424 with the original status and message."""
    original = answer.body.decode("utf-8", errors="replace")[:_MESSAGE_LIMIT]
    side = "client" if 400 <= answer.status < 500 else "server"
    stream = ctx.arn(f"log-group:{server.log_group}:log-stream:{server.log_stream}", service="logs")
    message = (
        f'Received {side} error ({answer.status}) from primary with message "{original}". '
        f"See log group {server.log_group} in account {ctx.account} for more information."
    )
    extra = {"OriginalStatusCode": answer.status, "OriginalMessage": original, "LogStreamArn": stream}
    return AwsError("ModelError", message, 424, extra)


RUNTIME_OPERATIONS: dict[str, Handler] = {"InvokeEndpoint": _invoke}
