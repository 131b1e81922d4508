"""Builds a PackedTrainer from the hyperparameters. Runs in the GPU training container."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from hyperparameters import Hyperparameters
from packed_trainer import PackedTrainer
from packing import Collator
from progress import RunProgress, StopSignal, evenly
from tokenized import TokenizedRows
from transformers import PrinterCallback, TrainingArguments
from weights import choose_layout, set_up_for

NEVER = 10**9  # steps; RunProgress says when to evaluate and save


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def total_steps(chosen: Hyperparameters, rows: int) -> int:
    """Optimizer steps of the run."""
    batches = math.ceil(rows / (chosen.batch_size * processes()))
    an_epoch = math.ceil(batches / chosen.gradient_accumulation_steps)
    return chosen.max_steps or math.ceil(an_epoch * chosen.epochs)


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
    layout = choose_layout(model, rows, tokenizer.pad_token_id, precision)
    set_up_for(layout, model)
    trainer = PackedTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        progress=progress,
        validation=validation,
        collator=Collator(layout, tokenizer.pad_token_id),
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
        per_device_train_batch_size=chosen.batch_size,
        gradient_accumulation_steps=chosen.gradient_accumulation_steps,
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
