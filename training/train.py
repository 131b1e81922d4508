"""Fine-tunes a causal language model on canonical rows. Runs in the GPU training container, and on a laptop's CPU.

    SM_CHANNEL_TRAIN=data/train SM_CHANNEL_VALIDATION=data/validation SM_CHANNEL_MODEL=base SM_MODEL_DIR=model \\
        python train.py --method lora --epochs 2 --checkpoint_dir checkpoints
    torchrun --nproc-per-node 4 train.py --method full ...

A row is `{"messages": [..., {"role": "assistant", "content": "..."}]}`. The loss counts completion tokens only,
and rows are packed without padding. Killed at any moment and started again with the same arguments, it continues from
its last whole checkpoint. `train.py --help` lists the hyperparameters.

Several GPUs, and several machines with a torchrun on each, hold one copy of the model each (DDP), or a part of it each
where one can't hold it (sharding.py). A restart on several machines needs the checkpoint files of all of them on all of
them, which SageMaker does through S3. Tried with two processes that had disks of their own, without GPUs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperparameters import Hyperparameters, build_parser, checkpoint_root, parse
from ranks import first, world_size
from stop import StopSignal
from training_errors import EXIT_FAILED, EXIT_STOPPED, StopRequestedError, expected, readable

from common.failure import JobError, report_failure

if TYPE_CHECKING:
    from packed_trainer import PackedTrainer
    from progress import RunProgress
    from start import Start
    from tokenized import TokenizedRows

__all__ = ["build_parser", "main", "run"]

TOKENIZED = "tokenized"
"""The folder beside the checkpoints that keeps the tokens."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; the exit code: 0 done, 1 failed (one line says why), 143 stopped by SIGTERM."""
    # Threads that spin while they wait cost a busy machine most of its time: 24 CPU seconds a step instead of 1.5 were
    # seen on two shared cores. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        chosen = parse(sys.argv[1:] if arguments is None else arguments)
        run(chosen)
    except StopRequestedError as stopped:
        print(f"[stop] {stopped}", flush=True)
        return EXIT_STOPPED
    except JobError as error:
        _fail(str(error))
        return EXIT_FAILED
    except Exception as error:
        if not expected(error):
            traceback.print_exc()
        _fail(readable(error))
        return EXIT_FAILED
    return 0


def _fail(message: str) -> None:
    folder = os.environ.get("SM_OUTPUT_DIR")
    report_failure("train.py", message, [Path(folder) / "failure"] if folder else [])


def run(chosen: Hyperparameters) -> None:
    """Train as the channels and `chosen` say and write the model directory.

    Raises JobError for what the job's owner can mend, StopRequestedError after SIGTERM.
    """
    stop = StopSignal()
    stop.install()
    _quiet()
    import torch
    from adapters import check_chosen
    from building import Building
    from saving import check_space, save_model
    from sharding import collect
    from start import check_start, find_start
    from trackers import open_trackers
    from trainer_setup import build_trainer
    from training_report import build_report
    from transformers import set_seed
    from weights import (
        base_source,
        check_tokens,
        frozen_dtype,
        resolve_precision,
    )

    from common.base_model import base_name, is_composite, load_causal_model, load_config
    from common.method_check import targets
    from common.tokenizer import load_tokenizer

    train_channel, validation_channel = _channel("TRAIN"), _channel("VALIDATION", required=False)
    model_dir = Path(os.environ.get("SM_MODEL_DIR") or "model")
    check_chosen(chosen)
    source, commit = base_source(chosen)
    config = load_config(source)
    name = base_name(source, config, chosen.model_id if commit else "")
    layers = targets(chosen.lora_target_modules, config) if chosen.method != "full" else []
    start = find_start(chosen)
    if start is not None:
        check_start(start, chosen, config, name, layers)
    trackers = open_trackers(chosen, name) if first() else []
    set_seed(chosen.seed)
    tokenizer = load_tokenizer(source)
    rows, validation = _tokenize(train_channel, validation_channel, tokenizer, chosen)

    check_tokens(config, tokenizer, *(getattr(part, "rows", part) for part in (rows, validation)))
    precision = resolve_precision(chosen.precision, config)
    longest = max(int(part.lengths().max()) for part in (rows, validation) if part is not None)
    building = Building(source, config, chosen, precision, layers, name, start)
    model, sharded = building.share(longest)
    stored = config.dtype or torch.float32

    contents = [getattr(part, "rows", part).content for part in (rows, validation) if part is not None]
    run_dir = _run_directory(chosen, precision, source, contents, start)
    trainer = build_trainer(model, tokenizer, rows, validation, chosen, precision, run_dir, stop, sharded)
    if trainer.is_world_process_zero():
        model_dir.mkdir(parents=True, exist_ok=True)
        check_space(model, model_dir, run_dir, chosen.merge or chosen.method == "full")
        _announce(model, rows, validation, trainer, chosen, precision)
    trainer.progress.trackers = trackers
    with trainer.memory.explained(*trainer.micro_batches.settings), _ended(trainer.progress):
        resumed = _train(trainer, run_dir)
    saved = f"checkpoint saved at step {trainer.state.global_step}/{trainer.state.max_steps}"
    if trainer.agree(stop.requested):
        raise StopRequestedError(f"SIGTERM: {saved}; started again with the same arguments the job goes on from there")
    if trainer.progress.out_of_time:
        raise JobError(
            f"the time that training.max_runtime_seconds allows is nearly over: {saved}; start the pipeline again to "
            "go on from there, or raise training.max_runtime_seconds before"
        )
    finished = trainer.model
    if sharded:
        finished = building.model() if first() else None
        collect(trainer.model, finished)
    if trainer.is_world_process_zero():
        report = build_report(chosen, name, commit, rows, validation, trainer, resumed, contents)
        serving = os.environ.get("SM_CHANNEL_SERVING")
        unquantized = (
            (lambda: load_causal_model(source, config, frozen_dtype(precision))) if chosen.method == "qlora" else None
        )
        save_model(
            finished,
            tokenizer,
            model_dir,
            Path(serving) if serving else None,
            report,
            merge=chosen.merge,
            dtype=stored,
            base=unquantized,
            keep_adapter=not is_composite(config),
        )
        print(f"[done] steps={report['steps']} train_loss={report['train_loss']} saved={model_dir}", flush=True)
        if not chosen.checkpoint_dir:
            shutil.rmtree(run_dir.parent, ignore_errors=True)
    if trainer.args.world_size > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _quiet() -> None:
    """Progress lines only on stdout; no library's bars, banners or attempts to reach a hub that is not there."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if os.environ.get("SM_CHANNEL_MODEL"):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    import logging as standard

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    standard.getLogger("bitsandbytes").setLevel(standard.ERROR)


def _channel(name: str, required: bool = True) -> Path | None:
    value = os.environ.get(f"SM_CHANNEL_{name}")
    if not value:
        if required:
            raise JobError(f"no {name.lower()} channel: SM_CHANNEL_{name} is not set")
        return None
    path = Path(value)
    if not path.exists():
        raise JobError(f"the {name.lower()} channel {path} does not exist")
    return path


def _tokenize(
    train: Path | None, validation: Path | None, tokenizer: Any, chosen: Hyperparameters
) -> tuple[TokenizedRows, TokenizedRows | None]:
    from tokenized import tokenize_channel

    assert train is not None
    if chosen.early_stopping_patience and validation is None:
        raise JobError("early_stopping_patience needs a validation channel: SM_CHANNEL_VALIDATION is not set")
    cache = Path(checkpoint_root(chosen)) / TOKENIZED
    found: list[Any] = []
    for channel in (train, validation) if validation else (train,):
        if chosen.task == "dpo":
            from preference import tokenize_pairs

            limit, long_rows = chosen.max_seq_length, chosen.long_rows
            found.append(tokenize_pairs(channel, tokenizer, limit, long_rows, cache, adapt=channel is train))
            continue
        rows = tokenize_channel(
            channel,
            tokenizer,
            chosen.max_seq_length,
            learn=chosen.learn,
            long_rows=chosen.long_rows,
            cache=cache,
            adapt=channel is train,
        )
        if first():
            for note in rows.notes:
                print(f"[data] {'train' if channel is train else 'validation'}: {note}", flush=True)
        found.append(rows)
    return found[0], found[1] if validation else None


def _run_directory(
    chosen: Hyperparameters, precision: str, source: str, contents: list[str], start: Start | None
) -> Path:
    """Where this run's checkpoints lie. Says so if only another run's do."""
    from checkpoints import latest_whole
    from run_folder import another_run, describe, open_run

    files = start.files() if start else ()
    description = describe(chosen.as_dict(), precision, contents, files, source, world_size())
    folder = open_run(Path(checkpoint_root(chosen)).absolute(), description)
    fresh = first() and latest_whole(folder) is None
    if fresh and (line := another_run(folder, description)):
        print(f"[resume] {line}", flush=True)
    return folder


def _announce(
    model: Any,
    rows: TokenizedRows,
    validation: TokenizedRows | None,
    trainer: PackedTrainer,
    chosen: Hyperparameters,
    precision: str,
) -> None:
    from adapters import count

    from common.method_check import experts

    parameters, trained = count(model)
    frozen = f"frozen_experts={experts(model.config)} " * bool(experts(model.config))
    print(
        f"[setup] method={chosen.method} parameters={parameters} trained={trained} {frozen}precision={precision} "
        f"device={trainer.args.device.type} processes={trainer.args.world_size} "
        f"sharded={str(trainer.sharded).lower()} batches={trainer.collator.layout} "
        f"micro_batch_tokens={trainer.micro_batches.tokens} "
        f"activation_checkpointing={str(trainer.micro_batches.checkpointing).lower()} "
        f"train_rows={len(rows)} validation_rows={len(validation) if validation else 0} "
        f"rows_left_out={rows.left_out + (validation.left_out if validation else 0)} steps={trainer.args.max_steps}",
        flush=True,
    )
    print(trainer.memory.line(*trainer.micro_batches.settings), flush=True)


def _train(trainer: PackedTrainer, run_dir: Path) -> int:
    """Train to the end, from the last whole checkpoint if there is one; the step it went on from (0: the start)."""
    from checkpoints import processes_of
    from tokenized import forget_told
    from transformers import TrainerState

    checkpoint = _newest_everywhere(trainer, run_dir)
    forget_told()  # a process that has come so far has its rows
    if checkpoint is None:
        trainer.train()
        return 0
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    progress = trainer.progress
    progress.restore(state.stateful_callbacks)
    if trainer.is_world_process_zero():
        before, now = processes_of(checkpoint), trainer.args.world_size
        fresh = f"; processes {before} -> {now}: dropout begins a new random sequence" if before != now else ""
        print(f"[resume] step={state.global_step}/{trainer.args.max_steps} from {checkpoint.name}{fresh}", flush=True)
    if progress.is_over(state) and not progress.kept["evaluation_missing"]:
        trainer.restore_finished(checkpoint, state)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    return int(state.global_step)


@contextlib.contextmanager
def _ended(progress: RunProgress) -> Iterator[None]:
    """Tell the trackers how training ended."""
    status = "FAILED"
    try:
        yield
        status = "KILLED" if progress.stop.requested or progress.out_of_time else "FINISHED"
    finally:
        for tracker in progress.trackers:
            tracker.end(status)


def _newest_everywhere(trainer: PackedTrainer, run_dir: Path) -> Path | None:
    """The newest checkpoint that is whole on every machine, to the byte. Those that aren't are deleted, with a line."""
    from checkpoints import all_steps, at, fault, remove
    from processes import each
    from ranks import first_of_machine

    device, endless = trainer.args.device, 1 << 62
    mine = all_steps(run_dir) if first_of_machine() else []
    each(0, device)  # none is deleted before all have looked
    while True:
        newest = (mine[-1] if mine else 0) if first_of_machine() else endless
        step = min(each(newest, device))
        if not step:
            return None
        wrong = fault(at(run_dir, step), read=True) if first_of_machine() else None
        if not trainer.agree(wrong is not None):
            return at(run_dir, step)
        if trainer.is_world_process_zero():
            print(f"[resume] checkpoint-{step} {wrong or 'is not whole on every machine'}: not used", flush=True)
        if first_of_machine():
            remove(at(run_dir, step))
            mine = [other for other in mine if other < step]


def _leave(code: int) -> None:
    """End the process, with several processes at once: gloo's threads may still be ending, and C++ aborts the process
    ("terminate called without an active exception") when an orderly exit finds one running. All is written by now.
    """
    if world_size() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _leave(main())
