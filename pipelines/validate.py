"""`fmops validate`: everything that AWS would refuse hours later, found before a cent is spent; no account, no network.

Each step's request, with the parameters' defaults filled in, is held against the API's model; references between
steps, the gate's paths into evaluation.json and the limits of the service are checked too. Not covered: quotas,
permissions and whether the S3 objects exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.custom_metrics import CustomMetricError, try_out
from conditions.quality_gate import PASSED
from configuration.custom_metrics import read
from configuration.gate import METRICS, known_metrics
from pipelines.regions import region_problem
from pipelines.requests import Later, check_request, check_value, resolve

if TYPE_CHECKING:
    from common.model_shape import ModelShape
    from configuration.config import Config

# Step type -> the call that SageMaker makes for it, and the required members that SageMaker fills in.
OPERATIONS = {
    "Processing": ("CreateProcessingJob", frozenset({"ProcessingJobName"})),
    "Training": ("CreateTrainingJob", frozenset({"TrainingJobName"})),
    "RegisterModel": ("CreateModelPackage", frozenset[str]()),
    "Model": ("CreateModel", frozenset({"ModelName"})),
}
OTHER_STEPS = {"Callback", "Condition", "Lambda", "Fail"}

MAX_PARAMETERS = 200
MAX_DEFINITION_CHARACTERS = 1_048_576
MAX_PARAMETER_CHARACTERS = 1024
MAX_STEPS = 50
STEP_NAME = re.compile(r"[A-Za-z0-9\-_]{1,64}")
FUNCTION_ARN = re.compile(r"arn:[a-z-]+:lambda:[a-z0-9-]+:\d{12}:function:[A-Za-z0-9_-]{1,64}")
QUEUE_URL = re.compile(r"https://sqs\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/\d{12}/[A-Za-z0-9_-]{1,80}")
REFERENCE = re.compile(r"^Steps\.([A-Za-z0-9\-_]+)")


@dataclass(frozen=True)
class Problem:
    """One thing that AWS would refuse: where (step and path), and why."""

    step: str
    path: str
    message: str

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.step, self.path) if part)
        return f"{place}: {self.message}"


def validate(config: Config, shape: ModelShape | None = None) -> list[Problem]:
    """Build the pipeline of a configuration and check it. An empty list: AWS would accept every request.

    With the base model's shape also whether training fits the memory of its machines.
    """
    from pipelines.finetuning import definition

    unknown = region_problem(config.aws.region)
    if unknown:
        return [Problem("", "aws.region", unknown)]  # nothing else can be looked up there
    text = definition(config)
    memory = _check_memory(config, shape) if shape else ()
    found = validate_definition(json.loads(text), tuple(known_metrics(config)))
    return [*_check_size(text), *found, *_check_endpoint(config), *_check_own_metrics(config), *memory]


def _check_own_metrics(config: Config) -> Iterator[Problem]:
    """What would end the evaluation hours later: the file is run, and each metric called with sample rows."""
    path = config.evaluation.custom_metrics
    if path:
        try:
            try_out(read(path), path)
        except CustomMetricError as error:
            yield Problem("Evaluate", "evaluation.custom_metrics", str(error))


def _check_memory(config: Config, shape: ModelShape) -> Iterator[Problem]:
    from pipelines.fit import checks

    for check in checks(config, shape):
        if not check.fits:
            yield Problem("Train", "memory", str(check))


def _check_endpoint(config: Config) -> Iterator[Problem]:
    """What the deploy function would ask for after an approval, perhaps weeks from now."""
    for message in check_value("ProductionVariantInstanceType", config.endpoint.instance_type):
        yield Problem("Deploy", "endpoint.instance_type", message)
    for kind in config.endpoint.fallback_instance_types:
        for message in check_value("ProductionVariantInstanceType", kind):
            yield Problem("Deploy", "endpoint.fallback_instance_types", message)


def validate_definition(definition: dict[str, Any], metrics: Collection[str] = METRICS) -> list[Problem]:
    """Check a pipeline definition (the parsed JSON); `metrics`: those that evaluation.json may have."""
    defaults = {item["Name"]: item.get("DefaultValue", Later()) for item in definition.get("Parameters", [])}
    steps = list(_all_steps(definition["Steps"]))
    problems = [*_check_parameters(definition.get("Parameters", [])), *_check_names(steps)]
    by_name = {step["Name"]: step for step, _ in steps}
    for step, visible in steps:
        problems += _check_references(step, visible, by_name, defaults)
        problems += _check_step(step, by_name, defaults, metrics)
    return problems


def _all_steps(
    steps: list[dict[str, Any]], above: frozenset[str] = frozenset()
) -> Iterator[tuple[Any, frozenset[str]]]:
    """Every step with the names that it may refer to: its own level and those around it, never another branch."""
    visible = above | {step["Name"] for step in steps}
    for step in steps:
        yield step, visible
        for branch in ("IfSteps", "ElseSteps"):
            if step["Type"] == "Condition":
                yield from _all_steps(step["Arguments"].get(branch, []), visible)


def _check_size(text: str) -> Iterator[Problem]:
    if len(text) > MAX_DEFINITION_CHARACTERS:
        yield Problem("", "", f"the definition has {len(text)} characters; allowed: up to {MAX_DEFINITION_CHARACTERS}")


def _check_parameters(parameters: list[dict[str, Any]]) -> Iterator[Problem]:
    if len(parameters) > MAX_PARAMETERS:
        yield Problem("", "Parameters", f"{len(parameters)} parameters; allowed: up to {MAX_PARAMETERS}")
    for parameter in parameters:
        default, choices = parameter.get("DefaultValue"), parameter.get("EnumValues")
        if choices and default is not None and default not in choices:
            yield Problem("", parameter["Name"], f"{default!r} is not one of {', '.join(map(str, choices))}")
        if isinstance(default, str) and len(default) > MAX_PARAMETER_CHARACTERS:
            yield Problem(
                "", parameter["Name"], f"{len(default)} characters; allowed: up to {MAX_PARAMETER_CHARACTERS}"
            )


def _check_names(steps: list[tuple[Any, frozenset[str]]]) -> Iterator[Problem]:
    names = [step["Name"] for step, _ in steps]
    if len(names) > MAX_STEPS:
        yield Problem("", "Steps", f"{len(names)} steps; allowed: up to {MAX_STEPS}")
    for name in names:
        if not STEP_NAME.fullmatch(name):
            yield Problem(name, "Name", "allowed: 1 to 64 letters, digits, hyphens and underscores")
        if names.count(name) > 1:
            yield Problem(name, "Name", "two steps have this name")


def _check_references(
    step: dict[str, Any], visible: frozenset[str], by_name: dict[str, Any], defaults: dict[str, Any]
) -> Iterator[Problem]:
    """What a step reads must exist, and must not lie in a branch that may not run."""
    own = {key: value for key, value in step["Arguments"].items() if key not in ("IfSteps", "ElseSteps")}
    for path, reference in _references(own, ""):
        if reference.startswith("Parameters.") and reference.removeprefix("Parameters.") not in defaults:
            yield Problem(step["Name"], path, f"{reference} is not a parameter of the pipeline")
        match = REFERENCE.match(reference)
        if match and match.group(1) not in by_name:
            yield Problem(step["Name"], path, f"{reference} names no step")
        elif match and match.group(1) not in visible:
            yield Problem(step["Name"], path, f"{reference} lies in another branch, which may not run")
    for name in step.get("DependsOn", []):
        if name not in visible:
            yield Problem(step["Name"], "DependsOn", f"{name} is not a step that this one can wait for")


def _references(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if set(value) == {"Get"}:
            yield path, str(value["Get"])
            return
        for key, item in value.items():
            yield from _references(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _references(item, f"{path}[{index}]")


def _check_step(
    step: dict[str, Any], by_name: dict[str, Any], defaults: dict[str, Any], metrics: Collection[str]
) -> Iterator[Problem]:
    name, kind = step["Name"], step["Type"]
    if kind in OPERATIONS:
        operation, supplied = OPERATIONS[kind]
        request = resolve(step["Arguments"], defaults)
        for path, message in check_request(operation, request, supplied):
            yield Problem(name, path, message)
        yield from _check_combinations(name, request)
    elif kind == "Condition":
        yield from _check_conditions(step, by_name, defaults, metrics)
    elif kind == "Lambda" and not FUNCTION_ARN.fullmatch(step.get("FunctionArn", "")):
        yield Problem(name, "FunctionArn", f"{step.get('FunctionArn')!r} is not the ARN of a Lambda function")
    elif kind == "Callback" and not QUEUE_URL.fullmatch(step.get("SqsQueueUrl", "")):
        yield Problem(name, "SqsQueueUrl", f"{step.get('SqsQueueUrl')!r} is not the URL of an SQS queue")
    elif kind not in OTHER_STEPS:
        yield Problem(
            name, "Type", f"{kind} is not checked here; known: {', '.join(sorted({*OPERATIONS, *OTHER_STEPS}))}"
        )


def _check_combinations(name: str, request: dict[str, Any]) -> Iterator[Problem]:
    """What the API's model can't say because it lies between members."""
    from common.machines import has_local_storage

    cluster = request.get("ResourceConfig") or request.get("ProcessingResources", {}).get("ClusterConfig") or {}
    for place in (cluster, *cluster.get("InstancePreferences", ())):
        instance_type = place.get("InstanceType")
        if isinstance(instance_type, str) and has_local_storage(instance_type) and cluster.get("VolumeKmsKeyId"):
            message = f"{instance_type} has local disks, which its hardware encrypts; a volume key is refused"
            yield Problem(name, "VolumeKmsKeyId", message)
    stopping = request.get("StoppingCondition", {})
    run, wait = stopping.get("MaxRuntimeInSeconds"), stopping.get("MaxWaitTimeInSeconds")
    if request.get("EnableManagedSpotTraining"):
        if wait is None or (isinstance(run, int) and isinstance(wait, int) and wait < run):
            yield Problem(name, "StoppingCondition", f"spot needs MaxWaitTimeInSeconds ({wait}) of at least {run}")
        if "CheckpointConfig" not in request:
            yield Problem(name, "CheckpointConfig", "spot without checkpoints starts again from nothing")
    elif wait is not None:
        yield Problem(name, "StoppingCondition", "MaxWaitTimeInSeconds is for spot training only")


def _check_conditions(
    step: dict[str, Any], by_name: dict[str, Any], defaults: dict[str, Any], metrics: Collection[str]
) -> Iterator[Problem]:
    for index, condition in enumerate(step["Arguments"]["Conditions"]):
        path = f"Conditions[{index}]"
        for side in ("LeftValue", "RightValue"):
            get = condition.get(side, {}).get("Std:JsonGet") if isinstance(condition.get(side), dict) else None
            if get:
                yield from (Problem(step["Name"], path, message) for message in _check_json_get(get, by_name, metrics))
        right = resolve(condition.get("RightValue"), defaults)
        ordered = condition["Type"].startswith(("Greater", "Less"))
        if ordered and (isinstance(right, str | bool) or right is None):
            yield Problem(step["Name"], path, f"compares with {right!r}, which is not a number")


def _check_json_get(get: dict[str, Any], by_name: dict[str, Any], metrics: Collection[str]) -> Iterator[str]:
    reference = get.get("PropertyFile", {}).get("Get", "")
    match = re.fullmatch(r"Steps\.([^.]+)\.PropertyFiles\.(.+)", reference)
    step = by_name.get(match.group(1)) if match else None
    if not match or step is None:
        yield f"{reference!r} is not the property file of a step"
        return
    files = {file["PropertyFileName"]: file for file in step.get("PropertyFiles", [])}
    if match.group(2) not in files:
        yield f"{step['Name']} has no property file {match.group(2)!r}; it has: {', '.join(files) or 'none'}"
        return
    file = files[match.group(2)]
    outputs = [
        output["OutputName"] for output in step["Arguments"].get("ProcessingOutputConfig", {}).get("Outputs", [])
    ]
    if file["OutputName"] not in outputs:
        yield f"{step['Name']} has no output {file['OutputName']!r}; it has: {', '.join(outputs)}"
    if file["FilePath"] == "evaluation.json" and not known_path(get["Path"], metrics):
        yield f"{get['Path']!r} is not in evaluation.json; it has {PASSED}, and of metrics: {', '.join(metrics)}"


def known_path(path: str, metrics: Collection[str]) -> bool:
    """Whether docs/contracts.md promises this path in evaluation.json."""
    parts = path.split(".")
    return path == PASSED or (
        len(parts) == 4
        and parts[0] == "metrics"
        and parts[1] in metrics
        and parts[2] in ("candidate", "base", "base_few_shot", "improvement")
        and parts[3] in ("value", "low", "high")
    )
