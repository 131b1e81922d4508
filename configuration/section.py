"""What every part of pipeline.yaml is made of (configuration/config.py): typed fields, whose values the dials check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from configuration.dials import by_key, dial


def value_of(key: str) -> Any:
    """A field whose default and meaning are those of a dial; a dial without a default must be given."""
    found = dial(key)
    if found.default is None and not found.optional:
        return Field(description=found.meaning)
    return Field(default_factory=lambda: found.default, description=found.meaning)


class Section(BaseModel):
    """A part of pipeline.yaml: unknown keys are refused, types are not bent, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    place: ClassVar[str] = ""
    """The section's own key: `training`."""

    def problems(self) -> Iterator[str]:
        """Messages for what is wrong between fields; each may start with "key: "."""
        yield from ()

    @field_validator("*")
    @classmethod
    def _check_dial(cls, value: Any, info: ValidationInfo) -> Any:
        found = by_key().get(f"{cls.place}.{info.field_name}".lstrip("."))
        problem = found.problem(value) if found else None
        if problem:
            raise PydanticCustomError("dial", "{problem}", {"problem": problem})
        return value

    @model_validator(mode="after")
    def _check_rules(self) -> Section:
        broken = list(self.problems())
        if broken:
            raise PydanticCustomError("rules", "{broken}", {"broken": broken})
        return self
