"""Builds a PackedTrainer from the hyperparameters. Runs in the GPU training container."""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import preference
import torch
from hyperparameters import Hyperparameters
from layout import choose_layout, set_up_for
from losses import causal_model, install
from packed_trainer import PackedTrainer
from packing import Collator
from progress import RunProgress, StopSignal, evenly
from tokenized import TokenizedRows
from transformers import PrinterCallback, TrainingArguments

MICRO_BATCH_TOKENS = 4096
NEVER = 10**9  # steps; RunProgress says when to evaluate and save


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def rows_per_step(chosen: Hyperparameters) -> int:
    """Rows of one update of the weights, over all processes."""
    return chosen.batch_size * chosen.gradient_accumulation_steps * processes()


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
) -> PackedTrainer:
    """The trainer, its model on the device, its schedule derived from the real number of optimizer steps."""
    steps = total_steps(chosen, len(rows))
    arguments = training_arguments(chosen, steps, precision, run_dir, validation is not None)
    if arguments.device.type == "cpu":
        torch.set_flush_denormal(True)  # AdamW's moments of a fresh adapter are denormal, and those are slow
    model.to(arguments.device)
    progress = RunProgress(
        evenly(chosen.evaluations_per_run, steps) if validation is not None else set(),
        evenly(chosen.checkpoints_per_run, steps),
        chosen.early_stopping_patience,
        stop,
        steps,
    )
    both = [rows] if validation is None else [rows, validation]
    choice = choose_layout(causal_model(model).config, max(int(part.lengths().max()) for part in both))
    if choice.reason and arguments.process_index == 0:
        print(f"[layout] rows are padded, not packed. {choice.reason}", flush=True)
    set_up_for(choice.layout, model)
    make: Any = PackedTrainer
    collator: type[Collator] = Collator
    if chosen.task == "dpo":
        preference.install(model)
        make, collator = partial(preference.PreferenceTrainer, beta=chosen.dpo_beta), preference.PairCollator
    else:
        install(model)
    trainer: PackedTrainer = make(
        model=model,
        args=arguments,
        rows=rows,
        progress=progress,
        validation=validation,
        collator=collator(choice.layout, tokenizer.pad_token_id),
        rows_per_step=rows_per_step(chosen),
        budget=MICRO_BATCH_TOKENS,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(
    chosen: Hyperparameters, steps: int, precision: str, run_dir: Path, validated: bool
) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(run_dir),
        use_cpu=not cuda,
        ddp_backend="gloo" if processes() > 1 and not cuda else None,
        ddp_find_unused_parameters=False,
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
        save_total_limit=2,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        load_best_model_at_end=validated,
        metric_for_best_model="eval_loss" if validated else None,
        greater_is_better=False if validated else None,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )
