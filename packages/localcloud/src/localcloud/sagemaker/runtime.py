"""sagemaker-runtime: InvokeEndpoint, InvokeEndpointAsync and InvokeEndpointWithResponseStream."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import AwsError
from localcloud.hosting import asynchronous, backlog
from localcloud.hosting.component import component_key
from localcloud.hosting.fleet import Fleet
from localcloud.hosting.host import KIND, host
from localcloud.hosting.model_server import Answer, ModelServer
from localcloud.sagemaker import component_documents, endpoint_updates
from localcloud.store import Document

T = TypeVar("T")
_MESSAGE_LIMIT = 4096
_NOT_SERVING = ("Creating", "Failed", "Deleting")
_REFUSED = ("TargetModel", "TargetContainerHostname", "EnableExplanations", "SessionId")


def _invoke(ctx: Context, request: Request) -> Response:
    variant, server, answer = _use(ctx, request, lambda fleet: fleet.invoke(request))
    if not 200 <= answer.status < 300:
        raise _model_error(ctx, server, answer)
    return _head(variant, answer) | {"Body": answer.body}


def _invoke_stream(ctx: Context, request: Request) -> Response:
    variant, server, answer, pieces = _use(ctx, request, lambda fleet: fleet.invoke_stream(request))
    if not 200 <= answer.status < 300:
        raise _model_error(ctx, server, answer)
    return _head(variant, answer) | {"Body": _parts(pieces)}


def _invoke_async(ctx: Context, request: Request) -> Response:
    name = request["EndpointName"]
    doc = _endpoint(ctx, name)
    if doc["EndpointStatus"] in _NOT_SERVING:
        raise _not_serving(ctx, doc)
    if not doc["_fleet"].get("AsyncInferenceConfig"):
        raise AwsError("ValidationError", f"Endpoint {name} is not asynchronous: use InvokeEndpoint to invoke it.")
    key, response = asynchronous.accept(ctx, request, doc)
    backlog.backlogs(ctx.cloud).put(ctx, name, key)
    return response


def _parts(pieces: Generator[bytes, None, None]) -> Generator[dict[str, Any], None, None]:
    try:
        for piece in pieces:
            yield {"PayloadPart": {"Bytes": piece}}
    finally:
        pieces.close()


def _use(ctx: Context, request: Request, use: Callable[[Fleet], T]) -> T:
    """`use` with what answers for the endpoint or component now; AwsError ValidationError when nothing does."""
    for member in _REFUSED:
        if request.get(member):
            raise AwsError("ValidationError", f"{member} is not supported by localcloud")
    name, component = request["EndpointName"], _component(ctx, request)
    key = component_key(component) if component else name
    return host(ctx.cloud).using(ctx, key, lambda fleet: use(_serving(ctx, name, component, fleet)))


def _head(variant: str, answer: Answer) -> Response:
    response: Response = {"ContentType": answer.content_type, "InvokedProductionVariant": variant}
    if answer.custom_attributes:
        response["CustomAttributes"] = answer.custom_attributes
    return response


def _component(ctx: Context, request: Request) -> str | None:
    """The inference component that a request is for; ValidationError when the endpoint needs one, or has none."""
    endpoint, name = request["EndpointName"], request.get("InferenceComponentName")
    doc = _endpoint(ctx, endpoint)
    if doc["_fleet"].get("AsyncInferenceConfig"):
        raise AwsError("ValidationError", f"Endpoint {endpoint} is asynchronous: use InvokeEndpointAsync to invoke it.")
    if not endpoint_updates.hosts_components(doc["_fleet"]):
        if name:
            raise AwsError(
                "ValidationError",
                "Inference Component Name header is not allowed for endpoints to which you don't deploy inference "
                "components. Please remove the Inference Component Name header and try again.",
            )
        return None
    if not name:
        raise AwsError(
            "ValidationError",
            "Inference Component Name header is required for endpoints to which you plan to deploy inference "
            "components. Please include Inference Component Name header or consider using SageMaker models.",
        )
    found = ctx.cloud.store.get(component_documents.KIND, ctx.account, ctx.region, name)
    if found is None or found["EndpointName"] != endpoint:
        raise AwsError("ValidationError", f"Inference Component {name} of endpoint {endpoint} not found.")
    return str(name)


def _endpoint(ctx: Context, name: str) -> Document:
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, name)
    if doc is None:
        raise AwsError("ValidationError", f"Endpoint {name} of account {ctx.account} not found.")
    return doc


def _serving(ctx: Context, name: str, component: str | None, fleet: Fleet | None) -> Fleet:
    """The fleet, when the endpoint or component may be invoked; ValidationError otherwise."""
    doc = _endpoint(ctx, name)
    if component:
        found = ctx.cloud.store.get(component_documents.KIND, ctx.account, ctx.region, component) or {}
        status = found.get("InferenceComponentStatus", "Deleting")
        if fleet is None or status in ("Creating", "Deleting"):
            raise AwsError("ValidationError", f"Inference Component {component} is {status}, not InService.")
        return fleet
    if fleet is None or doc["EndpointStatus"] in _NOT_SERVING:
        raise _not_serving(ctx, doc)
    return fleet


def _not_serving(ctx: Context, doc: Document) -> AwsError:
    message = f"Endpoint {doc['EndpointName']} of account {ctx.account} is {doc['EndpointStatus']}, not InService."
    return AwsError("ValidationError", message)


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


RUNTIME_OPERATIONS: dict[str, Handler] = {
    "InvokeEndpoint": _invoke,
    "InvokeEndpointAsync": _invoke_async,
    "InvokeEndpointWithResponseStream": _invoke_stream,
}
