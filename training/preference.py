"""Preference tuning (DPO): pairs of answers as rows, and their trainer. Runs in the GPU training container.

    {"messages": [...], "chosen": {"role": "assistant", "content": "on"}, "rejected": {...}}

The loss of a pair is -log sigmoid(beta * ((log p(chosen) - log p(rejected)) - the same of the reference)), which is the
base with its adapters off (Rafailov et al. 2023). A pair's answers lie in one micro-batch, so that packed they share
the prompt. Everything else is PackedTrainer's: batches, checkpoints, SIGTERM, progress.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from losses import causal_model, hidden_before, nothing, token_losses
from packed_trainer import PackedTrainer
from packing import Collator
from tokenized import TokenizedRow, TokenizedRows, tokenize_channel

from common.failure import JobError
from common.rows import parse_rows, row_files

LONGEST = 1 << 30
"""Tokens: rows of any length are tokenized, so that both answers of a pair are there or neither."""

Pair = tuple[TokenizedRow, TokenizedRow]


class Pairs:
    """Pairs of tokenized rows, chosen and rejected, both within `max_seq_length` tokens."""

    def __init__(self, rows: TokenizedRows, max_seq_length: int) -> None:
        self.rows = rows
        both = rows.lengths().reshape(-1, 2)
        self._kept: np.ndarray = np.flatnonzero(both.max(axis=1) <= max_seq_length)
        self._lengths: np.ndarray = both.sum(axis=1)[self._kept]
        self.left_out = len(both) - len(self._kept)
        self.longest = int(both.max())
        self.shared = 0
        """A pair's answers share their prompt; what all pairs share isn't counted."""

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Pair:
        first = 2 * int(self._kept[index])
        return self.rows[first], self.rows[first + 1]

    def lengths(self) -> np.ndarray:
        """Tokens of each pair."""
        return self._lengths


def tokenize_pairs(
    channel: Path, tokenizer: Any, max_seq_length: int, long_rows: str, cache: Path | None, adapt: bool = False
) -> Pairs:
    """Every pair of the channel; those with an answer that is too long are left out and counted.

    Raises JobError for a row that is no preference (file, line, reason) and if no pair is left.
    """
    if long_rows.startswith("truncate"):
        raise JobError(f"task=dpo with long_rows={long_rows}: a shortened answer is none to prefer; set long_rows=drop")
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="fmops-pairs-") as scratch:
            return tokenize_pairs(channel, tokenizer, max_seq_length, long_rows, Path(scratch), adapt)
    folder = cache / "pairs" / channel.name
    answers = _write_answers(channel, folder)
    try:
        rows = tokenize_channel(folder, tokenizer, LONGEST, learn="last", cache=cache, adapt=adapt)
    except JobError as error:
        raise JobError(re.sub(r", line (\d+)", lambda found: f", row {(int(found[1]) + 1) // 2}", str(error))) from None
    if len(rows) != answers:
        raise JobError(f"{channel}: {answers - len(rows)} answers have a weight of 0; what is preferred has none")
    pairs = Pairs(rows, max_seq_length)
    if not len(pairs) or (pairs.left_out and long_rows == "error"):
        raise JobError(
            f"{pairs.left_out} of {answers // 2} pairs in {channel} are longer than max_seq_length={max_seq_length} "
            f"tokens (the longest answer with its prompt has {pairs.longest}): raise max_seq_length"
        )
    return pairs


def _write_answers(channel: Path, folder: Path) -> int:
    """Each pair as two conversations in files of the same names; how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for file in row_files(channel):
        draft = folder / f"{file.name}.draft"
        with open(file, "rb") as lines, open(draft, "w", encoding="utf-8") as written:
            for _, row in parse_rows(file.name, lines, ("preference",)):
                for answer in (row.pop("chosen"), row.pop("rejected")):
                    written.write(json.dumps({**row, "messages": [*row["messages"], answer]}) + "\n")
                    count += 1
        draft.replace(folder / file.name)
    if not count:
        raise JobError(f"no rows in {channel}: the file is empty")
    return count


class PairCollator(Collator):
    """Micro-batches of pairs; `owners` (n,) says which of the 2 x pairs answers each target belongs to."""

    def __call__(self, pairs: list[Any]) -> dict[str, Any]:
        rows = [row for pair in pairs for row in pair]
        counts = torch.tensor([int(row["learned"].sum()) for row in rows], dtype=torch.long)
        owners = torch.repeat_interleave(torch.arange(len(rows)), counts)
        return {**super().__call__(rows), "owners": owners, "answers": len(rows)}


def install(model: Any) -> None:
    """Let the model return each answer's log-probability, fp32 (answers,), where a batch says whose tokens they are.

    Of other batches it returns what it did before.
    """
    causal = causal_model(model)
    before = causal.forward

    def forward(self: Any, *arguments: Any, owners: Any = None, **inputs: Any) -> Any:
        if owners is None:
            return before(*arguments, **inputs)
        return _log_probabilities(self, owners, inputs)

    causal.forward = MethodType(forward, causal)


def _log_probabilities(model: Any, owners: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
    targets, place, answers = (inputs.pop(name) for name in ("targets", "place", "answers"))
    hidden = hidden_before(model, place, inputs)
    if not len(targets):
        return nothing(model.get_output_embeddings(), hidden).reshape(1)
    tokens = -token_losses(model, hidden, targets)
    return torch.zeros(answers, device=hidden.device).index_add(0, owners, tokens)


class PreferenceTrainer(PackedTrainer):
    """PackedTrainer whose loss is the mean over a whole step's pairs."""

    def __init__(self, *, beta: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.beta = beta
        self._step_pairs = 0
        self._preferred: list[torch.Tensor] = []

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        super()._get_num_items_in_batch(batch_samples, device)
        count = torch.tensor(sum(batch["answers"] // 2 for step in batch_samples for batch in step), device=device)
        count = self._sum(count)
        self._step_pairs = int(count)
        return count

    def take_step_loss(self) -> tuple[float, int]:
        """Mean loss of the pairs of the step that just ended, and the tokens of their answers."""
        loss, tokens = super().take_step_loss()
        return loss * tokens / self._step_pairs, tokens

    def items(self, inputs: dict[str, Any]) -> int:
        """Pairs of a micro-batch."""
        return int(inputs["answers"]) // 2

    def batch_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Sum of the losses of a micro-batch's pairs."""
        adapted = self.accelerator.unwrap_model(model)
        if not inputs["answers"]:
            return model(**inputs, use_cache=False).sum()
        policy = model(**inputs, use_cache=False)
        training = adapted.training
        adapted.eval()
        with torch.no_grad(), adapted.disable_adapter():
            reference = adapted(**inputs, use_cache=False)
        adapted.train(training)
        margins = (policy - reference).reshape(-1, 2)
        preferred = self.beta * (margins[:, 0] - margins[:, 1])
        if not training:
            self._preferred.append(preferred.detach())
        return -functional.logsigmoid(preferred).sum()

    def evaluate(self, *arguments: Any, **more: Any) -> dict[str, float]:
        """PackedTrainer's, and a line with the share of pairs whose chosen answer gained on the other."""
        self._preferred = []
        metrics: dict[str, float] = super().evaluate(*arguments, **more)
        found = torch.cat(self._preferred) if self._preferred else torch.zeros(0, device=self.args.device)
        right, margin, count = self._sum(
            torch.stack([(found > 0).sum().double(), found.double().sum(), found.new_tensor(len(found)).double()])
        )
        if self.is_world_process_zero():
            step = f"{self.state.global_step}/{self.state.max_steps}"
            share, mean = float(right / count), float(margin / count)
            print(f"[preference] step={step} accuracy={share:.4f} margin={mean:.4f}", flush=True)
        return metrics
