"""Pipeline expressions: `Get`, `Std:Join` and `Std:JsonGet`, found anywhere in a step's arguments.

{"Get": "Parameters.Epochs"}
{"Get": "Steps.Prepare.ProcessingOutputConfig.Outputs['train'].S3Output.S3Uri"}
{"Std:Join": {"On": "/", "Values": ["s3:/", {"Get": "Parameters.Bucket"}, "raw"]}}
{"Std:JsonGet": {"PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Report"}, "Path": "metrics.f1.value"}}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Protocol

JOIN = "Std:Join"
JSON_GET = "Std:JsonGet"
EXECUTION_VARIABLES = frozenset(
    {
        "PipelineName",
        "PipelineArn",
        "PipelineExecutionId",
        "PipelineExecutionArn",
        "StartDateTime",
        "CurrentDateTime",
        "TrainingJobName",
        "ProcessingJobName",
    }
)

_TOKEN = re.compile(r"\.?(?P<name>[^.\[\]'\"]+)|\[(?P<index>\d+)\]|\[(?P<quote>['\"])(?P<key>.*?)(?P=quote)\]")
_FUNCTIONS = (JOIN, JSON_GET)


class ExpressionError(Exception):
    """An expression that can't be evaluated; the message says which and why."""


class Scope(Protocol):
    """Where names lead during one execution."""

    def parameter(self, name: str) -> Any:
        """A parameter's typed value."""

    def execution(self, name: str) -> Any:
        """An execution variable, e.g. `PipelineExecutionId`."""

    def step(self, name: str) -> Any:
        """A finished step's Describe answer (or outputs), walked by the rest of the path."""

    def property_file(self, step: str, name: str) -> Any:
        """The parsed JSON of a step's property file."""

    def json_object(self, uri: str) -> Any:
        """The parsed JSON of an S3 object."""


def path_tokens(path: str) -> list[str | int]:
    """`A.B[0]['x y'].C` -> `["A", "B", 0, "x y", "C"]`; a leading `$` is dropped. ExpressionError on anything else."""
    text = path[1:] if path.startswith("$") else path
    tokens: list[str | int] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.group("name") == "*":
            raise ExpressionError(
                f"path '{path}' is not understood at character {position + 1}: "
                "use member.member, [0] and ['name'] (no filters or wildcards)"
            )
        if match.group("index") is not None:
            tokens.append(int(match.group("index")))
        else:
            tokens.append(match.group("name") if match.group("name") is not None else match.group("key"))
        position = match.end()
    if not tokens:
        raise ExpressionError(f"path '{path}' is empty")
    return tokens


def walk(value: Any, tokens: list[str | int], what: str) -> Any:
    """Follow tokens through maps and lists; a name in a list finds the item that carries it (`Outputs['train']`)."""
    for token in tokens:
        found, value = _member(value, token)
        if not found:
            raise ExpressionError(f"{what} has no '{token}'")
    return value


def _member(value: Any, token: str | int) -> tuple[bool, Any]:
    if isinstance(value, dict):
        return (True, value[str(token)]) if str(token) in value else (False, None)
    if isinstance(value, list):
        if isinstance(token, int):
            return (True, value[token]) if token < len(value) else (False, None)
        for item in value:
            # SageMaker names list items by their own "...Name" member: OutputName, InputName, ChannelName, MetricName.
            if isinstance(item, dict) and any(key.endswith("Name") and item[key] == token for key in item):
                return True, item
    return False, None


def is_expression(value: Any) -> bool:
    """Whether a JSON value is one of the expression objects."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    key, inner = next(iter(value.items()))
    return (key == "Get" and isinstance(inner, str)) or (key in _FUNCTIONS and isinstance(inner, dict))


def find_expressions(value: Any) -> Iterator[dict[str, Any]]:
    """Every expression object in a JSON value, outer before inner."""
    if is_expression(value):
        yield value
    if isinstance(value, dict):
        for inner in value.values():
            yield from find_expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from find_expressions(inner)


def resolve(value: Any, scope: Scope) -> Any:
    """A copy of a JSON value in which every expression is replaced by what it stands for."""
    if is_expression(value):
        if "Get" in value:
            return _get(value["Get"], scope)
        if JOIN in value:
            return _join(value[JOIN], scope)
        return _json_get(value[JSON_GET], scope)
    if isinstance(value, dict):
        return {key: resolve(inner, scope) for key, inner in value.items()}
    if isinstance(value, list):
        return [resolve(inner, scope) for inner in value]
    return value


def text_of(value: Any) -> str:
    """How a pipeline writes a value into a string: `True` -> `true`, `3` -> `3`, `0.5` -> `0.5`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)) or value is None:
        raise ExpressionError(f"a {'list' if isinstance(value, list) else 'structure'} can't be joined into a string")
    return str(value)


def split_get(reference: str) -> tuple[str, str, list[str | int]]:
    """`Steps.X.A['b']` -> `("Steps", "X", ["A", "b"])`; ExpressionError when it doesn't begin as a `Get` must."""
    root, _, rest = reference.partition(".")
    if root not in ("Parameters", "Execution", "Steps") or not rest:
        raise ExpressionError(f"'{reference}' must begin with Parameters., Execution. or Steps.")
    if root != "Steps":
        return root, rest, []
    name, _, path = rest.partition(".")
    return root, name, path_tokens(path) if path else []


def _get(reference: str, scope: Scope) -> Any:
    root, name, tokens = split_get(reference)
    if root == "Parameters":
        return scope.parameter(name)
    if root == "Execution":
        return scope.execution(name)
    return walk(scope.step(name), tokens, f"the answer of step '{name}' ({reference})") if tokens else scope.step(name)


def _join(body: dict[str, Any], scope: Scope) -> str:
    on = body.get("On", "")
    parts: list[str] = []
    for value in body.get("Values", []):
        resolved = resolve(value, scope)
        parts.extend(text_of(item) for item in (resolved if isinstance(resolved, list) else [resolved]))
    return str(on).join(parts)


def _json_get(body: dict[str, Any], scope: Scope) -> Any:
    path = str(resolve(body["Path"], scope))
    if "PropertyFile" in body:
        _, step, tokens = split_get(body["PropertyFile"]["Get"])
        name = str(tokens[1])
        document, what = scope.property_file(step, name), f"property file '{name}' of step '{step}'"
    else:
        uri = str(resolve(body["S3Uri"], scope))
        document, what = scope.json_object(uri), uri
    return walk(document, path_tokens(path), f"{what} (path '{path}')")
