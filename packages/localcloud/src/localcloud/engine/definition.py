"""A pipeline definition, parsed and checked: everything wrong with it is said at once.

{"Version": "2020-12-01", "Parameters": [...], "PipelineExperimentConfig": {...}, "Steps": [
  {"Name": "Prepare", "Type": "Processing", "Arguments": {...}, "DependsOn": ["Other"], "CacheConfig": {...}, ...},
  {"Name": "Gate", "Type": "Condition", "Arguments": {"Conditions": [...], "IfSteps": [...], "ElseSteps": [...]}}]}
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from localcloud.engine import cache, checks, conditions, retry
from localcloud.engine.expressions import find_expressions, is_expression
from localcloud.engine.parameters import TYPES, Parameter, parse_parameters
from localcloud.errors import AwsError, validation

VERSION = "2020-12-01"
MAX_CHARACTERS = 1_048_576
SUPPORTED = (
    "Processing",
    "Training",
    "Condition",
    "Fail",
    "Lambda",
    "Callback",
    "Model",
    "RegisterModel",
    "EndpointConfig",
    "Endpoint",
)
# Real SageMaker step types that nothing here can run.
UNSUPPORTED = frozenset(
    {
        "QualityCheck",
        "ClarifyCheck",
        "Tuning",
        "Transform",
        "EMR",
        "EMRServerless",
        "AutoML",
        "NotebookJob",
        "InferenceComponent",
        "Lineage",
        "Job",
        "Cleanup",
        "ForEach",
        "BedrockCustomModel",
        "BedrockModelImport",
        "BedrockCustomModelDeployment",
        "BedrockProvisionedModelThroughput",
    }
)

_STEP_NAME = re.compile(r"[A-Za-z0-9\-_]{1,64}")


@dataclass(frozen=True)
class Step:
    """One step. `parent` is the Condition step around it, `branch` the outcome ("True" | "False") that lets it run."""

    name: str
    type: str
    order: int
    raw: dict[str, Any]
    parent: str | None = None
    branch: str | None = None
    depends_on: frozenset[str] = frozenset()

    @property
    def arguments(self) -> dict[str, Any]:
        return self.raw.get("Arguments") or {}

    @property
    def own(self) -> dict[str, Any]:
        """What this step itself refers to: a Condition without the steps in its branches."""
        if self.type != "Condition":
            return self.raw
        arguments = {key: value for key, value in self.arguments.items() if key not in ("IfSteps", "ElseSteps")}
        return {**self.raw, "Arguments": arguments}

    @property
    def cache(self) -> dict[str, Any] | None:
        """`{"Enabled": true, "ExpireAfter"?}` when this step may reuse an earlier result."""
        config = self.raw.get("CacheConfig")
        return config if config and config.get("Enabled") else None


@dataclass(frozen=True)
class Definition:
    """A definition that was found good."""

    parameters: dict[str, Parameter]
    steps: dict[str, Step]
    experiment: dict[str, Any] | None = None


@dataclass
class _Parse:
    problems: list[str] = field(default_factory=list)
    steps: dict[str, Step] = field(default_factory=dict)


@functools.lru_cache(maxsize=32)
def parse(text: str) -> Definition:
    """The parsed definition; AwsError ValidationException whose one message lists every problem found."""
    if len(text) > MAX_CHARACTERS:
        raise validation(f"The pipeline definition has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}.")
    try:
        body = json.loads(text)
    except ValueError as error:
        raise validation(f"Unable to parse pipeline definition: it is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise validation("Unable to parse pipeline definition: it must be a JSON object.")
    parse = _Parse()
    if body.get("Version") != VERSION:
        parse.problems.append(f"Version is {body.get('Version')!r}, must be '{VERSION}'")
    parameters = parse_parameters(body.get("Parameters") or [], parse.problems)
    steps = body.get("Steps")
    if not isinstance(steps, list) or not steps:
        parse.problems.append("Steps must be a list of at least one step")
    else:
        _collect(steps, "Steps", None, None, parse)
    experiment = body.get("PipelineExperimentConfig")
    context = checks.Names(frozenset(parameters), {name: step.raw for name, step in parse.steps.items()})
    for expression in find_expressions(experiment):
        parse.problems += checks.expression_problems(expression, "PipelineExperimentConfig", context)
    for name, step in list(parse.steps.items()):
        parse.problems += _step_problems(step, context)
        parse.steps[name] = _linked(step, parse.steps)
    if not parse.problems:
        parse.problems += checks.cycle_problems({step.name: _upstream(step) for step in parse.steps.values()})
    if parse.problems:
        raise _invalid(parse.problems)
    return Definition(parameters, parse.steps, experiment if isinstance(experiment, dict) else None)


def _invalid(problems: list[str]) -> AwsError:
    listed = problems[0] if len(problems) == 1 else "".join(f"\n  {n}. {text}" for n, text in enumerate(problems, 1))
    count = "" if len(problems) == 1 else f"{len(problems)} problems:"
    return validation(f"Unable to parse pipeline definition: {count}{listed}")


def _collect(raw_steps: Any, where: str, parent: str | None, branch: str | None, parse: _Parse) -> None:
    """Take steps in, the ones in branches after the Condition around them."""
    if not isinstance(raw_steps, list):
        parse.problems.append(f"{where} must be a list of steps")
        return
    for index, raw in enumerate(raw_steps):
        if not isinstance(raw, dict) or not isinstance(raw.get("Name"), str) or not isinstance(raw.get("Type"), str):
            parse.problems.append(f"{where}[{index}] needs a Name and a Type")
            continue
        name, kind = raw["Name"], raw["Type"]
        if not _STEP_NAME.fullmatch(name):
            parse.problems.append(f"step '{name}': a name must have 1 to 64 letters, digits, - or _")
        if name in parse.steps:
            parse.problems.append(f"step '{name}' appears more than once; step names must be unique, branches included")
            continue
        parse.steps[name] = Step(name, kind, len(parse.steps), raw, parent, branch)
        if kind == "Condition" and isinstance(raw.get("Arguments"), dict):
            _collect(raw["Arguments"].get("IfSteps") or [], f"step '{name}'.IfSteps", name, "True", parse)
            _collect(raw["Arguments"].get("ElseSteps") or [], f"step '{name}'.ElseSteps", name, "False", parse)


def _step_problems(step: Step, context: checks.Names) -> Iterator[str]:
    where = f"step '{step.name}'"
    if step.type in UNSUPPORTED:
        yield f"{where}: step type {step.type} is not supported here (supported: {', '.join(SUPPORTED)})"
        return
    if step.type not in SUPPORTED:
        yield f"{where}: '{step.type}' is not a step type (supported: {', '.join(SUPPORTED)})"
        return
    if not isinstance(step.raw.get("Arguments", {}), dict):
        yield f"{where}: Arguments must be an object"
        return
    yield from _depends_on_problems(step, where, context)
    for expression in find_expressions(step.own):
        yield from checks.expression_problems(expression, where, context)
    for index, policy in enumerate(step.raw.get("RetryPolicies") or []):
        yield from retry.problems(policy, f"{where}.RetryPolicies[{index}]")
    if step.raw.get("RetryPolicies") and step.type not in retry.RETRYABLE_STEPS:
        allowed = ", ".join(sorted(retry.RETRYABLE_STEPS))
        yield f"{where}: RetryPolicies are not allowed on a {step.type} step (only on {allowed})"
    yield from _cache_problems(step, where)
    yield from _type_problems(step, where)


def _depends_on_problems(step: Step, where: str, context: checks.Names) -> Iterator[str]:
    for entry in step.raw.get("DependsOn") or []:
        if isinstance(entry, dict):
            if entry.get("Trigger") not in (None, "Completed"):
                yield f"{where}: run conditions (DependsOn with Trigger {entry.get('Trigger')}) are not supported here"
            entry = entry.get("Step")
        if entry == step.name:
            yield f"{where} depends on itself"
        elif entry not in context.steps:
            yield f"{where}: DependsOn names the unknown step '{entry}'"
        elif context.steps[entry]["Type"] == "Fail":
            yield f"{where}: {step.name} can not depends on {entry}, a Fail step: nothing runs after it"


def _cache_problems(step: Step, where: str) -> Iterator[str]:
    config = step.raw.get("CacheConfig")
    if config is None:
        return
    if not isinstance(config, dict) or not isinstance(config.get("Enabled"), bool):
        yield f"{where}: CacheConfig needs Enabled, true or false"
        return
    if config["Enabled"] and step.type not in cache.ATTRIBUTES:
        yield f"{where}: caching is not supported here for a {step.type} step (only for {', '.join(cache.ATTRIBUTES)})"
    if config.get("ExpireAfter") is not None:
        try:
            cache.duration_seconds(str(config["ExpireAfter"]))
        except ValueError as error:
            yield f"{where}: CacheConfig.ExpireAfter {error}"


def _type_problems(step: Step, where: str) -> Iterator[str]:
    if step.type == "Condition":
        listed = step.arguments.get("Conditions")
        if not isinstance(listed, list) or not listed:
            yield f"{where}: needs a list of Conditions"
            return
        for index, condition in enumerate(listed):
            yield from conditions.problems(condition, f"{where}.Conditions[{index}]")
    elif step.type in ("Lambda", "Callback"):
        member = "FunctionArn" if step.type == "Lambda" else "SqsQueueUrl"
        target = step.raw.get(member)
        if not isinstance(target, str) and not is_expression(target):
            yield f"{where}: a {step.type} step needs {member}"
        for output in step.raw.get("OutputParameters") or []:
            if not isinstance(output, dict) or output.get("OutputType") not in TYPES or not output.get("OutputName"):
                yield f"{where}: an output parameter needs OutputName and OutputType ({', '.join(TYPES)})"
    elif step.type != "Fail":
        yield from checks.request_problems(step.type, step.arguments, where)


def _upstream(step: Step) -> frozenset[str]:
    return step.depends_on | ({step.parent} if step.parent else frozenset())


def _linked(step: Step, steps: dict[str, Step]) -> Step:
    """The step with all it waits for: DependsOn and every step whose outcome it refers to."""
    named = {entry.get("Step") if isinstance(entry, dict) else entry for entry in step.raw.get("DependsOn") or []}
    for expression in find_expressions(step.own):
        named |= checks.referenced_steps(expression)
    known = frozenset(name for name in named if isinstance(name, str) and name in steps)
    return Step(step.name, step.type, step.order, step.raw, step.parent, step.branch, known)
