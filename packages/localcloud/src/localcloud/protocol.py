"""One way into every operation of ours: `call`, for requests, pipeline steps and CloudFormation stacks alike."""

from __future__ import annotations

import functools

from botocore.model import OperationModel, ServiceModel

from localcloud.context import Context, Request, Response
from localcloud.errors import AwsError
from localcloud.shapes import check_request, shape_response


def call(ctx: Context, service: str, operation: str, params: Request) -> Response:
    """Run one operation: `call(ctx, "sagemaker", "CreateModel", {...})` -> the output's members.

    The request is checked against the service model (SerializationException, ValidationException), the answer is
    cut to the output shape; times are epoch seconds, blobs bytes. Raises AwsError, also for an operation that AWS
    doesn't have (UnknownOperationException) or that isn't implemented here (NotImplemented, HTTP 501).
    """
    model = operation_model(service, operation)
    request = check_request(model.input_shape, params)
    handler = ctx.cloud.operations.get(service, {}).get(operation)
    if handler is None:
        raise not_implemented(service, operation)
    return shape_response(model.output_shape, handler(ctx, request) or {})  # type: ignore[no-any-return]


def not_implemented(service: str, operation: str) -> AwsError:
    """How everything that localcloud doesn't do answers: 501, which no AWS client retries."""
    return AwsError("NotImplemented", f"localcloud does not implement {service}:{operation}", 501)


def operation_model(service: str, operation: str) -> OperationModel:
    """botocore's model of an operation; AwsError UnknownOperationException."""
    model = service_model(service)
    if operation not in model.operation_names:
        raise AwsError("UnknownOperationException", f"{service} has no operation {operation}")
    return model.operation_model(operation)


@functools.cache
def service_model(service: str) -> ServiceModel:
    """botocore's model of a service, loaded once."""
    from botocore.loaders import Loader

    return ServiceModel(Loader().load_service_model(service, "service-2"), service)
