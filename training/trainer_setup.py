"""Builds a PackedTrainer from the hyperparameters. Runs in the GPU training container."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import preference
import run_folder
import torch
from fit import JobMemory, job_memory
from hyperparameters import Hyperparameters
from layout import choose_layout, set_up_for
from losses import causal_model, completion_loss, install
from micro_batches import CPU_TOKENS, Found, TooLargeError, choose, remember, remembered, try_on_device
from packed_trainer import PackedTrainer
from packing import Collator
from progress import RunProgress, evenly
from ranks import world_size
from sharding import shard
from stop import StopSignal
from tokenized import TokenizedRows
from transformers import PrinterCallback, TrainingArguments

from common.failure import JobError

PATIENCE_SECONDS = 2 * 3600  # while process 0 reads, merges and writes a model of 140 GB, the others wait
NEVER = 10**9  # steps; RunProgress says when to evaluate and save


def rows_per_step(chosen: Hyperparameters) -> int:
    """Rows of one update of the weights, over all processes."""
    return run_folder.rows_per_step(run_folder.shares(chosen.as_dict(), world_size()))


def total_steps(chosen: Hyperparameters, rows: int) -> int:
    """Optimizer steps of the run."""
    return chosen.max_steps or math.ceil(math.ceil(rows / rows_per_step(chosen)) * chosen.epochs)


def build_trainer(
    model: Any,
    tokenizer: Any,
    rows: TokenizedRows,
    validation: TokenizedRows | None,
    chosen: Hyperparameters,
    precision: str,
    run_dir: Path,
    stop: StopSignal,
    sharded: bool,
) -> PackedTrainer:
    """The trainer, its model on the device, its schedule derived from the real number of optimizer steps."""
    steps = total_steps(chosen, len(rows))
    arguments = training_arguments(chosen, steps, precision, run_dir, validation is not None)
    if arguments.device.type == "cpu":
        torch.set_flush_denormal(True)  # AdamW's moments of a fresh adapter are denormal, and those are slow
    progress = RunProgress(
        evenly(chosen.evaluations_per_run, steps) if validation is not None else set(),
        evenly(chosen.checkpoints_per_run, steps),
        chosen.early_stopping_patience,
        stop,
        steps,
    )
    both = [rows] if validation is None else [rows, validation]
    longest = max(int(part.lengths().max()) for part in both)
    choice = choose_layout(causal_model(model).config, longest)
    if choice.reason and arguments.process_index == 0:
        print(f"[layout] rows are padded, not packed. {choice.reason}", flush=True)
    set_up_for(choice.layout, model)
    install(model)
    collator = Collator(choice.layout, tokenizer.pad_token_id)
    if sharded:
        shard(model, arguments.device)
    else:
        model.to(arguments.device)
    memory = job_memory(causal_model(model).config, chosen, precision, arguments.device, longest, sharded)
    found = fit_memory(model, collator, both, chosen, arguments, run_dir, memory, sharded)
    make: Callable[..., PackedTrainer] = PackedTrainer
    if chosen.task == "dpo":  # memory is tried with rows of their own: a pair's two are as long, and cost as much
        preference.install(model)
        collator = preference.PairCollator(choice.layout, tokenizer.pad_token_id)
        make = partial(preference.PreferenceTrainer, beta=chosen.dpo_beta)
    trainer = make(
        model=model,
        args=arguments,
        rows=rows,
        progress=progress,
        validation=validation,
        collator=collator,
        rows_per_step=rows_per_step(chosen),
        micro_batches=found,
        memory=memory,
        sharded=sharded,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def fit_memory(
    model: Any,
    collator: Collator,
    both: list[TokenizedRows],
    chosen: Hyperparameters,
    arguments: TrainingArguments,
    run_dir: Path,
    memory: JobMemory,
    sharded: bool,
) -> Found:
    """How many tokens are computed at once, and whether layers are computed twice; the model is set up for it.

    Raises JobError where not even one row fits, with what would.
    """

    def checkpoint_layers(wanted: bool) -> None:
        if wanted:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            model.gradient_checkpointing_disable()

    if arguments.device.type == "cpu":
        shared = max(part.shared for part in both)  # computed once: a long system message leaves no less to the rows
        found = Found(chosen.micro_batch_tokens or CPU_TOKENS + shared, chosen.activation_checkpointing == "always")
        checkpoint_layers(found.checkpointing)
        return found
    longest = max(int(part.lengths().max()) for part in both)
    if sharded:  # by the estimate alone: a try would have to fail on all processes together
        twice = chosen.activation_checkpointing != "never"
        found = Found(chosen.micro_batch_tokens or max(longest, memory.micro_batch(twice)), twice)
        checkpoint_layers(twice)
        return found
    device = torch.cuda.get_device_name(arguments.device)
    found = remembered(run_dir, device) or _search(model, collator, both, chosen, arguments, memory, checkpoint_layers)
    found = _agreed(found, arguments)
    if arguments.process_index == 0:
        remember(run_dir, device, found)
    checkpoint_layers(found.checkpointing)
    return found


def _search(
    model: Any,
    collator: Collator,
    both: list[TokenizedRows],
    chosen: Hyperparameters,
    arguments: TrainingArguments,
    memory: JobMemory,
    checkpoint_layers: Callable[[bool], None],
) -> Found:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    longest = max(int(part.lengths().max()) for part in both)
    mine = chosen.batch_size * chosen.gradient_accumulation_steps
    step = int(both[0].lengths().mean() * mine) + longest

    def compute(batch: dict[str, Any]) -> torch.Tensor:
        for key, value in batch.items():
            batch[key] = value.to(arguments.device) if torch.is_tensor(value) else value
        with torch.autocast(arguments.device.type, torch.bfloat16, enabled=arguments.bf16):
            return completion_loss(model, batch)

    model.train()
    try:
        return choose(
            chosen.micro_batch_tokens,
            chosen.activation_checkpointing,
            memory.micro_batch,
            longest,
            step,
            try_on_device(model, collator, longest, compute, spare=8 * trained),
            checkpoint_layers,
        )
    except TooLargeError as error:
        checkpointing = chosen.activation_checkpointing != "never"
        raise JobError(memory.explanation(error, longest, checkpointing)) from error


def _agreed(found: Found, arguments: TrainingArguments) -> Found:
    """What fits every process's device."""
    if arguments.world_size == 1:
        return found
    least = torch.tensor([found.tokens, -int(found.checkpointing)], device=arguments.device)
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
    return Found(int(least[0]), bool(least[1]), found.tried)


def training_arguments(
    chosen: Hyperparameters, steps: int, precision: str, run_dir: Path, validated: bool
) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(run_dir),
        use_cpu=not cuda,
        ddp_backend="gloo" if world_size() > 1 and not cuda else None,
        ddp_find_unused_parameters=False,
        ddp_timeout=PATIENCE_SECONDS,
        bf16=precision == "bf16",
        max_steps=steps,
        per_device_train_batch_size=1,  # what the Trainer takes for a batch is all of a step: see batches.py
        gradient_accumulation_steps=1,
        learning_rate=chosen.learning_rate,
        lr_scheduler_type="constant_with_warmup" if chosen.lr_scheduler == "constant" else chosen.lr_scheduler,
        warmup_steps=round(steps * chosen.warmup_ratio),
        weight_decay=chosen.weight_decay,
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        seed=chosen.seed,
        data_seed=chosen.seed,
        eval_strategy="steps" if validated else "no",
        eval_steps=NEVER,
        save_strategy="steps",
        save_steps=NEVER,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        load_best_model_at_end=validated,
        metric_for_best_model="eval_loss" if validated else None,
        greater_is_better=False if validated else None,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )
