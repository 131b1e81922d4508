"""CloudWatch's protocols, JSON and form-encoded, for the operations that we answer in MiniStack's place.

Its third, CBOR, is refused in front: nothing here reads it, and MiniStack would take such a request for an empty one.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

from localcloud import forms
from localcloud.errors import AwsError
from localcloud.hooks import metrics
from localcloud.hooks.metrics import Operation, Reply
from localcloud.protocol import operation_model
from localcloud.shapes import check_request

Document = dict[str, Any]
Handler = Callable[[Document], Document]


def refusal(message: str) -> AwsError:
    """What CloudWatch answers to a request that it refuses."""
    return AwsError("ValidationError", message)


def checked(operation: str, params: Document, members: Document, form: bool) -> Document:
    """The request's members, checked against the service model; AwsError ValidationError.

    `params` are the form's fields of a query request (name -> values), `members` the decoded JSON.
    """
    shape = operation_model("cloudwatch", operation).input_shape
    try:
        return check_request(shape, forms.members(shape, forms.pairs(params)) if form else members)
    except AwsError as error:
        code = "ValidationError" if error.code == "ValidationException" else error.code
        raise AwsError(code, error.message, error.status) from None


def answering(operation: str, handler: Handler) -> Callable[..., Reply]:
    """`handler` in the place of one of MiniStack's operations, whatever the protocol of the request."""

    def answer(_: Operation, params: Document, members: Document, is_cbor: bool, is_json: bool = False) -> Reply:
        try:
            result = handler(checked(operation, params, members, not is_json))
        except AwsError as error:
            return refuse(error, is_json)
        return reply(operation, result, is_json)

    return answer


def refuse(error: AwsError, is_json: bool) -> Reply:
    """The refusal in the request's protocol."""
    return metrics.refuse(error.code, error.message, error.status, is_json)


def reply(operation: str, result: Document, is_json: bool) -> Reply:
    """An answer whose times are datetimes."""
    if is_json:
        return metrics.answer_json(_epochs(result))
    inner = f"<{operation}Result>{_xml(result)}</{operation}Result>" if result else ""
    return metrics.answer_xml(f"{operation}Response", inner)


def _epochs(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _epochs(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_epochs(item) for item in value]
    return int(value.timestamp()) if isinstance(value, datetime.datetime) else value


def _xml(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(
            f"<{name}>{_xml_map(item) if name == 'ExtendedStatistics' else _xml(item)}</{name}>"
            for name, item in value.items()
        )
    if isinstance(value, list):
        return "".join(f"<member>{_xml(item)}</member>" for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return escape(str(value))


def _xml_map(value: Document) -> str:
    return "".join(f"<entry><key>{name}</key><value>{item}</value></entry>" for name, item in value.items())
