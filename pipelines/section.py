"""What every part of pipeline.yaml is made of (pipelines/config.py)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

InstanceType = Annotated[
    str,
    Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$", description="an ML instance type, for example ml.g5.2xlarge"),
]


class Section(BaseModel):
    """A part of pipeline.yaml: unknown keys are refused, types are not bent, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def rules(self) -> Iterator[str]:
        """Messages for what is wrong between fields; each may start with "key: "."""
        yield from ()

    @model_validator(mode="after")
    def _check_rules(self) -> Section:
        broken = list(self.rules())
        if broken:
            raise PydanticCustomError("rules", "{broken}", {"broken": broken})
        return self
