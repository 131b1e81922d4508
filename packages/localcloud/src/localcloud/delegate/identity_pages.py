"""Pages of IAM's lists by MaxItems and Marker: MiniStack answers with all that there is."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from botocore.model import OperationModel, StructureShape

from localcloud.errors import AwsError
from localcloud.s3 import xml

Keep = Callable[[str, dict[str, Any], dict[str, str]], bool]
"""Whether an item (its texts by name) is in the list that an operation was asked for with a request."""
_DEFAULT = 100
_NAMES = ("Arn", "PolicyArn", "AccessKeyId", "SerialNumber", "VersionId", "Key")
"""What tells the items of a list apart, in this order; then their whole content."""


def is_paged(model: OperationModel) -> bool:
    """Whether an operation answers in pages."""
    asked, answered = model.input_shape, model.output_shape
    if not isinstance(asked, StructureShape) or not isinstance(answered, StructureShape):
        return False
    return "Marker" in asked.members and "IsTruncated" in answered.members


def page(model: OperationModel, request: dict[str, Any], body: bytes, keep: Keep) -> bytes:
    """One page of an answer, of what `keep` keeps; AwsError ValidationError for a Marker of another request.

    A page begins after the item that the one before ended with, in an order of their names: what is made or deleted
    in between neither doubles nor hides anything else.
    """
    root = xml.parse(body)
    result, output = root.find(f"{model.name}Result"), model.output_shape
    if result is None or not isinstance(output, StructureShape):
        return body
    lists = [name for name, shape in output.members.items() if shape.type_name == "list"]
    found = [(element, lists.index(element.tag)) for element in result if element.tag in lists]
    items = sorted(
        (
            ((place, _identity(item)), element, item)
            for element, place in found
            for item in element
            if keep(model.name, request, _texts(item))
        ),
        key=lambda entry: entry[0],
    )
    mark = _mark(model.name, request)
    after = _read(request["Marker"], mark) if request.get("Marker") else None
    left = [entry for entry in items if after is None or entry[0] > after]
    shown, more = left[: request.get("MaxItems", _DEFAULT)], len(left) > request.get("MaxItems", _DEFAULT)
    for element, _ in found:
        element[:] = [item for _, owner, item in shown if owner is element]
    for name, value in (("IsTruncated", str(more).lower()), ("Marker", _write(shown[-1][0], mark) if more else None)):
        for old in result.findall(name):
            result.remove(old)
        if value is not None:
            ElementTree.SubElement(result, name).text = value
    root.set("xmlns", str(model.service_model.metadata["xmlNamespace"]))
    written: bytes = ElementTree.tostring(root, "utf-8")
    return written


def _identity(item: ElementTree.Element) -> str:
    children = _texts(item)
    for name in _NAMES:
        if name in children:
            # v10 comes after v9.
            return children[name].zfill(4) if name == "VersionId" else children[name]
    return "".join(item.itertext())


def _texts(item: ElementTree.Element) -> dict[str, str]:
    return {child.tag: child.text or "" for child in item}


def _mark(operation: str, request: dict[str, Any]) -> str:
    asked = {name: value for name, value in request.items() if name not in ("Marker", "MaxItems")}
    return hashlib.sha256(json.dumps([operation, asked], sort_keys=True, default=str).encode()).hexdigest()[:16]


def _write(last: tuple[int, str], mark: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([mark, *last]).encode()).decode()


def _read(marker: str, mark: str) -> tuple[int, str]:
    try:
        found, place, identity = json.loads(base64.urlsafe_b64decode(marker.encode()))
        if found == mark and isinstance(place, int) and isinstance(identity, str):
            return place, identity
    except (binascii.Error, UnicodeError, ValueError, TypeError):
        pass
    raise AwsError("ValidationError", f"Invalid Marker: {marker} is not of this request")
