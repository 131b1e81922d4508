"""Decides when to evaluate, save and stop, and prints the progress. Runs in the GPU training container.

    [train] step=12/147 epoch=0.25 train:loss=1.2345 train:learning_rate=0.0018 train:gradient_norm=0.8123 \
        train:completion_tokens_per_second=165.2 train:tokens_per_second=1480.3 train:eta_seconds=93 \
        train:memory_gib=17.21 train:mfu=0.412           (one line; mfu on GPUs whose peak is known: throughput.py)
    [eval] step=50/147 validation:loss=0.5432

Its state travels in every checkpoint, so that a resumed run reports and stops like an uninterrupted one.
"""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints import latest_whole
from stop import StopSignal
from throughput import peak_memory
from time_limit import TimeLimit
from trackers import Tracker
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from common.failure import JobError

if TYPE_CHECKING:
    from packed_trainer import PackedTrainer

SECONDS_BETWEEN_LINES = 1.0
HISTORY_POINTS = 200
# A run diverges if its loss is for so many steps in a row so many times the median of the steps before. Twenty, since
# single batches and short spikes recover; three, since batches of one run differ by less than that for twenty steps.
# The median counts as 0.5 where it is less: a run that knows its rows by heart may well meet harder ones.
DIVERGED_STEPS, DIVERGED_TIMES, MEDIAN_STEPS, LEAST_MEDIAN = 20, 3.0, 100, 0.5
# Time that is kept free for a save and what else ends a job: at most, and as a share of the limit.
SPARE_SECONDS, SPARE_SHARE = 30.0, 0.05
# A save's bytes (weights and two moments in fp32) and how many are written a second, until a save has been measured.
SAVED_BYTES, BYTES_A_SECOND = 12, 1e8


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
        self.trackers: list[Tracker] = []
        self.out_of_time = False
        self.limit: TimeLimit | None = None
        self._save_seconds = self._step_seconds = self._evaluation_seconds = 0.0
        self._step_ended = 0.0
        self.kept: dict[str, Any] = {
            "completion_tokens": 0,
            "tokens": 0,
            "seconds": 0.0,
            "window_loss": 0.0,
            "window_tokens": 0,
            "evaluations_without_gain": 0,
            "stopped_early": False,
            "evaluation_missing": False,
            "losses": [],  # of the last steps, without those of `high_steps`
            "high_steps": 0,  # in a row
            "save_missing": False,
        }
        self._history_steps = evenly(min(total, HISTORY_POINTS), total)
        self._began = self._printed = time.monotonic()
        self._seconds_before = 0.0
        self._tokens_here = self._seen_here = self._steps_here = 0
        self._line_loss = self._line_tokens = 0.0

    def state(self) -> dict[str, Any]:
        self.kept["seconds"] = self.seconds()
        return {"args": {}, "attributes": {"kept": dict(self.kept)}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RunProgress:
        """Not used: a run's progress is built from its hyperparameters and takes `kept` from the checkpoint."""
        raise NotImplementedError

    def restore(self, stateful_callbacks: dict[str, Any]) -> None:
        """Take over what a checkpoint's trainer_state.json keeps of this class."""
        saved = stateful_callbacks.get(type(self).__name__) or {}
        saved = saved[-1] if isinstance(saved, list) else saved
        self.kept.update(saved.get("attributes", {}).get("kept", {}))
        self._seconds_before = self.kept["seconds"]

    def seconds(self) -> float:
        """Wall seconds of training so far, those of the killed runs up to their last checkpoint included."""
        return self._seconds_before + time.monotonic() - self._began

    def is_over(self, state: Any) -> bool:
        """Whether a run that was killed at `state` had trained to its end, by the patience that holds now."""
        return state.global_step >= state.max_steps or self._lost_patience()

    def _lost_patience(self) -> bool:
        return bool(self.patience) and self.kept["evaluations_without_gain"] >= self.patience

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.stop.armed = True
        self.limit = TimeLimit(Path(args.output_dir, "clock.json"))
        self._began = self._printed = self._step_ended = time.monotonic()
        self.kept["stopped_early"] = False
        for tracker in self.trackers:
            tracker.begin(self.kept, state.global_step)
        if self.kept["evaluation_missing"] and self.trainer is not None:
            self.kept["evaluation_missing"] = False
            self.trainer.evaluate_late()
            if self.is_over(state):
                control.should_training_stop = True  # before another step: see PackedTrainer._run_epoch
        self._step_ended = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.trainer is not None
        loss, tokens = self.trainer.take_step_loss()
        norm = float(self.trainer.step_gradient_norm)
        if not math.isfinite(loss) or not math.isfinite(norm):
            what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
            raise JobError(
                f"{what} at step {state.global_step}: lower learning_rate, raise warmup_ratio, "
                f"or set precision to fp32; {self.last_good(state.global_step)}"
            )
        kept = self.kept
        self._look_for_divergence(loss, state.global_step)
        kept["completion_tokens"] += tokens
        kept["window_loss"] += loss * tokens
        kept["window_tokens"] += tokens
        self._line_loss += loss * tokens
        self._line_tokens += tokens
        self._tokens_here += tokens
        self._seen_here += int(self.trainer.step_tokens_seen)
        self._steps_here += 1
        kept["tokens"] += int(self.trainer.step_tokens_seen)
        if state.global_step in self._history_steps:
            self._remember(state)
        control.should_evaluate = state.global_step in self.evaluations
        self._decide_saving(state, control)
        self._decide_stopping(state, control)
        if state.is_world_process_zero:
            self._print(state, last=control.should_training_stop or state.global_step == state.max_steps)

    def _decide_saving(self, state: Any, control: Any) -> None:
        """A checkpoint that is due while the loss is high waits until it isn't: it may be the last good one."""
        kept = self.kept
        due = kept["save_missing"] or state.global_step in self.checkpoints
        last = state.global_step == state.max_steps
        kept["save_missing"] = due and not last and kept["high_steps"] > 0
        control.should_save = last or (due and not kept["save_missing"])

    def _decide_stopping(self, state: Any, control: Any) -> None:
        """On SIGTERM, and where the time is over but the work isn't: save, and evaluate when the run goes on."""
        assert self.trainer is not None
        assert self.limit is not None
        now = time.monotonic()
        self._step_seconds, self._step_ended = max(self._step_seconds, now - self._step_ended), now
        undone = state.global_step < state.max_steps or control.should_evaluate
        over = undone and self.limit.left() < self._reserve(control.should_evaluate)
        if state.is_world_process_zero:
            self.limit.note()
        if not self.trainer.agree(self.stop.requested or over):
            return
        self.stop.requested = self.trainer.agree(self.stop.requested)
        self.out_of_time = not self.stop.requested
        self.kept["evaluation_missing"] = control.should_evaluate
        control.should_evaluate = False
        control.should_save = control.should_training_stop = True

    def _reserve(self, evaluation: bool) -> float:
        """Seconds before the job's end at which it has to save: what this step and the next one may take, twice."""
        assert self.trainer is not None
        assert self.limit is not None
        save = self._save_seconds
        if not save:
            trained = (part.numel() for part in self.trainer.model.parameters() if part.requires_grad)
            save = sum(trained) * SAVED_BYTES / BYTES_A_SECOND
        spare = min(SPARE_SECONDS, SPARE_SHARE * self.limit.seconds)
        return spare + 2 * (save + self._step_seconds + evaluation * self._evaluation_seconds)

    def saved(self, seconds: float) -> None:
        """A checkpoint was written in so many seconds."""
        self._save_seconds = max(self._save_seconds, seconds)
        self._step_ended = time.monotonic()
        if self.limit is not None and self.trainer is not None and self.trainer.is_world_process_zero():
            self.limit.note(now=True)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """SIGTERM came while the checkpoint was written: there is nothing more to save."""
        assert self.trainer is not None
        if state.global_step < state.max_steps and self.trainer.agree(self.stop.requested):
            self.stop.requested = control.should_training_stop = True

    def evaluated(self, seconds: float) -> None:
        """An evaluation took so many seconds."""
        self._evaluation_seconds = max(self._evaluation_seconds, seconds)
        self._step_ended = time.monotonic()

    def _look_for_divergence(self, loss: float, step: int) -> None:
        kept = self.kept
        median = max(statistics.median(kept["losses"]), LEAST_MEDIAN) if kept["losses"] else math.inf
        if loss <= DIVERGED_TIMES * median:
            kept["losses"] = [*kept["losses"], loss][-MEDIAN_STEPS:]
            kept["high_steps"] = 0
            return
        kept["high_steps"] += 1
        if kept["high_steps"] == DIVERGED_STEPS:
            first = step - DIVERGED_STEPS + 1
            raise JobError(
                f"the training diverges: since step {first} the loss is more than {DIVERGED_TIMES:g} times the median "
                f"of the steps before ({loss:.4g} at step {step}, {median:.4g} before): lower learning_rate or raise "
                f"warmup_ratio; {self.last_good(first)}"
            )

    def last_good(self, before: int) -> str:
        """Which checkpoint holds weights from before step `before`, in words."""
        assert self.trainer is not None
        found = latest_whole(Path(self.trainer.args.output_dir), before)
        return f"the last good checkpoint is {found.parent.name}/{found.name}" if found else "there is none yet"

    def evaluation_cut(self, control: Any) -> None:
        """SIGTERM came during an evaluation: save now, evaluate when the run is resumed."""
        self.kept["evaluation_missing"] = True
        control.should_save = control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Before the Trainer updates its best metric, so `best_metric` is still the earlier evaluations'."""
        loss = metrics["eval_loss"]
        if state.is_world_process_zero:
            print(f"[eval] step={state.global_step}/{state.max_steps} validation:loss={loss:.4f}", flush=True)
            self._track(state.global_step, {"validation:loss": loss})
        if not math.isfinite(loss):
            raise JobError(
                f"the validation loss is {loss} at step {state.global_step}: lower learning_rate; "
                f"{self.last_good(state.global_step)}"
            )
        if state.best_metric is None or loss < state.best_metric:
            self.kept["evaluations_without_gain"] = 0
            control.should_save = True  # best weights are only found again if they are in a checkpoint
            return
        self.kept["evaluations_without_gain"] += 1
        if self._lost_patience():
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
        assert self.trainer is not None
        now = time.monotonic()
        if not last and self._steps_here > 1 and now - self._printed < SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        elapsed = max(now - self._began, 1e-9)
        remaining = (state.max_steps - state.global_step) * elapsed / self._steps_here
        rate = self._learning_rate()
        digits = f"{rate:.10f}".rstrip("0")  # never 1e-05: the metric definitions read digits
        values = {
            "train:loss": self._line_loss / self._line_tokens,
            "train:gradient_norm": float(self.trainer.step_gradient_norm),
            "train:completion_tokens_per_second": self._tokens_here / elapsed,
            "train:tokens_per_second": self._seen_here / elapsed,
            "train:memory_gib": peak_memory(self.trainer.args.device) / 1024**3,
        }
        used = self.trainer.mfu(self._seen_here / elapsed)
        loss, norm, learned, seen, memory = values.values()
        print(
            f"[train] step={state.global_step}/{state.max_steps} epoch={state.epoch:.2f} "
            f"train:loss={loss:.4f} train:learning_rate={digits}{'0' * digits.endswith('.')} "
            f"train:gradient_norm={norm:.4f} train:completion_tokens_per_second={learned:.1f} "
            f"train:tokens_per_second={seen:.1f} train:eta_seconds={remaining:.0f} train:memory_gib={memory:.2f}"
            f"{'' if used is None else f' train:mfu={used:.3f}'}",
            flush=True,
        )
        self._line_loss = self._line_tokens = 0.0
        self._track(
            state.global_step,
            {**values, "train:learning_rate": rate, **({} if used is None else {"train:mfu": used})},
        )

    def _track(self, step: int, values: dict[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(step, {key.replace(":", "/"): value for key, value in values.items()})
