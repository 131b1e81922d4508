"""The Trainer of transformers with our batches, loss and checkpoints. Runs in the GPU training container.

What the Trainer takes for one batch is all that this process computes for one step: a list of micro-batches.
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import shards
import torch
from adapters import count as count_parameters
from batches import MicroBatch, MicroBatches, Steps, costs, cut
from checkpoints import at, fault, processes_of, remove, rotate, seal
from fit import JobMemory
from losses import completion_loss
from micro_batches import Found
from packing import Collator
from processes import each
from progress import RunProgress
from ranks import first_of_machine
from throughput import operations_per_token, peak_operations
from tokenized import TokenizedRows
from torch.utils.data import DataLoader
from training_errors import disk_full
from transformers import Trainer, TrainerState, set_seed

from common.failure import JobError

SCHEDULER = "scheduler.pt"


class EvaluationCutError(Exception):
    """SIGTERM in the middle of an evaluation; the resumed run makes up for it."""


class PackedTrainer(Trainer):  # type: ignore[misc]  # transformers has no types
    """Trainer whose loss is the mean over a whole step's learned tokens: of all processes and all micro-batches.

    The model has been through `losses.install`, and through `sharding.shard` if it is `sharded`.
    """

    def __init__(
        self,
        *,
        progress: RunProgress,
        rows: TokenizedRows,
        validation: TokenizedRows | None,
        collator: Collator,
        rows_per_step: int,
        micro_batches: Found,
        memory: JobMemory,
        sharded: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(train_dataset=rows, eval_dataset=validation, callbacks=[progress], **kwargs)
        self.rows, self.validation, self.progress = rows, validation, progress
        self.collator, self.rows_per_step, self.micro_batches = collator, rows_per_step, micro_batches
        self.memory = memory
        self.sharded = sharded
        if sharded:  # or accelerate would wrap it in DDP, which wants whole weights
            self.accelerator.prepare_model = lambda model, **_: model
        progress.trainer = self
        self.accelerator.gradient_accumulation_steps = 1  # or accelerate divides, as it does under transformers 5.3
        self.step_learning_rate = 0.0
        self.step_gradient_norm: Any = 0.0
        self.step_tokens_seen = torch.zeros((), dtype=torch.long)
        """Tokens that the step computes, padding left out, over all processes."""
        self._step_loss = torch.zeros((), device=self.args.device)
        self._step_tokens = 0

    def get_train_dataloader(self) -> DataLoader:
        """Steps as lists of micro-batches; already shared out, so accelerate has nothing to do with it."""
        added, shared = costs(self.rows, self.collator.layout)
        steps = Steps(
            added,
            self.rows_per_step,
            max(1, self.micro_batches.tokens - shared),
            self.collator.layout,
            self.args.seed,
            lambda: int(self.state.global_step),
            self.args.process_index,
            self.args.world_size,
            even=self.sharded,
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
        batches = [batch for step in batch_samples for batch in step]
        masks = [batch.get("attention_mask") for batch in batches]
        seen = sum(
            batch["input_ids"].numel() if mask is None else int(mask.sum())
            for batch, mask in zip(batches, masks, strict=True)
        )
        count, self.step_tokens_seen = self._sum(
            torch.tensor([sum(batch["targets"].numel() for batch in batches), seen], device=device)
        )
        self._step_tokens = int(count)
        self.step_learning_rate = self.optimizer.param_groups[0]["lr"]
        return count

    def training_step(self, model: Any, inputs: list[dict[str, Any]], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of every micro-batch; processes exchange gradients at the last one."""
        model.train()
        total = torch.zeros((), device=self.args.device)
        for number, batch in enumerate(inputs, 1):
            # Sharded gradients are always reduced: kept whole until the last, they would be as large as the model.
            alone = number < len(inputs) and self.args.world_size > 1 and not self.sharded
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

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.step_gradient_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        return self.step_gradient_norm

    def mfu(self, tokens_per_second: float) -> float | None:
        """Model FLOPs utilization at this speed (throughput.py); None where the devices' peak isn't known."""
        peak = peak_operations(self.args.device)
        if peak is None:
            return None
        needed = tokens_per_second * operations_per_token(*count_parameters(self.model))
        return float(needed / (peak * self.args.world_size))

    def compute_loss_context_manager(self) -> Any:
        """Products in bf16 where they are wanted: accelerate sees to it only in models that it has wrapped."""
        if self.sharded and self.args.bf16:
            # Autocast would keep its copy of every layer's weights until the end of forward.
            return torch.autocast(self.args.device.type, torch.bfloat16, cache_enabled=False)
        return super().compute_loss_context_manager()

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
        try:
            with torch.no_grad(), self.compute_loss_context_manager():
                for batch in self._validation_batches():
                    if self.agree(self.progress.stop.requested):
                        raise EvaluationCutError
                    inputs = self._prepare_inputs(batch)
                    loss = self.batch_loss(self.model, inputs)
                    sums += torch.stack([loss.double(), sums.new_tensor(self.items(inputs))])
        finally:
            if self.sharded:  # embeddings and head stay gathered for a backward pass that doesn't come
                self.model.reshard()
        self.model.train(was_training)
        sums = self._sum(sums)
        metrics = {"eval_loss": float(sums[0] / sums[1])}
        self.log(dict(metrics))
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        began = time.monotonic()
        try:
            metrics: dict[str, float] = super()._evaluate(*args, **kwargs)
        except EvaluationCutError:
            self.model.train()
            self.progress.evaluation_cut(self.control)
            return {"eval_loss": float("inf")}
        self.progress.evaluated(time.monotonic() - began)
        return metrics

    def evaluate_late(self) -> None:
        """The evaluation that SIGTERM took away from the step this run resumes at.

        Its checkpoint is there; what came out is in the next one. Killed before that, the run evaluates once more.
        """
        if self._determine_best_metric(metrics=self._evaluate(None, None), trial=None):
            self.state.best_model_checkpoint = str(at(Path(self.args.output_dir), self.state.global_step))

    def _run_epoch(self, **kwargs: Any) -> None:
        """Not one more step where the late evaluation, or SIGTERM during it, has ended the run."""
        if not self.control.should_training_stop:
            super()._run_epoch(**kwargs)

    @functools.cached_property
    def _validation_cut(self) -> list[MicroBatch]:
        assert self.validation is not None
        added, shared = costs(self.validation, self.collator.layout)
        return cut(range(len(added)), added, max(1, self.micro_batches.tokens - shared), self.collator.layout)

    def _validation_batches(self) -> Iterator[dict[str, Any]]:
        """This process's share of the validation rows; each process gets as many micro-batches as the others."""
        rows = self.validation
        assert rows is not None
        batches = self._validation_cut
        every = MicroBatches(rows, self.collator)
        for start in range(0, len(batches), self.args.world_size):
            mine = start + self.args.process_index
            yield every[batches[mine] if mine < len(batches) else ()]

    def restore_finished(self, checkpoint: Path, state: TrainerState) -> None:
        """Take over weights and state of a run that had trained to its end but was killed before saving the model."""
        self.state = state
        self._find_best()
        self._load_from_checkpoint(state.best_model_checkpoint or str(checkpoint))

    def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
        started = super()._init_training_state(*args, **kwargs)
        self._find_best()
        return started

    def _find_best(self) -> None:
        """Where the best checkpoint lies in this job; if it is lost, the best from here on is looked for."""
        state = self.state
        state.best_model_checkpoint = None
        if not state.best_global_step:
            return
        best = at(Path(self.args.output_dir), state.best_global_step)
        wrong = fault(best, read=True) if first_of_machine() else None
        if self.agree(wrong is not None):
            if self.is_world_process_zero():
                print(f"[resume] {best.name}, the best one, {wrong or 'is lost'}: it is forgotten", flush=True)
            state.best_global_step = state.best_metric = None
        else:
            state.best_model_checkpoint = str(best)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Each process's random state, which dropout uses; a fresh one if another number of processes goes on."""
        if checkpoint is not None and processes_of(Path(checkpoint)) != self.args.world_size:
            set_seed(self.args.seed + self.state.global_step)
        else:
            super()._load_rng_state(checkpoint)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A checkpoint's weights and moments: each process's part, or all of them by process 0."""
        assert output_dir is not None
        if self.sharded:
            shards.write(self.model, self.optimizer, Path(output_dir), self.args.process_index, self.args.world_size)
        elif self.args.should_save:
            shards.write(self.model, self.optimizer, Path(output_dir), 0, 1)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """The scheduler; the optimizer's state is with the weights."""
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        shards.read_weights(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        shards.read_moments(self.model, self.optimizer, Path(checkpoint))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, SCHEDULER), weights_only=True))
        for group, rate in zip(self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate

    def _load_best_model(self) -> None:
        # Of whole copies only process 0's is saved, and in this job the file is on its machine alone.
        if self.sharded or self.is_world_process_zero():
            self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write and seal a checkpoint; only then do older ones go.

        Raises JobError, with the earlier checkpoints as they were, for weights that aren't numbers and a full disk.
        """
        began = time.monotonic()
        run, step = Path(self.args.output_dir), self.state.global_step
        self._check_weights()
        try:
            if first_of_machine():
                remove(at(run, step))  # of another number of processes it may have other parts
            self._each(0)
            super()._save_checkpoint(model, trial)
            sealers = [rank for rank, first in enumerate(self._each(first_of_machine())) if first]
            save = self._each(time.time_ns())[0]
            if first_of_machine():
                seal(at(run, step), self.args.process_index, sealers, self.args.world_size, save)
        except Exception as error:
            if not disk_full(error):
                raise
            free = shutil.disk_usage(run).free
            remove(at(run, step))
            raise JobError(
                f"no disk space left for checkpoint-{step} in {run} ({free / 1e6:.0f} MB were free): raise "
                f"training.volume_gb; {self.progress.last_good(step)}"
            ) from error
        self._each(0)  # every disk has its part before any loses an older one
        if first_of_machine():
            rotate(run, self.state.best_global_step)
        self.progress.saved(time.monotonic() - began)

    def _each(self, value: int) -> list[int]:
        return each(value, self.args.device)

    def _check_weights(self) -> None:
        parts = [part.detach() for part in self.model.parameters() if part.requires_grad]
        local = [part.to_local() if hasattr(part, "to_local") else part for part in parts]
        if self.agree(not bool(torch.stack([part.isfinite().all() for part in local]).all())):
            raise JobError(
                f"weights are no numbers any more at step {self.state.global_step}: lower learning_rate, raise "
                f"warmup_ratio, or set precision to fp32; {self.progress.last_good(self.state.global_step)}"
            )
