"""What can be known about a definition before it runs: names, property paths, request members, cycles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from localcloud import protocol
from localcloud.engine.expressions import (
    EXECUTION_VARIABLES,
    JOIN,
    JSON_GET,
    ExpressionError,
    is_expression,
    path_tokens,
    split_get,
)

# Step type -> (the request its Arguments are, members the engine fills in, the answer its properties are).
REQUESTS: dict[str, tuple[str, frozenset[str], str]] = {
    "Processing": ("CreateProcessingJob", frozenset({"ProcessingJobName", "RoleArn"}), "DescribeProcessingJob"),
    "Training": ("CreateTrainingJob", frozenset({"TrainingJobName", "RoleArn"}), "DescribeTrainingJob"),
    "Model": ("CreateModel", frozenset({"ModelName"}), "DescribeModel"),
    "RegisterModel": ("CreateModelPackage", frozenset(), "DescribeModelPackage"),
    "EndpointConfig": ("CreateEndpointConfig", frozenset({"EndpointConfigName"}), "DescribeEndpointConfig"),
    "Endpoint": ("CreateEndpoint", frozenset({"EndpointName"}), "DescribeEndpoint"),
}


@dataclass(frozen=True)
class Names:
    """What expressions may refer to."""

    parameters: frozenset[str]
    steps: dict[str, dict[str, Any]]


def expression_problems(expression: dict[str, Any], where: str, names: Names) -> Iterator[str]:
    """What is wrong with one expression itself (not with those inside it)."""
    if JOIN in expression:
        if not isinstance(expression[JOIN].get("Values"), list):
            yield f"{where}: {JOIN} needs a list of Values"
    elif JSON_GET in expression:
        yield from _json_get_problems(expression[JSON_GET], where, names)
    else:
        yield from _get_problems(expression["Get"], where, names)


def _json_get_problems(body: dict[str, Any], where: str, names: Names) -> Iterator[str]:
    if "Path" not in body or ("PropertyFile" in body) == ("S3Uri" in body):
        yield f"{where}: {JSON_GET} needs Path and one of PropertyFile or S3Uri"
        return
    if isinstance(body["Path"], str):
        try:
            path_tokens(body["Path"])
        except ExpressionError as error:
            yield f"{where}: {JSON_GET} {error}"
    if "PropertyFile" in body:
        reference = body["PropertyFile"].get("Get") if isinstance(body["PropertyFile"], dict) else None
        if not isinstance(reference, str) or ".PropertyFiles." not in reference:
            yield f'{where}: {JSON_GET} needs PropertyFile as {{"Get": "Steps.STEP.PropertyFiles.NAME"}}'


def _get_problems(reference: str, where: str, names: Names) -> Iterator[str]:
    try:
        root, name, tokens = split_get(reference)
    except ExpressionError as error:
        yield f"{where}: Get {error}"
        return
    if root == "Parameters" and name not in names.parameters:
        yield f"{where}: Get '{reference}' names the undeclared parameter '{name}'"
    elif root == "Execution" and name not in EXECUTION_VARIABLES:
        yield f"{where}: Get '{reference}' is not one of Execution.{', Execution.'.join(sorted(EXECUTION_VARIABLES))}"
    elif root == "Steps":
        if name not in names.steps:
            yield f"{where}: Get '{reference}' names the unknown step '{name}'"
        else:
            problem = _property_problem(names.steps[name], tokens)
            if problem:
                yield f"{where}: Get '{reference}': {problem}"


def _property_problem(step: dict[str, Any], tokens: list[str | int]) -> str | None:
    """Why a step has no such property, None when it has."""
    kind = step["Type"]
    if tokens[:1] == ["PropertyFiles"]:
        declared = [item.get("PropertyFileName") for item in step.get("PropertyFiles") or []]
        if len(tokens) == 2 and tokens[1] in declared:
            return None
        return f"the step declares no such property file (it has: {', '.join(map(str, declared)) or 'none'})"
    if kind in ("Lambda", "Callback"):
        declared = [item.get("OutputName") for item in step.get("OutputParameters") or [] if isinstance(item, dict)]
        if len(tokens) == 2 and tokens[0] == "OutputParameters" and tokens[1] in declared:
            return None
        return f"the {kind} step declares no such output (it has: {', '.join(map(str, declared)) or 'none'})"
    if kind == "Condition":
        return None if tokens == ["Outcome"] else "a Condition step has only Outcome"
    if kind == "Fail":
        return "a Fail step has no properties"
    if kind not in REQUESTS or not tokens:
        return None
    shape: Shape | None = protocol.operation_model("sagemaker", REQUESTS[kind][2]).output_shape
    for token in tokens:
        shape = _inner(shape, token)
        if shape is None:
            return f"the answer of {REQUESTS[kind][2]} has no '{token}' there"
    return None


def _inner(shape: Shape | None, token: str | int) -> Shape | None:
    if isinstance(shape, StructureShape):
        return shape.members.get(str(token))
    if isinstance(shape, ListShape):
        return shape.member
    return shape.value if isinstance(shape, MapShape) else None


def referenced_steps(expression: dict[str, Any]) -> set[str]:
    """The steps whose outcome one expression itself names."""
    reference = expression.get("Get")
    return {split_get(reference)[1]} if isinstance(reference, str) and reference.startswith("Steps.") else set()


def request_problems(step_type: str, arguments: dict[str, Any], where: str) -> Iterator[str]:
    """Members that the step's request doesn't know or lacks, and literal values of the wrong kind."""
    operation, filled, _ = REQUESTS[step_type]
    shape = protocol.operation_model("sagemaker", operation).input_shape
    if isinstance(shape, StructureShape):
        yield from _shape_problems(shape, arguments, f"{where}.Arguments", filled)


def _shape_problems(shape: Shape, value: Any, where: str, filled: frozenset[str] = frozenset()) -> Iterator[str]:
    if is_expression(value) or value is None:
        return
    expected = {"structure": dict, "map": dict, "list": list, "string": str, "boolean": bool}.get(shape.type_name)
    if shape.type_name in ("integer", "long", "float", "double"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            yield f"{where} is {value!r}, a number is needed"
    elif expected is not None and not isinstance(value, expected):
        yield f"{where} is {value!r}, a {shape.type_name} is needed"
    elif isinstance(shape, StructureShape):
        unknown = [key for key in value if key not in shape.members]
        missing = [key for key in shape.required_members if key not in value and key not in filled]
        yield from (f"{where} has the unknown member '{key}' (allowed: {', '.join(shape.members)})" for key in unknown)
        yield from (f"{where} lacks '{key}'" for key in missing)
        for key, inner in value.items():
            if key in shape.members:
                yield from _shape_problems(shape.members[key], inner, f"{where}.{key}")
    elif isinstance(shape, ListShape):
        for index, inner in enumerate(value):
            yield from _shape_problems(shape.member, inner, f"{where}[{index}]")
    elif isinstance(shape, MapShape):
        for key, inner in value.items():
            yield from _shape_problems(shape.value, inner, f"{where}.{key}")


def cycle_problems(upstream: dict[str, frozenset[str]]) -> list[str]:
    """The steps that wait for each other, if any: `{"A": {"B"}}` says that A waits for B."""
    waiting = dict(upstream)
    while True:
        ready = [name for name, needs in waiting.items() if not needs & waiting.keys()]
        if not ready:
            break
        for name in ready:
            del waiting[name]
    if not waiting:
        return []
    # Follow the waits until a step comes back: that walk is one whole cycle, without the steps that only hang on it.
    name, path = next(iter(waiting)), []
    while name not in path:
        path.append(name)
        name = next(need for need in sorted(waiting[name]) if need in waiting)
    cycle = [*path[path.index(name) :], name]
    return [f"the steps wait for each other in a cycle: {' -> '.join(cycle)}"]
