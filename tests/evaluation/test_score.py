"""The whole evaluation, as a process on a tiny real model, and what it says when something is wrong."""

from __future__ import annotations

import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import bundled

from .conftest import rows, write_rows

OWN = Path(__file__).resolve().parents[1] / "support" / "own_metrics.py"
MODELS = ("candidate", "base", "base_few_shot", "champion")
RULES = (
    *("--rule", "exact_match base better_by 0.1 0.95"),
    *("--rule", "exact_match champion not_worse_than 0.2 0.95"),
    *("--rule", "latency_seconds value not_worse_than 60 0.95"),
)
METRICS = (
    "exact_match",
    "token_f1",
    "rouge_l",
    "chrf",
    "json_valid",
    "json_field_accuracy",
    "validation_loss",
    "latency_seconds",
)


def script(name: str) -> str:
    return str(bundled("evaluation") / f"{name}.py")


def run(name: str, *flags: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", script(name), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Test rows 0 to 19, of which the tuned model knows the first ten; training rows with a value of HTML in them."""
    folder = tmp_path_factory.mktemp("data")
    test = rows(20)
    test[3]["messages"][0]["content"] += " <script>alert(1)</script>"
    return write_rows(folder / "test", test), write_rows(folder / "train", rows(10))


@pytest.fixture(scope="session")
def scored(
    tmp_path_factory: pytest.TempPathFactory, data: tuple[Path, Path], tuned: Path, base: Path
) -> tuple[Path, str]:
    folder, output = tmp_path_factory.mktemp("scored"), []
    with tarfile.open(folder / "model.tar.gz", "w:gz") as tar:
        tar.add(tuned, ".")
    rows = ("--data", data[0], "--train-data", data[1], "--batch-size", 8, "--seed", 4)
    for role, place in (("base", base), ("champion", folder)):
        text = run("reference", "--as", role, "--model", place, "--few-shot", 2, "--output", folder / role, *rows)
        output.append(said(text))
    output.append(said(run("score", "--model", folder / "model.tar.gz", "--base-scores", folder / "base",
                           "--champion-scores", folder / "champion", "--output", folder / "out", *rows,
                           *RULES)))  # fmt: skip
    return folder / "out", "".join(output)


@pytest.fixture(scope="session")
def evaluation(scored: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((scored[0] / "evaluation.json").read_text(encoding="utf-8"))


def test_evaluation_json_keeps_the_contract(evaluation: dict[str, Any]) -> None:
    assert set(evaluation["metrics"]) == set(METRICS)
    assert evaluation["version"] == 1
    assert evaluation["rows"] == 20
    for metric in evaluation["metrics"].values():
        assert set(metric) == {*MODELS, "improvement", "improvement_on_champion"}
        for estimate in metric.values():
            assert set(estimate) == {"value", "low", "high"}
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert set(evaluation["models"]) == {"candidate", "base", "champion"}
    assert evaluation["training"]["steps"] >= 20
    assert set(evaluation["majority"]) == {"prediction", "exact_match"}
    assert evaluation["settings"]["few_shot"] == 2
    assert {rule["verdict"] for rule in evaluation["gate"]["rules"]} == {"met"}
    assert evaluation["gate"]["passed"] == 1
    assert evaluation["gate"]["text"] == "The gate passed: 3 of 3 rules met over 20 rows."


def test_the_champion_that_is_the_tuned_model_answers_alike(evaluation: dict[str, Any]) -> None:
    """It is scored in a process of its own, from a file of scores; nothing may get lost on the way."""
    for name, metric in evaluation["metrics"].items():
        if name != "latency_seconds":
            assert metric["champion"] == metric["candidate"], name
            assert metric["improvement_on_champion"]["value"] == 0


def test_what_was_learned_is_right_and_the_rest_is_not(evaluation: dict[str, Any], scored: tuple[Path, str]) -> None:
    records = [json.loads(line) for line in (scored[0] / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["row"] for record in records] == list(range(20))
    right = [record["row"] for record in records if record["metrics"]["candidate"]["exact_match"] == 1]
    assert set(range(10)) - {3} <= set(right)
    assert evaluation["metrics"]["exact_match"]["candidate"]["value"] == pytest.approx(len(right) / 20)
    assert evaluation["metrics"]["exact_match"]["base"]["value"] == 0
    assert evaluation["metrics"]["exact_match"]["improvement"]["low"] > 0
    loss = evaluation["metrics"]["validation_loss"]
    assert loss["candidate"]["value"] < loss["base"]["value"]
    assert evaluation["metrics"]["latency_seconds"]["candidate"]["value"] > 0


def test_slices_add_up(evaluation: dict[str, Any]) -> None:
    slices = {entry["name"]: entry for entry in evaluation["slices"]}
    assert {"room kitchen", "room attic", "target LightOn", "a text value never seen in training"} <= set(slices)
    assert slices["target LightOn"]["rows"] + slices["target LightOff"]["rows"] == 20
    kitchens = slices["a text value never seen in training"]
    assert kitchens["rows"] == slices["room kitchen"]["rows"], "no training row has the kitchen"
    assert kitchens["rows"] + slices["all text values seen in training"]["rows"] == 20
    for entry in evaluation["slices"]:
        assert {"exact_match", "validation_loss"} <= set(entry["metrics"])
        assert "latency_seconds" not in entry["metrics"]
    whole = evaluation["metrics"]["exact_match"]["candidate"]["value"] * 20
    halves = [slices[name] for name in ("target LightOn", "target LightOff")]
    assert sum(half["metrics"]["exact_match"]["candidate"]["value"] * half["rows"] for half in halves) == pytest.approx(
        whole
    )


def test_progress_is_told_for_each_model(scored: tuple[Path, str]) -> None:
    for model in MODELS:
        assert re.search(rf"^\[score\] model={model} rows=8/20 seconds=\d+$", scored[1], re.MULTILINE)
        assert f"[score] model={model} rows=20/20" in scored[1]


class Page(html.parser.HTMLParser):
    """Collects tags, and text outside of style sheets."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_one_safe_page(scored: tuple[Path, str]) -> None:
    text = (scored[0] / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed"}
    assert "<script>alert(1)</script>" in page.text, "text from data must be shown, as text"
    assert not [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert "url(" not in text
    assert "@import" not in text
    assert sum(tag == "svg" for tag, _ in page.tags) > 4
    assert all(attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg")
    assert "Better than its base" in page.text
    assert "Loss during training" in page.text
    assert "prefers-color-scheme: dark" in text


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers so
def test_an_adapter_alone_is_put_on_the_base_model(tmp_path: Path, data: tuple[Path, Path], base: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model_directory = tmp_path / "model"
    torch.manual_seed(1)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    )
    model.save_pretrained(model_directory / "adapter")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base / name, model_directory / name)
    rows = ("--data", data[0], "--train-data", data[1], "--max-rows", 5, "--max-new-tokens", 4)
    said(run("reference", "--as", "base", "--model", base, "--few-shot", 1, "--output", tmp_path / "base", *rows))
    done = run("score", "--model", model_directory, "--base-model", base, "--base-scores", tmp_path / "base",
               "--output", tmp_path / "out", "--custom-metrics", OWN, *rows)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert found["metrics"]["longer_by"]["candidate"]["value"] < 0, "four tokens are fewer characters than a call"
    assert found["own_metrics"]["area_right"] == {"label": "Area named", "lower_is_better": False, "share": True}
    assert found["rows"] == 5
    assert found["training"] is None
    loss = found["metrics"]["validation_loss"]
    assert loss["candidate"]["value"] != loss["base"]["value"], "the adapter must have been applied"


def test_errors_are_one_line(
    tmp_path: Path,
    data: tuple[Path, Path],
    tuned: Path,
    base: Path,
    scored: tuple[Path, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    import reference
    import score

    adapter = tmp_path / "adapter"
    shutil.copytree(tuned, adapter, ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    (adapter / "adapter").mkdir()
    (adapter / "adapter" / "adapter_config.json").write_text("{}")
    shutil.copy(tuned / "model.safetensors", adapter / "adapter")
    bare = tmp_path / "bare"
    shutil.copytree(tuned, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    pickled = tmp_path / "pickled"
    shutil.copytree(tuned, pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    broken = write_rows(tmp_path / "broken", [])
    (broken / "rows.jsonl").write_text('{"messages": []}\n')
    no_table = tmp_path / "own.py"
    no_table.write_text("x = 1\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    scores = scored[0].parent / "base"
    unread = tmp_path / "unread"
    unread.mkdir()
    (unread / "scores.json").write_text('{"version": 1}')
    rows: dict[str, Any] = {"data": data[0], "train-data": data[1], "output": tmp_path / "out"}
    asked: dict[str, Any] = {"as": "base", "model": base, **rows}
    good: dict[str, Any] = {"model": tuned, "base-scores": scores, "seed": 4, **rows}
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (score, {**good, "model": tmp_path / "absent"}, "no such file"),
        (score, {**good, "model": bare}, "no tokenizer"),
        (score, {**good, "model": pickled}, "pytorch_model.bin"),
        (score, {**good, "model": empty}, "no tokenizer"),
        (score, {**good, "model": adapter}, "an adapter alone; --base-model is what it goes on"),
        (score, {**good, "model": adapter, "base-model": tmp_path / "absent"}, "no such directory"),
        (score, {**good, "base-scores": empty}, "no such file; reference.py writes it"),
        (score, {**good, "base-scores": unread}, "is not what reference.py writes"),
        (score, {**good, "max-rows": 19}, "are of other rows than --data, --max-rows and --seed give"),
        (score, {**good, "data": empty}, "no .jsonl file"),
        (score, {**good, "data": broken}, "rows.jsonl, line 1: not a canonical row"),
        (score, {**good, "train-data": empty}, "no .jsonl file"),
        (score, {**good, "custom-metrics": tmp_path / "absent.py"}, "No such file or directory"),
        (score, {**good, "custom-metrics": no_table}, "own.py: needs one table METRICS"),
        (reference, {**asked, "model": tmp_path / "absent"}, "no such directory"),
        (reference, {**asked, "model": empty}, "no model in it"),
        (reference, {**asked, "data": broken}, "rows.jsonl, line 1: not a canonical row"),
        (reference, {**asked, "train-data": empty}, "no .jsonl file"),
    ]
    for number, (program, given, words) in enumerate(cases):
        note = tmp_path / f"message-{number}"
        flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
        assert program.main([*flags, "--message-file", str(note)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
        assert line == f"{program.__name__}.py: error: {note.read_text().removesuffix(chr(10))}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "option"), [("score", "--rule"), ("reference", "--few-shot")])
def test_help_answers_in_a_bare_interpreter(name: str, option: str) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-E", script(name), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for flag in ("--model", "--base-model", "--data", "--train-data", "--max-new-tokens", "--max-rows", option):
        assert flag in done.stdout
