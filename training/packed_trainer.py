"""The Trainer of transformers with our batches, loss and checkpoints. Runs in the GPU training container.

What the Trainer takes for one batch is all that this process computes for one step: a list of micro-batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from batches import MicroBatches, Steps, cut
from checkpoints import MARKER, is_whole, seal, unseal
from losses import completion_loss
from packing import Collator
from progress import RunProgress
from tokenized import TokenizedRows
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerState


class EvaluationCutError(Exception):
    """SIGTERM in the middle of an evaluation; the resumed run makes up for it."""


class PackedTrainer(Trainer):  # type: ignore[misc]  # transformers has no types
    """Trainer whose loss is the mean over a whole step's learned tokens: of all processes and all micro-batches.

    The model has been through `losses.install`; `budget` is the tokens of a micro-batch.
    """

    def __init__(
        self,
        *,
        progress: RunProgress,
        rows: TokenizedRows,
        validation: TokenizedRows | None,
        collator: Collator,
        rows_per_step: int,
        budget: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(train_dataset=rows, eval_dataset=validation, callbacks=[progress], **kwargs)
        self.rows, self.validation, self.progress = rows, validation, progress
        self.collator, self.rows_per_step, self.budget = collator, rows_per_step, budget
        progress.trainer = self
        self.accelerator.gradient_accumulation_steps = 1  # or accelerate divides, as it does under transformers 5.3
        self.step_learning_rate = 0.0
        self._step_loss = torch.zeros((), device=self.args.device)
        self._step_tokens = 0

    def get_train_dataloader(self) -> DataLoader:
        """Steps as lists of micro-batches; already shared out, so accelerate has nothing to do with it."""
        steps = Steps(
            self.rows.lengths(),
            self.rows_per_step,
            self.budget,
            self.collator.layout,
            self.args.seed,
            lambda: int(self.state.global_step),
            self.args.process_index,
            self.args.world_size,
            even=self.is_fsdp_enabled,
        )
        # With a generator of its own, making an iterator doesn't draw from the one that dropout draws from.
        return DataLoader(
            MicroBatches(self.rows, self.collator),
            batch_sampler=steps,
            collate_fn=list,
            generator=torch.Generator(),
            pin_memory=self.args.device.type == "cuda",
        )

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        count = torch.tensor(sum(batch["targets"].numel() for step in batch_samples for batch in step), device=device)
        count = self._sum(count)
        self._step_tokens = int(count)
        self.step_learning_rate = self.optimizer.param_groups[0]["lr"]
        return count

    def training_step(self, model: Any, inputs: list[dict[str, Any]], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of every micro-batch; processes exchange gradients at the last one."""
        model.train()
        total = torch.zeros((), device=self.args.device)
        for number, batch in enumerate(inputs, 1):
            # Sharded gradients are always reduced: kept whole until the last, they would be as large as the model.
            alone = number < len(inputs) and self.args.world_size > 1 and not self.is_fsdp_enabled
            with self.accelerator.no_sync(model) if alone else nullcontext():
                with self.compute_loss_context_manager():
                    loss = self.batch_loss(model, self._prepare_inputs(batch))
                total += loss.detach()
                # Gradients are averaged over the processes, so the sum is scaled up by their number.
                self.accelerator.backward(loss * self.args.world_size / num_items_in_batch)
        self._step_loss += total
        return total / num_items_in_batch

    def batch_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Sum of the losses of a micro-batch."""
        return completion_loss(model, inputs)

    def items(self, inputs: dict[str, Any]) -> int:
        """What the losses of a micro-batch are summed over."""
        return int(inputs["targets"].numel())

    def floating_point_ops(self, inputs: Any) -> int:
        """Nothing: the Trainer's own count reads batches of another form."""
        return 0

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
                loss = self.batch_loss(self.model_wrapped if self.is_fsdp_enabled else self.model, inputs)
                sums += torch.stack([loss.double(), sums.new_tensor(self.items(inputs))])
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
        """This process's share of the validation rows; each process gets as many micro-batches as the others."""
        rows = self.validation
        assert rows is not None
        batches = cut(range(len(rows)), rows.lengths(), self.budget, self.collator.layout)
        every = MicroBatches(rows, self.collator)
        for start in range(0, len(batches), self.args.world_size):
            mine = start + self.args.process_index
            yield every[batches[mine] if mine < len(batches) else ()]

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
