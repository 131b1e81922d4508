"""S3's XML: the answers that it gives and the few documents that it takes."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

from localcloud.errors import AwsError

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def document(name: str, members: Iterable[tuple[str, Any]]) -> bytes:
    """`document("Tagging", [("TagSet", [("Tag", [...])])])`: members are (name, text or members); None is left out."""
    inner = _members(members)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{_NAMESPACE}">{inner}</{name}>'.encode()


def _members(members: Iterable[tuple[str, Any]]) -> str:
    pieces = []
    for name, value in members:
        if value is None:
            continue
        if isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, list | tuple):
            text = _members(value)
        else:
            # A carriage return would come back as a line feed.
            text = escape(str(value), {"\r": "&#13;"})
        pieces.append(f"<{name}>{text}</{name}>")
    return "".join(pieces)


def error(problem: AwsError, resource: str) -> bytes:
    """S3's error document."""
    extra = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in problem.extra.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{escape(problem.code)}</Code><Message>{escape(problem.message)}</Message>{extra}"
        f"<Resource>{escape(resource)}</Resource><RequestId>{uuid.uuid4()}</RequestId></Error>"
    ).encode("utf-8", "replace")


def parse(body: bytes) -> ElementTree.Element:
    """A request document without its namespaces; AwsError MalformedXML."""
    try:
        root: ElementTree.Element = fromstring(body)
    except (ElementTree.ParseError, DefusedXmlException, ValueError):
        raise AwsError(
            "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema"
        ) from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def iso(moment: float) -> str:
    """`2026-11-23T01:36:00.000Z`"""
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
