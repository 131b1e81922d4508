"""Whether a request for the delegate keeps to what botocore's model demands of its members, beside their types.

Required members, allowed values, lengths, ranges and patterns are looked at, and refused in the service's own code.
"""

from __future__ import annotations

import re
from typing import Any

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from localcloud.errors import AwsError
from localcloud.shapes import check_request

_CODES = {
    "cloudformation": "ValidationError",
    "events": "ValidationException",
    "kms": "ValidationException",
    "lambda": "ValidationException",
    "logs": "InvalidParameterException",
    "resourcegroupstaggingapi": "InvalidParameterException",
    "scheduler": "ValidationException",
    "sns": "ValidationError",
}
"""The services whose requests are looked at, and how each answers what breaks its model; IAM and STS have their own
checks, in `delegate/identities.py`."""
_SHORT = re.compile(r"(arn:aws[a-z-]*:events:[^/]*:connection/[^/]+)")
"""ARNs as the delegate makes them, where AWS's have one more part, an id."""


def check(operation: OperationModel, members: dict[str, Any]) -> None:
    """AwsError in the service's code, naming every broken constraint; members that AWS doesn't have are let be."""
    code = _CODES.get(operation.service_model.service_name)
    shape = operation.input_shape
    if code is None or not isinstance(shape, StructureShape):
        return
    try:
        check_request(shape, _known(shape, members))
    except AwsError as error:
        raise AwsError(code if error.code == "ValidationException" else error.code, error.message) from None


def _known(shape: Shape, value: Any) -> Any:
    """A value as it is to be looked at: without the members that its shape doesn't have."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        if getattr(shape, "is_document_type", False):
            return value
        names = {name: str(member.serialization.get("name", name)) for name, member in shape.members.items()}
        found = {name: value.get(wire, value.get(name)) for name, wire in names.items()}
        return {name: _known(shape.members[name], item) for name, item in found.items() if item is not None}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_known(shape.member, item) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: _known(shape.value, item) for key, item in value.items()}
    if isinstance(value, str) and _SHORT.fullmatch(value):
        return f"{value}/0"
    return value
