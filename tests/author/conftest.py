"""Shared by the author-side tests: the repository's pipeline.yaml and what is built from it, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configuration.config import Config
from configuration.layers import load_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def config() -> Config:
    return load_config(ROOT / "pipeline.yaml")


@pytest.fixture(scope="session")
def definition_text(config: Config) -> str:
    from pipelines.finetuning import definition

    return definition(config)


@pytest.fixture
def definition(definition_text: str) -> dict[str, Any]:
    """The parsed definition, fresh for each test, which may change it."""
    parsed: dict[str, Any] = json.loads(definition_text)
    return parsed
