"""The pipeline's parameters: what a scheduled run may want to override, with pipeline.yaml's values as defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from common.dials import Dial
from configuration.dials import by_parameter, configured
from configuration.gate import parameter, rules, thresholds
from configuration.names import base_model, compared_with, endpoint_name, input_data_uri, model_package_group

if TYPE_CHECKING:
    from configuration.config import Config

APPROVAL = "ModelApprovalStatus"

# Dials whose null, or short form, stands for a name that the rest of the configuration makes.
DERIVED = {
    "InputDataUri": input_data_uri,
    "BaseModel": base_model,
    "BedrockComparedWith": compared_with,
    "ModelPackageGroupName": model_package_group,
    "EndpointName": endpoint_name,
}


def defaults(config: Config) -> dict[str, str | int | float]:
    """Every parameter with its default; the type of the default is the type of the parameter."""
    values: dict[str, str | int | float] = {}
    for name, dial in by_parameter().items():
        if name == APPROVAL and config.registry.approval != "Approved":
            continue  # who starts a run must not approve it, unless pipeline.yaml lets runs do so
        found = DERIVED[name](config) if name in DERIVED else configured(config, dial)
        values[name] = float(found) if dial.type is float else found
    return values | {parameter(rule): float(rule.threshold) for rule in rules(config)}


def overridable(config: Config) -> Mapping[str, Dial]:
    """Every dial that a run may override, the gate's thresholds too, by the name of its parameter."""
    return by_parameter() | thresholds(config)


def with_overrides(config: Config, given: Mapping[str, str]) -> Config:
    """The configuration as if pipeline.yaml had these values. Raises pydantic's ValidationError."""
    tree, dials = config.model_dump(), overridable(config)
    for name, value in given.items():
        dial = dials.get(name)
        if dial is None:
            continue
        if name in by_parameter():
            _put(tree, dial.key.split("."), dial.read(value))
        else:
            _, metric, against, asks = dial.key.split(".")
            for rule in tree["gate"]["rules"]:
                if (rule["metric"], rule["against"]) == (metric, against) and rule[asks] is not None:
                    rule[asks] = dial.read(value)
    return type(config).model_validate(tree)


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree[part]
    tree[path[-1]] = value


class Parameters:
    """The SDK's parameter objects by name: `parameters["Epochs"]`, or as text with `parameters.text("Epochs")`."""

    def __init__(self, config: Config) -> None:
        from sagemaker.core.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString

        kinds: dict[type, Any] = {str: ParameterString, int: ParameterInteger, float: ParameterFloat}
        self.by_name: dict[str, Any] = {}
        dials = overridable(config)
        for name, default in defaults(config).items():
            choices = dials[name].choices
            extra = {"enum_values": list(choices)} if choices else {}
            self.by_name[name] = kinds[type(default)](name=name, default_value=default, **extra)

    def __getitem__(self, name: str) -> Any:
        return self.by_name[name]

    def get(self, name: str, otherwise: Any) -> Any:
        """The parameter, or something else where the pipeline has none of that name."""
        return self.by_name.get(name, otherwise)

    def text(self, name: str) -> Any:
        """The parameter as a string: hyperparameters, container arguments and metadata accept nothing else."""
        parameter = self.by_name[name]
        return parameter if type(parameter.default_value) is str else parameter.to_string()

    def all(self) -> list[Any]:
        return list(self.by_name.values())
