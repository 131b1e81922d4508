"""A model's whole life in this process, for tests: a base of any family is trained, merged, scored and served.

life = ModelLife(tmp_path, make_family(tmp_path / "gemma", "gemma", templated("gemma")))
assert life.train(max_steps=4) == 0, life.job.err
life.score(); life.serve("set the hall lights")
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.training_job import TrainingJob, lamp_rows, write_rows

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("training", "evaluation", "serving")
ROWS, TEST = lamp_rows(10), lamp_rows(6, offset=10)


class ModelLife:
    """`rows` are trained on, `test` ones scored."""

    def __init__(self, folder: Path, base: Path, rows: list[Any] = ROWS, test: list[Any] = TEST) -> None:
        for name in FOLDERS:
            if str(ROOT / name) not in sys.path:
                sys.path.insert(0, str(ROOT / name))
        self.folder, self.base, self.test = folder, base, test
        self.job = TrainingJob(folder / "job", base, rows)
        self.out = self.err = ""

    def train(self, **hyperparameters: Any) -> int:
        chosen = {"batch_size": 10, "max_steps": 3, "learning_rate": 0.01, "lora_rank": 4, "lora_dropout": 0.0,
                  "checkpoints_per_run": 1, "precision": "fp32", **hyperparameters}  # fmt: skip
        return self.job.run(**chosen)

    def score(self, few_shot: int, max_new_tokens: int, model: Path | None = None) -> int:
        """Base and tuned model as EvaluateBase and Evaluate score them; the exit code of the last that ran.

        The report is in `evaluation`, the rows' answers are in `predictions`.
        """
        import reference
        import score

        rows = ("--data", write_rows(self.folder / "test", self.test), "--max-new-tokens", max_new_tokens,
                "--train-data", self.job.environment["SM_CHANNEL_TRAIN"])  # fmt: skip
        scores = self.folder / "base-scores"
        steps: tuple[tuple[Any, tuple[Any, ...]], ...] = (
            (reference, ("--as", "base", "--model", self.base, "--few-shot", few_shot, "--output", scores)),
            (score, ("--model", model or self.job.model_dir, "--base-scores", scores, "--output",
                     self.folder / "scored")),
        )  # fmt: skip
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            for module, arguments in steps:
                code = code or module.main([str(word) for word in (*arguments, *rows)])
        self.out, self.err = out.getvalue(), err.getvalue()
        return code

    @property
    def evaluation(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "scored" / "evaluation.json").read_text())
        return found

    @property
    def predictions(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "scored" / "predictions.jsonl").read_text().splitlines()]

    def serve(self, requests: Sequence[dict[str, Any]]) -> list[str]:
        """The endpoint's answers, through its four functions."""
        served = inference()
        model = served.model_fn(str(self.job.model_dir))
        try:
            asked = [served.input_fn(json.dumps(request)) for request in requests]
            answers = [json.loads(served.output_fn(served.predict_fn(request, model))) for request in asked]
        finally:
            model.close()
        return [answer[0]["generated_text"] for answer in answers]


def inference() -> Any:
    """serving/inference.py under a name of its own: `inference` may be another package's module."""
    name = "fmops_serving_inference"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "serving" / "inference.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
