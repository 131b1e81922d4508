"""Rows and examples that are longer than the model's positions: said and counted, never an IndexError."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.chat_templates import templated
from tests.support.model_life import ModelLife
from tests.support.tiny_families import FAMILIES, make_family

from .conftest import rows

POSITIONS = 160


@pytest.fixture(params=["gpt2", "opt", "llama", "gemma2"])
def life(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelLife:
    """A model of few positions; the third test row is longer than these, and the second's answer just fits."""
    family = request.param
    name = "n_positions" if family == "gpt2" else "max_position_embeddings"
    kind, values = FAMILIES[family]
    monkeypatch.setitem(FAMILIES, family, (kind, {**values, name: POSITIONS}))
    base = make_family(tmp_path / family, family, templated("chatml"))
    test = rows(4, start=20)
    test[2]["messages"][0]["content"] += " and dim it" * 60
    return ModelLife(tmp_path, base, rows(12), test)


def test_examples_and_rows_are_fitted_into_the_positions(life: ModelLife) -> None:
    assert life.score(few_shot=5, max_new_tokens=64, model=life.base) == 0, life.err
    settings = life.evaluation["settings"]
    assert settings["rows_cut"] == 1
    assert settings["few_shot_fewer"] == 4, "five examples fit no row"
    assert "model=base: 1 of 4 rows are longer, with their answers, than the model's 160 positions" in life.out
    assert "4 of 4 rows get fewer examples" in life.out
    assert life.evaluation["rows"] == 4
    assert all(metric["base"]["value"] is not None for metric in life.evaluation["metrics"].values())


def test_training_on_longer_rows_is_refused_before_it_begins(life: ModelLife) -> None:
    assert life.train() == 1
    assert "training.max_seq_length is 1024, but the model has 160 positions" in life.job.failure()
    assert "[setup]" not in life.job.out


def test_an_answer_ends_where_the_positions_do(life: ModelLife) -> None:
    from generation import Generator
    from models import load_model, load_tokenizer

    generator = Generator(load_model(life.base), load_tokenizer(life.base))
    generator.ends = generator.library.ends = [0]  # a token that random models don't choose
    generator.tokenizer = SimpleNamespace(decode=lambda answer, **_: str(len(answer)))
    ids = list(range(3, 200))
    room = (0, 1, 5, 5, 40, 100)
    assert generator.generate([ids[: POSITIONS - left] for left in room], 20, 4) == ["0", "1", "5", "5", "20", "20"]
