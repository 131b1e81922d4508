"""Decides when to evaluate, save and stop, and prints the progress. Runs in the GPU training container.

    [train] step=12/147 epoch=0.25 train:loss=1.2345 train:learning_rate=0.0018 \
        train:completion_tokens_per_second=165.2 train:eta_seconds=93                      (one line)
    [eval] step=50/147 validation:loss=0.5432

Its state travels in every checkpoint, so that a resumed run reports and stops like an uninterrupted one.
"""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from training_errors import StopRequestedError
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from common.failure import JobError

if TYPE_CHECKING:
    from packed_trainer import PackedTrainer

SECONDS_BETWEEN_LINES = 1.0
HISTORY_POINTS = 200


class StopSignal:
    """SIGTERM as a flag while `armed`; before training begins there is nothing to save, so it ends the job at once."""

    def __init__(self) -> None:
        self.requested = False
        self.armed = False

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._handle)
        if folder := os.environ.get("FMOPS_STOP_DIR"):  # launch.py looks there for whom to tell
            Path(folder, str(os.getpid())).touch()

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if not self.armed:
            raise StopRequestedError("SIGTERM before the first step: nothing to save")


def evenly(times: int, total: int) -> set[int]:
    """`times` steps spread over 1..total, the last among them; fewer if there are fewer steps."""
    return {math.ceil(total * part / times) for part in range(1, times + 1)} if times else set()


class RunProgress(TrainerCallback, ExportableState):  # type: ignore[misc]  # transformers has no types
    """Schedule, lines, history, early stopping and SIGTERM for one run of PackedTrainer."""

    def __init__(
        self, evaluations: set[int], checkpoints: set[int], patience: int, stop: StopSignal, total: int
    ) -> None:
        self.evaluations, self.checkpoints, self.patience, self.stop = evaluations, checkpoints, patience, stop
        self.trainer: PackedTrainer | None = None
        self.kept: dict[str, Any] = {
            "completion_tokens": 0,
            "seconds": 0.0,
            "window_loss": 0.0,
            "window_tokens": 0,
            "evaluations_without_gain": 0,
            "stopped_early": False,
            "evaluation_missing": False,
        }
        self._history_steps = evenly(min(total, HISTORY_POINTS), total)
        self._began = self._printed = time.monotonic()
        self._seconds_before = 0.0
        self._tokens_here = self._steps_here = 0
        self._line_loss = self._line_tokens = 0.0

    def state(self) -> dict[str, Any]:
        self.kept["seconds"] = self.seconds()
        return {"args": {}, "attributes": {"kept": dict(self.kept)}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RunProgress:
        """Not used: a run's progress is built from its hyperparameters and takes `kept` from the checkpoint."""
        raise NotImplementedError

    def restore(self, stateful_callbacks: dict[str, Any]) -> None:
        saved = stateful_callbacks.get(type(self).__name__) or {}
        saved = saved[-1] if isinstance(saved, list) else saved
        self.kept.update(saved.get("attributes", {}).get("kept", {}))
        self._seconds_before = self.kept["seconds"]

    def seconds(self) -> float:
        """Wall seconds of training so far, those of the killed runs up to their last checkpoint included."""
        return self._seconds_before + time.monotonic() - self._began

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = self._printed = time.monotonic()
        self.stop.armed = True
        if self.kept["evaluation_missing"] and self.trainer is not None:
            self.kept["evaluation_missing"] = False
            self.trainer.evaluate_late()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.trainer is not None
        loss, tokens = self.trainer.take_step_loss()
        if not math.isfinite(loss):
            raise JobError(
                f"the loss is {loss} at step {state.global_step}: lower learning_rate, raise warmup_ratio, "
                "or set precision to fp32"
            )
        kept = self.kept
        kept["completion_tokens"] += tokens
        kept["window_loss"] += loss * tokens
        kept["window_tokens"] += tokens
        self._line_loss += loss * tokens
        self._line_tokens += tokens
        self._tokens_here += tokens
        self._steps_here += 1
        if state.global_step in self._history_steps:
            self._remember(state)
        control.should_evaluate = state.global_step in self.evaluations
        control.should_save = state.global_step in self.checkpoints or state.global_step == state.max_steps
        if self.trainer.agree(self.stop.requested):
            kept["evaluation_missing"] = control.should_evaluate
            control.should_evaluate = False
            control.should_save = control.should_training_stop = self.stop.requested = True
        if state.is_world_process_zero:
            self._print(state, last=control.should_training_stop or state.global_step == state.max_steps)

    def evaluation_cut(self, control: Any) -> None:
        """SIGTERM came during an evaluation: save now, evaluate when the run is resumed."""
        self.kept["evaluation_missing"] = True
        control.should_save = control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Before the Trainer updates its best metric, so `best_metric` is still the earlier evaluations'."""
        loss = metrics["eval_loss"]
        if state.is_world_process_zero:
            print(f"[eval] step={state.global_step}/{state.max_steps} validation:loss={loss:.4f}", flush=True)
        if not math.isfinite(loss):
            raise JobError(f"the validation loss is {loss} at step {state.global_step}: lower learning_rate")
        if state.best_metric is None or loss < state.best_metric:
            self.kept["evaluations_without_gain"] = 0
            control.should_save = True  # best weights are only found again if they are in a checkpoint
            return
        self.kept["evaluations_without_gain"] += 1
        if self.patience and self.kept["evaluations_without_gain"] >= self.patience:
            self.kept["stopped_early"] = True
            control.should_training_stop = control.should_save = True

    def _remember(self, state: Any) -> None:
        kept = self.kept
        entry = {"step": state.global_step, "loss": kept["window_loss"] / kept["window_tokens"]}
        state.log_history.append({**entry, "learning_rate": self._learning_rate()})
        kept["window_loss"], kept["window_tokens"] = 0.0, 0

    def _learning_rate(self) -> float:
        assert self.trainer is not None
        return float(self.trainer.step_learning_rate)

    def _print(self, state: Any, last: bool) -> None:
        now = time.monotonic()
        if not last and self._steps_here > 1 and now - self._printed < SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        elapsed = max(now - self._began, 1e-9)
        remaining = (state.max_steps - state.global_step) * elapsed / self._steps_here
        rate = f"{self._learning_rate():.10f}".rstrip("0")  # never 1e-05: the metric definitions read digits
        rate += "0" * rate.endswith(".")
        print(
            f"[train] step={state.global_step}/{state.max_steps} epoch={state.epoch:.2f} "
            f"train:loss={self._line_loss / self._line_tokens:.4f} train:learning_rate={rate} "
            f"train:completion_tokens_per_second={self._tokens_here / elapsed:.1f} train:eta_seconds={remaining:.0f}",
            flush=True,
        )
        self._line_loss = self._line_tokens = 0.0
