"""Builds training_report.json, which lies in the model directory. Runs in the GPU training container.

    {"version": 1, "method": "lora", "base_model": "SmolLM2-135M-Instruct", "base_commit": null, "steps": 147,
     "epochs": 1.0, "train_rows": 735, "validation_rows": 90, "rows_left_out": 0, "completion_tokens": 16170,
     "train_loss": 0.21, "validation_loss": 0.24, "best_validation_loss": 0.23,
     "completion_tokens_per_second": 165.2, "tokens_per_second": 1480.3, "mfu": 0.412, "peak_memory_gib": 17.2,
     "estimated_memory_gib": {"weights": 15.0, "adapters": 0.2, ...}, "seconds": 97.9, "micro_batch_tokens": 1024,
     "activation_checkpointing": false, "resumed_from_step": 0, "stopped_early": false,
     "list_price_usd_per_hour": 1.515, "usd_per_million_tokens": 0.284,
     "history": [{"step": 1, "train_loss": 2.9, "learning_rate": 0.0004}, ...], "hyperparameters": {...},
     "data_sha256": "9f86d0...", "context": 2048}

Losses are means over completion tokens; a `train_loss` is the mean since the point before. `rows_left_out` counts rows
of both channels that are longer than max_seq_length. `seconds` is training's wall time, that of killed runs included up
to their last checkpoint. `tokens_per_second` counts all tokens but padding; `mfu` is null where the device's peak isn't
known (throughput.py has the formula); memory is that of process 0. The cost of a million tokens is the list price of
the machines over `seconds`, without what they need to start; null where no price is known. `context` is how many tokens
prompt and answer may have together at an endpoint; `base_commit` is the hub's, of a model that came from there.
`data_sha256` names the data set, wherever it lies: it comes from the names and bytes of the channels' files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hyperparameters import Hyperparameters
from throughput import list_price, peak_memory

from common.answer_bounds import MOST_NEW_TOKENS

if TYPE_CHECKING:
    from packed_trainer import PackedTrainer
    from tokenized import TokenizedRows

NAMES = {"loss": "train_loss", "eval_loss": "validation_loss", "learning_rate": "learning_rate"}


def build_report(
    chosen: Hyperparameters,
    name: str,
    commit: str,
    rows: TokenizedRows,
    validation: TokenizedRows | None,
    trainer: PackedTrainer,
    resumed: int,
    contents: Iterable[str],
) -> dict[str, Any]:
    """The report of a run that ended at `trainer.state`; `resumed` is the step it went on from (0: the start)."""
    state, kept = trainer.state, trainer.progress.kept
    points = history(state.log_history)
    validation_losses = [point["validation_loss"] for point in points if "validation_loss" in point]
    seconds = kept["seconds"]
    tokens_per_second = kept["tokens"] / max(seconds, 1e-9)
    used, price = trainer.mfu(tokens_per_second), list_price(trainer.args.device)
    return {
        "version": 1,
        "method": chosen.method,
        "base_model": name,
        "base_commit": commit or None,
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
        "tokens_per_second": round(tokens_per_second, 2),
        "mfu": used if used is None else round(used, 4),
        "peak_memory_gib": round(peak_memory(trainer.args.device) / 1024**3, 3),
        "estimated_memory_gib": trainer.memory.parts(*trainer.micro_batches.settings),
        "seconds": round(seconds, 3),
        "micro_batch_tokens": trainer.micro_batches.tokens,
        "activation_checkpointing": trainer.micro_batches.checkpointing,
        "resumed_from_step": resumed,
        "stopped_early": kept["stopped_early"],
        "list_price_usd_per_hour": price,
        "usd_per_million_tokens": price and round(price / 3600 / max(tokens_per_second, 1e-9) * 1e6, 4),
        "history": points,
        "hyperparameters": chosen.as_dict(),
        "data_sha256": hashlib.sha256("\n".join(contents).encode()).hexdigest(),
        "context": serving_context(trainer.model.config, chosen.max_seq_length),
    }


def serving_context(config: Any, max_seq_length: int) -> int:
    """Tokens that a server needs room for: the longest prompt that was trained on and an answer, within the positions.

    `config` is the model's. Position embeddings end there; a model without any (ALiBi) has no such limit.
    """
    wanted = max_seq_length + MOST_NEW_TOKENS
    return min(wanted, int(getattr(config, "max_position_embeddings", None) or wanted))


def history(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One point for each step that the Trainer's log mentions, in order."""
    points: dict[int, dict[str, Any]] = {}
    for entry in log:
        point = points.setdefault(entry["step"], {"step": entry["step"]})
        point.update({ours: round(entry[theirs], 9) for theirs, ours in NAMES.items() if theirs in entry})
    return [points[step] for step in sorted(points)]
