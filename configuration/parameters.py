"""The pipeline's parameters: what a scheduled run may want to override, with pipeline.yaml's values as defaults."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from common.dials import Dial
from configuration.dials import by_parameter, configured
from configuration.gate import bounds, thresholds
from configuration.names import base_model, endpoint_name, input_data_uri, model_package_group

if TYPE_CHECKING:
    from configuration.config import Config

# Dials whose null, or short form, stands for a name that the rest of the configuration makes.
DERIVED = {
    "InputDataUri": input_data_uri,
    "BaseModel": base_model,
    "ModelPackageGroupName": model_package_group,
    "EndpointName": endpoint_name,
}


def defaults(config: Config) -> dict[str, str | int | float]:
    """Every parameter with its default; the type of the default is the type of the parameter."""
    values: dict[str, str | int | float] = {}
    for name, dial in by_parameter().items():
        found = DERIVED[name](config) if name in DERIVED else configured(config, dial)
        values[name] = float(found) if dial.type is float else found
    return values | {bound.parameter: float(bound.threshold) for bound in bounds(config)}


@functools.cache
def overridable() -> Mapping[str, Dial]:
    """Every dial that a run may override, the gate's thresholds too, by the name of its parameter."""
    return by_parameter() | thresholds()


class Parameters:
    """The SDK's parameter objects by name: `parameters["Epochs"]`, or as text with `parameters.text("Epochs")`."""

    def __init__(self, config: Config) -> None:
        from sagemaker.core.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString

        kinds: dict[type, Any] = {str: ParameterString, int: ParameterInteger, float: ParameterFloat}
        self.by_name: dict[str, Any] = {}
        for name, default in defaults(config).items():
            choices = overridable()[name].choices
            extra = {"enum_values": list(choices)} if choices else {}
            self.by_name[name] = kinds[type(default)](name=name, default_value=default, **extra)

    def __getitem__(self, name: str) -> Any:
        return self.by_name[name]

    def text(self, name: str) -> Any:
        """The parameter as a string: hyperparameters, container arguments and metadata accept nothing else."""
        parameter = self.by_name[name]
        return parameter if type(parameter.default_value) is str else parameter.to_string()

    def all(self) -> list[Any]:
        return list(self.by_name.values())
