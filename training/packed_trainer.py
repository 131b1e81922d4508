"""The Trainer of transformers with our batches, loss and checkpoints. Runs in the GPU training container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from checkpoints import MARKER, is_whole, seal, unseal
from packing import Collator
from progress import RunProgress
from tokenized import TokenizedRow, TokenizedRows
from transformers import Trainer, TrainerState

EVALUATION_TOKENS = {"cpu": 1024, "cuda": 16384}


class EvaluationCutError(Exception):
    """SIGTERM in the middle of an evaluation; the resumed run makes up for it."""


class PackedTrainer(Trainer):  # type: ignore[misc]  # transformers has no types
    """Trainer whose loss is the mean over a whole step's completion tokens: all devices, all accumulated batches."""

    def __init__(
        self, *, progress: RunProgress, validation: TokenizedRows | None, collator: Collator, **kwargs: Any
    ) -> None:
        super().__init__(data_collator=collator, callbacks=[progress], eval_dataset=validation, **kwargs)
        self.collator, self.validation, self.progress = collator, validation, progress
        progress.trainer = self
        self.model_accepts_loss_kwargs = True  # the Trainer must not divide by the accumulated batches once more
        self.loss_is_scaled_for_ga = True
        self.accelerator.gradient_accumulation_steps = 1  # nor accelerate, as it does under transformers 5.3
        self.step_learning_rate = 0.0
        self._step_loss = torch.zeros((), device=self.args.device)
        self._step_tokens = 0

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        count = torch.tensor(sum(batch["labels"].numel() for batch in batch_samples), device=device)
        count = self._sum(count)
        self._step_tokens = int(count)
        self.step_learning_rate = self.optimizer.param_groups[0]["lr"]
        return count

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        total = completion_loss(model, inputs)
        self._step_loss += total.detach()
        # Gradients are averaged over the devices, so the sum is scaled up by their number.
        return total * self.args.world_size / num_items_in_batch

    def take_step_loss(self) -> tuple[float, int]:
        """Mean loss and completion tokens of the step that just ended, over all devices."""
        loss = float(self._sum(self._step_loss)) / self._step_tokens
        self._step_loss = torch.zeros_like(self._step_loss)
        return loss, self._step_tokens

    def agree(self, flag: bool) -> bool:
        """True on every process if it is on any."""
        if self.args.world_size == 1:
            return flag
        return bool(self._sum(torch.tensor(int(flag), device=self.args.device)))

    def _sum(self, value: torch.Tensor) -> torch.Tensor:
        if self.args.world_size > 1:
            value = value.clone()
            torch.distributed.all_reduce(value)
        return value

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Mean loss over the validation rows' completion tokens, as `{"eval_loss": x}`."""
        was_training = self.model.training
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in self._validation_batches():
                if self.args.world_size == 1 and self.progress.stop.requested:
                    raise EvaluationCutError
                inputs = self._prepare_inputs(batch)
                sums += torch.stack(
                    [completion_loss(self.model, inputs).double(), sums.new_tensor(inputs["labels"].numel())]
                )
        self.model.train(was_training)
        sums = self._sum(sums)
        metrics = {"eval_loss": float(sums[0] / sums[1])}
        self.log(dict(metrics))
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        try:
            metrics: dict[str, float] = super()._evaluate(*args, **kwargs)
        except EvaluationCutError:
            self.model.train()
            self.progress.evaluation_cut(self.control)
            return {"eval_loss": float("inf")}
        return metrics

    def evaluate_late(self) -> None:
        """The evaluation that SIGTERM took away from the step this run resumes at."""
        # The save below rewrites the checkpoint that the random state is read from later.
        self._load_rng_state(str(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"))
        if self._determine_best_metric(metrics=self._evaluate(None, None), trial=None):
            self._save_checkpoint(self.model, trial=None)

    def _validation_batches(self) -> Iterator[dict[str, Any]]:
        """This process's share of the validation rows, of similar length together, within a budget of tokens."""
        rows = self.validation
        assert rows is not None
        order = sorted(range(len(rows)), key=lambda index: (len(rows[index]["ids"]), index))
        budget = EVALUATION_TOKENS.get(self.args.device.type, 1024)
        batch: list[TokenizedRow] = []
        used = 0
        for index in order[self.args.process_index :: self.args.world_size]:
            row = rows[index]
            if batch and used + len(row["ids"]) > budget:
                yield self.collator(batch)
                batch, used = [], 0
            batch.append(row)
            used += len(row["ids"])
        if batch:
            yield self.collator(batch)

    def restore_finished(self, checkpoint: Path, state: TrainerState) -> None:
        """Take over weights and state of a run that had trained to its end but was killed before saving the model."""
        best = Path(self.args.output_dir) / f"checkpoint-{state.best_global_step}"
        self.state = state
        self._load_from_checkpoint(str(best if state.best_global_step and is_whole(best) else checkpoint))

    def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
        started = super()._init_training_state(*args, **kwargs)
        # The state holds the path of the job that wrote it; the same checkpoints may lie elsewhere in this one.
        best = Path(self.args.output_dir) / f"checkpoint-{self.state.best_global_step}"
        self.state.best_model_checkpoint = str(best) if self.state.best_global_step and best.is_dir() else None
        return started

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.is_world_process_zero() and (folder / MARKER).exists():
            unseal(folder)
        super()._save_checkpoint(model, trial)
        if self.args.world_size > 1:
            torch.distributed.barrier()
        if self.is_world_process_zero():
            seal(folder)
        if self.args.world_size > 1:
            torch.distributed.barrier()


def completion_loss(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """Sum of the cross entropies of the batch's completion tokens. The head runs at their positions only."""
    inputs = dict(inputs)
    labels, pick = inputs.pop("labels"), inputs.pop("pick", None)
    logits = model(**inputs, use_cache=False).logits
    logits = logits[0] if pick is None else logits[pick[0], pick[1]]
    return functional.cross_entropy(logits.float(), labels, reduction="sum")
