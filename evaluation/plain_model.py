"""Answers and losses by the library alone, where generation.py's own way isn't right. Runs in the Evaluate step's
processing container.

Such are models with windows or caps in their attention, and those that take no mask of ours or keep a state instead of
keys and values (Bloom, Falcon, Mamba, LFM2, Qwen3-Next). Prompts are padded on the left where the model gives the same
then as for single rows, which is tried; else they are answered one by one. Losses are of rows padded on the right: what
stands behind a token changes nothing for it in a causal model.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

MOST_LOGITS = 150_000_000
"""Logits held at once when losses are computed: 300 MB in bfloat16."""
TOLERANCE = 0.08
"""Largest mean difference of logits, in standard deviations, that still counts as rounding."""
HALF_TOLERANCE = 0.25
"""The same for two steps in half precision: SmolLM2-135M in bf16 differs by up to 0.085 from itself; a mask that isn't
heeded, or a cache that is mixed up, by much more."""

Steps = list[tuple[int, Any]]
"""Of the first two steps of an answer the token, and all logits."""


def alike(one: Any, other: Any, tolerance: float = TOLERANCE) -> bool:
    """Whether logits of one place differ by no more than rounding does."""
    difference = float((one.float() - other.float()).abs().mean())
    return difference <= tolerance * float(other.float().std())  # False for what is no number


def same_steps(found: Steps, expected: Steps) -> bool:
    """Whether an answer begins as expected; after another token, which rounding may choose, nothing can be compared."""
    tolerance = TOLERANCE if expected[0][1].element_size() >= 4 else HALF_TOLERANCE
    return alike(found[0][1], expected[0][1], tolerance) and (
        found[0][0] != expected[0][0] or alike(found[1][1], expected[1][1], tolerance)
    )


def tried(row: list[int]) -> list[list[int]]:
    """Two rows of different lengths, the end of one and most of it: there is a place for two tokens more."""
    return [row[len(row) // 2 :], row[2:] or row]


class PlainModel:
    """A model as the library runs it; `ends` are the tokens that end an answer, `pad` is what rows are padded with."""

    def __init__(self, model: Any, ends: list[int], pad: int) -> None:
        self.model, self.ends, self.pad = model, ends, pad
        self._takes = frozenset(inspect.signature(model.forward).parameters)
        self._batches: bool | None = None

    def alone(self, prompt: list[int]) -> Steps:
        """The first two steps of an answer by whole rows without padding, mask or cache: what all else must give."""
        found: Steps = []
        for _ in range(2):
            row = [*prompt, *(token for token, _ in found)]
            logits = self.model(input_ids=self._tensor([row]), use_cache=False, **self._keep(1)).logits[0, -1]
            found.append((int(logits.argmax()), logits))
        return found

    def answers(self, rows: list[list[int]], limit: int) -> list[list[int]]:
        """The greedy answer to each prompt, without its end."""
        if len(rows) > 1 and not self._can_batch(max(rows, key=len)):
            return [self.answers([row], limit)[0] for row in rows]
        width = max(len(row) for row in rows)
        answers = self._generate(rows, max_new_tokens=limit)[:, width:].tolist()
        return [self._until_end(answer) for answer in answers]

    def losses(
        self, prompts: Sequence[list[int]], completions: Sequence[list[int]], batch_size: int, vocabulary: int
    ) -> list[tuple[float, int]]:
        """As Generator.losses."""
        import torch

        found: list[tuple[float, int]] = [(0.0, 0)] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]) + len(completions[index]))
        start = 0
        while start < len(order):
            chosen = order[start : start + batch_size]
            while len(chosen) > 1 and len(chosen) * self._kept(prompts, completions, chosen) * vocabulary > MOST_LOGITS:
                chosen = chosen[: len(chosen) // 2]
            start += len(chosen)
            rows = [prompts[index] + completions[index] for index in chosen]
            width, kept = max(map(len, rows)), self._kept(prompts, completions, chosen)
            ids = self._tensor([row + [self.pad] * (width - len(row)) for row in rows])
            mask = self._tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False, **self._keep(kept)).logits
            before = width - logits.shape[1]
            for place, index in enumerate(chosen):
                wanted = torch.tensor(completions[index], device=logits.device)
                first = len(prompts[index]) - 1 - before
                own = logits[place, first : first + len(wanted)].float()
                found[index] = (float(torch.nn.functional.cross_entropy(own, wanted, reduction="sum")), len(wanted))
        return found

    def _kept(self, prompts: Sequence[list[int]], completions: Sequence[list[int]], chosen: list[int]) -> int:
        """Places whose logits are needed, counted from the end of the longest row."""
        width = max(len(prompts[index]) + len(completions[index]) for index in chosen)
        return width - min(len(prompts[index]) for index in chosen) + 1

    def _can_batch(self, prompt: list[int]) -> bool:
        """Whether a padded batch gives what single rows give: tried once, with a prompt and the end of it."""
        if self._batches is None:
            self._batches = self._tried(tried(prompt))
            if not self._batches:
                print("[score] prompts are answered one by one: padding changes what this model answers", flush=True)
        return self._batches

    def _tried(self, rows: list[list[int]]) -> bool:
        try:
            out = self._generate(rows, min_new_tokens=2, max_new_tokens=2, output_logits=True,
                                 return_dict_in_generate=True)  # fmt: skip
        except Exception as error:
            print(f"[score] prompts can't be padded ({type(error).__name__}: {error})", flush=True)
            return False
        tokens = out.sequences[:, -2:].tolist()
        steps = [[(tokens[place][step], out.logits[step][place]) for step in range(2)] for place in range(len(rows))]
        return all(same_steps(found, self.alone(row)) for found, row in zip(steps, rows, strict=True))

    def _generate(self, rows: list[list[int]], **options: Any) -> Any:
        width = max(len(row) for row in rows)
        ids = self._tensor([[self.pad] * (width - len(row)) + row for row in rows])
        mask = self._tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        return self.model.generate(input_ids=ids, attention_mask=mask, do_sample=False, eos_token_id=self.ends,
                                   pad_token_id=self.pad, **options)  # fmt: skip

    def _until_end(self, answer: list[int]) -> list[int]:
        return answer[: next((place for place, token in enumerate(answer) if token in self.ends), len(answer))]

    def _keep(self, count: int) -> dict[str, int]:
        return {"logits_to_keep": count} if "logits_to_keep" in self._takes else {}

    def _tensor(self, rows: list[list[int]]) -> Any:
        import torch

        return torch.tensor(rows, dtype=torch.long, device=self.model.device)
