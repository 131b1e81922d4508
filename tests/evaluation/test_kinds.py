"""Preferences and texts: what is measured of each, held against plain transformers, and what the page says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from .conftest import evaluate, rows, write_rows
from .test_score import Page

MODELS = ("candidate", "base", "base_few_shot")
WINDOW = 48


def preferences(count: int, start: int = 0) -> list[dict[str, Any]]:
    """The rows of conftest with a worse answer each: the other tool, in a longer text every third time."""
    made = []
    for number, row in enumerate(rows(count, start)):
        *prompt, chosen = row.pop("messages")
        worse = chosen["content"].replace("LightO", "DoorO") + " please" * (number % 3 == 0)
        made.append({"messages": prompt, "chosen": chosen, "rejected": {**chosen, "content": worse}, **row})
    return made


def documents() -> list[dict[str, Any]]:
    """Texts like the rows', a third of them longer than a window."""
    said = [" ".join(message["content"] for message in row["messages"]) for row in rows(12)]
    return [
        {"text": text * (6 if number % 3 == 0 else 1), "slice": f"k{number % 2}"} for number, text in enumerate(said)
    ]


def outcome(output: Path) -> tuple[dict[str, Any], list[dict[str, Any]], Page]:
    evaluation = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
    lines = (output / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return evaluation, [json.loads(line) for line in lines], Page((output / "report.html").read_text(encoding="utf-8"))


Outcome = tuple[dict[str, Any], list[dict[str, Any]], Page]


@pytest.fixture(scope="module")
def preferred(tmp_path_factory: pytest.TempPathFactory, tuned: Path, base: Path) -> Outcome:
    """Test rows 0 to 13, of which the tuned model knows the chosen answers of the first ten."""
    folder = tmp_path_factory.mktemp("preferred")
    data, training = write_rows(folder / "test", preferences(14)), write_rows(folder / "train", preferences(10))
    assert evaluate(tuned, base, data, training, folder / "out", "--few-shot", "2", "--max-new-tokens", "40") == 0
    return outcome(folder / "out")


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory, tuned: Path, base: Path) -> Outcome:
    """Texts, read in windows of 48 tokens, as training read them."""
    folder = tmp_path_factory.mktemp("read")
    data = write_rows(folder / "test", documents())
    assert evaluate(tuned, base, data, folder / "not read", folder / "out", "--max_seq_length", str(WINDOW)) == 0
    return outcome(folder / "out")


def loss(model: Any, ids: list[int], given: int) -> float:
    """The summed loss of the tokens after the first `given`."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, given - 1 : -1].double()
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[given:]), reduction="sum"))


def loaded(directory: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(directory)


def test_preferences_are_counted_by_the_mean_loss_of_both_answers(preferred: Outcome, base: Path) -> None:
    evaluation, records, _ = preferred
    assert evaluation["kind"] == "preference"
    assert list(evaluation["metrics"]) == [
        "preference_accuracy", "exact_match", "json_field_accuracy", "json_valid", "token_f1", "rouge_l", "chrf",
        "validation_loss", "latency_seconds",
    ]  # fmt: skip
    model, tokenizer = loaded(base)
    for row, record in zip(preferences(14), records, strict=True):
        prompt = tokenizer.apply_chat_template(row["messages"], add_generation_prompt=True, tokenize=False)
        asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        means = []
        for name in ("chosen", "rejected"):
            answer = tokenizer(row[name]["content"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
            means.append(loss(model, asked + answer, len(asked)) / len(answer))
        found = record["metrics"]["base"]
        assert (found["loss"], found["rejected_loss"]) == pytest.approx(means, rel=2e-3)
        assert record["target"] == row["chosen"]["content"]
        assert record["rejected"] == row["rejected"]["content"]
        for model_name in MODELS:
            found = record["metrics"][model_name]
            assert found["preference_accuracy"] == float(found["loss"] < found["rejected_loss"])
    assert all(record["metrics"]["candidate"]["preference_accuracy"] == 1 for record in records[:10])
    assert sum(record["metrics"]["candidate"]["exact_match"] for record in records[:10]) >= 9, "chosen is the target"
    for model_name in MODELS:
        right = sum(record["metrics"][model_name]["preference_accuracy"] for record in records)
        assert evaluation["metrics"]["preference_accuracy"][model_name]["value"] == pytest.approx(right / 14, abs=1e-6)
    assert all("preference_accuracy" in entry["metrics"] for entry in evaluation["slices"])


def test_the_page_of_preferences_speaks_of_them(preferred: Outcome) -> None:
    evaluation, _, page = preferred
    assert f"Preference accuracy on {evaluation['rows']} rows that training never saw" in page.text
    assert "Right means: the chosen answer has the higher probability per token." in page.text
    assert "Mean loss of a pair of answers" in page.text
    assert "always the same answer" not in page.text
    assert "DoorO" in page.text, "the rejected answer is shown"
    check_page(page)


def test_alike_is_half_a_preference() -> None:
    from results import preferred as share

    assert (share(1.0, 1.0), share(1.0, 1.5), share(1.5, 1.0)) == (0.5, 1.0, 0.0)


def test_examples_show_chosen_answers(tmp_path: Path) -> None:
    from data import load_rows
    from few_shot import FewShot

    kind, made = load_rows(write_rows(tmp_path / "rows", preferences(10)))
    assert kind == "preference"
    prompt = FewShot(made, 3, 0).prompt(made[0])
    assert [message["role"] for message in prompt] == ["system", *["user", "assistant"] * 3, "user"]
    assert "LightO" in json.dumps(prompt)
    assert "DoorO" not in json.dumps(prompt)


def test_texts_are_measured_by_every_token_in_trainings_windows(read: Outcome, tuned: Path, base: Path) -> None:
    evaluation, records, _ = read
    assert evaluation["kind"] == "text"
    assert list(evaluation["metrics"]) == ["validation_loss"]
    assert evaluation["majority"] is None
    assert evaluation["settings"]["window_tokens"] == WINDOW
    assert "base_few_shot" not in evaluation["settings"]["seconds"]
    found = evaluation["metrics"]["validation_loss"]
    assert found["base_few_shot"] == found["base"]
    for name, directory in (("candidate", tuned), ("base", base)):
        model, tokenizer = loaded(directory)
        sums, counts = 0.0, 0
        for row, record in zip(documents(), records, strict=True):
            ids = [*tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id]
            windows = [ids[start : start + WINDOW] for start in range(0, len(ids) - 1, WINDOW - 1)]
            assert sum(len(window) - 1 for window in windows) == len(ids) - 1
            mean = sum(loss(model, window, 1) for window in windows) / (len(ids) - 1)
            assert record["metrics"][name]["loss"] == pytest.approx(mean, rel=2e-3)
            sums, counts = sums + mean * (len(ids) - 1), counts + len(ids) - 1
        assert found[name]["value"] == pytest.approx(sums / counts, rel=2e-3)
    gain = found["base"]["value"] - found["candidate"]["value"]
    assert found["improvement"]["value"] == pytest.approx(gain, abs=1e-5)
    assert [record["text"] for record in records] == [row["text"][:1000] for row in documents()]
    assert {record["slice"] for record in records} == {"k0", "k1"}
    assert {"k0", "k1"} <= {entry["name"] for entry in evaluation["slices"]}
    assert all(list(entry["metrics"]) == ["validation_loss"] for entry in evaluation["slices"])
    assert not [entry["name"] for entry in evaluation["slices"] if "prompt" in entry["name"]]


def check_page(page: Page) -> None:
    """No table or chart is empty, and nothing that isn't there is named."""
    names = [tag for tag, _ in page.tags]
    for place, name in enumerate(names):
        if name == "tbody":
            assert names[place + 1] == "tr"
        if name == "svg":
            assert names[place + 1 : place + 3] == ["title", "line"]
    assert not re.search(r"\b(None|nan|Undefined)\b", page.text)


def test_the_page_of_texts_reads_without_answers(read: Outcome) -> None:
    evaluation, _, page = read
    found = evaluation["metrics"]["validation_loss"]
    verdict = (
        f"Loss per token on 12 texts that training never saw: {found['candidate']['value']:.3f} tuned, "
        f"{found['base']['value']:.3f} for the base model. The gain is {found['improvement']['value']:+.3f}"
    )
    assert verdict in page.text
    for words in ("few-shot", "with examples", "Exact match", "Answers to read", "wanted", "0 to 100%", "rows from"):
        assert words not in page.text, words
    for words in ("Texts to read", "12 texts", "Tokens of a text read at once", "Loss during training", "per token"):
        assert words in page.text, words
    assert not [attributes for tag, attributes in page.tags if tag == "rect"], "no bars of shares"
    check_page(page)


def test_kinds_are_not_measured_together(
    tmp_path: Path, tuned: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chats, pairs, texts = rows(3), preferences(3), documents()[:3]
    cases = [
        (chats + pairs, chats, "rows.jsonl, line 4: a preference row, where the others are messages rows"),
        ([*texts, chats[0]], texts, "rows.jsonl, line 4: a messages row, where the others are text rows"),
        (pairs, chats, "rows.jsonl, line 1: a messages row, where the others are preference rows"),
    ]
    for number, (test, training, said) in enumerate(cases):
        folder = tmp_path / str(number)
        data, shown = write_rows(folder / "test", test), write_rows(folder / "train", training)
        assert evaluate(tuned, base, data, shown, folder / "out") == 1
        assert said in capsys.readouterr().err


def test_windows_are_no_longer_than_the_model_reads(base: Path) -> None:
    from passes import LONGEST_WINDOW, window_size

    model, _ = loaded(base)
    assert window_size(model, 256) == 256
    assert window_size(model, 4096) == window_size(model, None) == model.config.max_position_embeddings
    model.config.max_position_embeddings = 1 << 20
    assert window_size(model, None) == window_size(model, 1 << 15) == LONGEST_WINDOW
