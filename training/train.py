"""Runs in the GPU training container (SageMaker Training), and as the same program on a laptop's CPU.

    SM_CHANNEL_TRAIN=data/train SM_CHANNEL_VALIDATION=data/validation SM_CHANNEL_MODEL=base SM_MODEL_DIR=model \\
        python train.py --method lora --epochs 2 --checkpoint_dir checkpoints
    torchrun --nproc-per-node 4 train.py --method full ...

Fine-tunes a causal language model on canonical rows, `{"messages": [..., {"role": "assistant", "content": "..."}]}`:
loss on completion tokens only, rows packed without padding. Killed at any moment and started again with the
same arguments it goes on from its last whole checkpoint. `train.py --help` lists the hyperparameters.
Not covered: several machines, sharded weights (FSDP), quantized base models.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperparameters import Hyperparameters, build_parser, default_checkpoint_dir, parse
from training_errors import EXIT_FAILED, EXIT_STOPPED, StopRequestedError, TrainingError, readable, report_failure

if TYPE_CHECKING:
    from packed_trainer import PackedTrainer
    from progress import RunProgress, StopSignal
    from tokenized import TokenizedRows

__all__ = ["build_parser", "main", "run"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; the exit code: 0 done, 1 failed (one line says why), 143 stopped by SIGTERM."""
    try:
        chosen = parse(sys.argv[1:] if arguments is None else arguments)
        use_all_devices(sys.argv[1:] if arguments is None else arguments)
        run(chosen)
    except StopRequestedError as stopped:
        print(f"[stop] {stopped}", flush=True)
        return EXIT_STOPPED
    except TrainingError as error:
        report_failure(str(error))
        return EXIT_FAILED
    except Exception as error:
        if os.environ.get("FMOPS_TRACEBACK"):
            raise
        report_failure(readable(error))
        return EXIT_FAILED
    return 0


def use_all_devices(arguments: Sequence[str]) -> None:
    """Started plainly on a machine with several GPUs, start again under torchrun with one process each."""
    if "WORLD_SIZE" in os.environ:
        return
    import torch

    count = torch.cuda.device_count()
    if count > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        os.execv(sys.executable, [sys.executable, *launcher, os.path.abspath(__file__), *arguments])  # noqa: S606


def run(chosen: Hyperparameters) -> None:
    """Train as the channels and `chosen` say and write the model directory.

    Raises TrainingError for what the job's owner can mend, StopRequestedError after SIGTERM.
    """
    _quiet()
    from progress import StopSignal

    stop = StopSignal()
    stop.install()
    import torch
    from transformers import set_seed
    from weights import add_adapters, base_name, base_source, load_model, load_tokenizer, resolve_precision

    train_channel, validation_channel = _channel("TRAIN"), _channel("VALIDATION", required=False)
    model_dir = Path(os.environ.get("SM_MODEL_DIR") or "model")
    source = base_source(chosen)
    set_seed(chosen.seed)
    tokenizer = load_tokenizer(source)
    rows, validation = _tokenize(train_channel, validation_channel, tokenizer, chosen)

    precision = resolve_precision(chosen.precision)
    model = load_model(source, chosen, precision)
    name, stored = base_name(source, model.config), getattr(model.config, "dtype", None) or torch.float32
    stored = _recorded_dtype(source) or stored
    if chosen.method == "lora":
        model = add_adapters(model, chosen, name)

    run_dir = _run_directory(chosen, source, train_channel, validation_channel)
    trainer, progress = _trainer(model, tokenizer, rows, validation, chosen, precision, run_dir, stop)
    if trainer.is_world_process_zero():
        from saving import check_space

        model_dir.mkdir(parents=True, exist_ok=True)
        check_space(model, model_dir, run_dir, chosen.merge or chosen.method == "full", bool(chosen.checkpoint_dir))
        _announce(model, rows, validation, trainer, chosen, precision)
    resumed = _train(trainer, progress, run_dir)
    if stop.requested:
        raise StopRequestedError(
            f"SIGTERM: checkpoint saved at step {trainer.state.global_step}/{trainer.state.max_steps}; "
            "started again with the same arguments the job goes on from there"
        )
    if trainer.is_world_process_zero():
        from saving import save_model

        report = _report(chosen, name, rows, validation, trainer, progress, resumed)
        serving = os.environ.get("SM_CHANNEL_SERVING")
        save_model(
            trainer.model, tokenizer, model_dir, Path(serving) if serving else None, report, chosen.merge, stored
        )
        print(f"[done] steps={report['steps']} train_loss={report['train_loss']} saved={model_dir}", flush=True)
    if trainer.args.world_size > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _quiet() -> None:
    """Progress lines only on stdout; no library's bars, banners or attempts to reach a hub that is not there."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if os.environ.get("SM_CHANNEL_MODEL"):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _channel(name: str, required: bool = True) -> Path | None:
    value = os.environ.get(f"SM_CHANNEL_{name}")
    if not value:
        if required:
            raise TrainingError(f"no {name.lower()} channel: SM_CHANNEL_{name} is not set")
        return None
    path = Path(value)
    if not path.exists():
        raise TrainingError(f"the {name.lower()} channel {path} does not exist")
    return path


def _tokenize(
    train: Path | None, validation: Path | None, tokenizer: Any, chosen: Hyperparameters
) -> tuple[TokenizedRows, TokenizedRows | None]:
    from tokenized import tokenize_channel

    assert train is not None
    rows = tokenize_channel(train, tokenizer, chosen.max_seq_length)
    held_out = tokenize_channel(validation, tokenizer, chosen.max_seq_length) if validation else None
    if chosen.early_stopping_patience and held_out is None:
        raise TrainingError("early_stopping_patience needs a validation channel: SM_CHANNEL_VALIDATION is not set")
    return rows, held_out


def _recorded_dtype(source: str) -> Any:
    """The dtype the base model's directory was stored in, which a fully trained model goes back to."""
    import torch
    from transformers import AutoConfig

    dtype = getattr(AutoConfig.from_pretrained(source), "dtype", None)
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def _run_directory(chosen: Hyperparameters, source: str, train: Path | None, validation: Path | None) -> Path:
    from checkpoints import fingerprint
    from tokenized import channel_files

    data = [file for channel in (train, validation) if channel for file in channel_files(channel)]
    mark = fingerprint(chosen.as_dict(), data, source, int(os.environ.get("WORLD_SIZE", "1")))
    folder = Path(default_checkpoint_dir(chosen)).absolute() / mark
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _trainer(
    model: Any,
    tokenizer: Any,
    rows: TokenizedRows,
    validation: TokenizedRows | None,
    chosen: Hyperparameters,
    precision: str,
    run_dir: Path,
    stop: StopSignal,
) -> tuple[PackedTrainer, RunProgress]:
    import torch
    from packed_trainer import PackedTrainer
    from packing import Collator
    from progress import RunProgress, evenly
    from transformers import PrinterCallback, TrainingArguments
    from weights import choose_layout

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    batches = math.ceil(len(rows) / (chosen.batch_size * processes))
    steps = chosen.max_steps or math.ceil(math.ceil(batches / chosen.gradient_accumulation_steps) * chosen.epochs)
    cuda = torch.cuda.is_available()
    if not cuda:
        torch.set_flush_denormal(True)  # AdamW's moments of a fresh adapter are denormal, and those are slow
    never = 10**9  # RunProgress says when to evaluate and save
    arguments = TrainingArguments(
        output_dir=str(run_dir),
        use_cpu=not cuda,
        ddp_backend="gloo" if processes > 1 and not cuda else None,
        ddp_find_unused_parameters=False,
        bf16=precision == "bf16",
        max_steps=steps,
        per_device_train_batch_size=chosen.batch_size,
        gradient_accumulation_steps=chosen.gradient_accumulation_steps,
        learning_rate=chosen.learning_rate,
        lr_scheduler_type=chosen.lr_scheduler if chosen.lr_scheduler != "constant" else "constant_with_warmup",
        warmup_steps=round(steps * chosen.warmup_ratio),
        weight_decay=chosen.weight_decay,
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        seed=chosen.seed,
        data_seed=chosen.seed,
        eval_strategy="steps" if validation is not None else "no",
        eval_steps=never,
        save_strategy="steps",
        save_steps=never,
        save_total_limit=2,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        load_best_model_at_end=validation is not None,
        metric_for_best_model="eval_loss" if validation is not None else None,
        greater_is_better=False if validation is not None else None,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )
    model.to(arguments.device)
    progress = RunProgress(
        evenly(chosen.evaluations_per_run, steps) if validation is not None else set(),
        evenly(chosen.checkpoints_per_run, steps),
        chosen.early_stopping_patience,
        stop,
        steps,
    )
    collator = Collator(choose_layout(model, rows, tokenizer.pad_token_id, precision), tokenizer.pad_token_id)
    trainer = PackedTrainer(
        model=model, args=arguments, train_dataset=rows, progress=progress, validation=validation, collator=collator
    )
    trainer.remove_callback(PrinterCallback)
    return trainer, progress


def _announce(
    model: Any,
    rows: TokenizedRows,
    validation: TokenizedRows | None,
    trainer: PackedTrainer,
    chosen: Hyperparameters,
    precision: str,
) -> None:
    parameters = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    held_out = validation or []
    print(
        f"[setup] method={chosen.method} parameters={sum(count for count, _ in parameters)} "
        f"trained={sum(count for count, wanted in parameters if wanted)} precision={precision} "
        f"device={trainer.args.device.type} processes={trainer.args.world_size} batches={trainer.collator.layout} "
        f"train_rows={len(rows)} validation_rows={len(held_out)} "
        f"rows_left_out={rows.left_out + (validation.left_out if validation else 0)} steps={trainer.args.max_steps}",
        flush=True,
    )


def _train(trainer: PackedTrainer, progress: RunProgress, run_dir: Path) -> int:
    """Train to the end, from the last whole checkpoint if there is one; the step it went on from (0: the start)."""
    import torch
    from checkpoints import latest_whole, remove_halves
    from transformers import TrainerState

    checkpoint = latest_whole(run_dir)
    if trainer.args.world_size > 1:
        torch.distributed.barrier()
    if trainer.is_world_process_zero():
        for name in remove_halves(run_dir):
            print(f"[resume] {name} was only half written: not used", flush=True)
    if checkpoint is None:
        trainer.train()
        return 0
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    progress.restore(state.stateful_callbacks)
    if trainer.is_world_process_zero():
        print(f"[resume] step={state.global_step}/{trainer.args.max_steps} from {checkpoint.name}", flush=True)
    over = state.global_step >= trainer.args.max_steps or progress.kept["stopped_early"]
    if over and not progress.kept["evaluation_missing"]:
        trainer.restore_finished(checkpoint, state)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    return int(state.global_step)


def _report(
    chosen: Hyperparameters,
    name: str,
    rows: TokenizedRows,
    validation: TokenizedRows | None,
    trainer: PackedTrainer,
    progress: RunProgress,
    resumed: int,
) -> dict[str, Any]:
    state, kept = trainer.state, progress.kept
    history: dict[int, dict[str, Any]] = {}
    for entry in state.log_history:
        point = history.setdefault(entry["step"], {"step": entry["step"]})
        for theirs, ours in (
            ("loss", "train_loss"),
            ("eval_loss", "validation_loss"),
            ("learning_rate", "learning_rate"),
        ):
            if theirs in entry:
                point[ours] = round(entry[theirs], 9)
    points = [history[step] for step in sorted(history)]
    validation_losses = [point["validation_loss"] for point in points if "validation_loss" in point]
    seconds = kept["seconds"]
    return {
        "version": 1,
        "method": chosen.method,
        "base_model": name,
        "steps": state.global_step,
        "epochs": round(float(state.epoch or 0), 4),
        "train_rows": len(rows),
        "validation_rows": len(validation) if validation is not None else 0,
        "rows_left_out": rows.left_out + (validation.left_out if validation is not None else 0),
        "completion_tokens": kept["completion_tokens"],
        "train_loss": next((point["train_loss"] for point in reversed(points) if "train_loss" in point), None),
        "validation_loss": validation_losses[-1] if validation_losses else None,
        "best_validation_loss": min(validation_losses, default=None),
        "completion_tokens_per_second": round(kept["completion_tokens"] / max(seconds, 1e-9), 2),
        "seconds": round(seconds, 3),
        "resumed_from_step": resumed,
        "stopped_early": kept["stopped_early"],
        "history": points,
        "hyperparameters": chosen.as_dict(),
    }


if __name__ == "__main__":
    sys.exit(main())
