"""Generates greedy answers in batches and measures completion losses. Runs in the Evaluate step's processing container.

Rows are sorted by length, padded on the left, and leave the batch when they have ended. The tokens with which all
prompts begin are computed once (shared_prefix.py) where the model's attention allows it. Both are checked against the
plain model first; where it doesn't give the same, everything is left to the library (plain_model.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from plain_model import MOST_LOGITS, PlainModel, Steps, alike, same_steps, tried
from shared_prefix import attending_to

from common.base_model import positions
from common.prompts import end_tokens

SHORTEST_PREFIX = 16
"""Tokens; a shorter common beginning is not worth the trouble."""
COMPACT_BELOW = 0.8
"""Rows that have ended are taken out when fewer than this part of the batch is still going."""
UNUSUAL = ("sliding_window", "attn_logit_softcapping", "attention_chunk_size", "linear_attention", "layers_block_type")

Progress = Callable[[int, int], None]


class Generator:
    """One model with its tokenizer, for prompts given as token ids."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.ends = end_tokens(model, tokenizer)
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self._kept: tuple[list[int], list[tuple[Any, Any]]] = ([], [])
        """The shared tokens of last time and their state: generation and losses see the same prompts."""
        self.vocabulary = model.get_input_embeddings().weight.shape[0]
        self.positions = positions(model.config)
        """The most tokens that a row may have, prompt and answer together; None: any."""
        self.library = PlainModel(model, self.ends, self.pad)
        self.plain: bool | None = True if any(getattr(model.config, name, None) for name in UNUSUAL) else None
        """Whether to leave everything to the library, for models whose attention is not the usual one; None: not tried.
        """

    def generate(
        self, prompts: Sequence[list[int]], max_new_tokens: int, batch_size: int, progress: Progress | None = None
    ) -> list[str]:
        """Returns the greedy continuation of each prompt as text, up to an end token, at most `max_new_tokens` long.

        An answer that comes to the end of the model's positions ends there.
        """
        import torch

        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        room = [max_new_tokens if self.positions is None else self.positions - len(prompt) for prompt in prompts]
        texts = [""] * len(prompts)
        with torch.inference_mode():
            self._try(prompts)
            prefix, state = self._share(prompts)
            done = 0
            while done < len(order):
                chosen = order[done : done + batch_size]
                whole = [index for index in chosen if room[index] >= max_new_tokens]
                # The longest have less room than the others; those of one length have the same.
                chosen = whole or [index for index in chosen if room[index] == room[chosen[0]]]
                limit = min(max_new_tokens, room[chosen[0]])
                rows = [prompts[index][prefix:] for index in chosen]
                answers = self._safely(rows, limit, prefix, state) if limit > 0 else [[] for _ in rows]
                for index, answer in zip(chosen, answers, strict=True):
                    texts[index] = self.tokenizer.decode(answer, skip_special_tokens=True)
                done += len(chosen)
                if progress:
                    progress(done, len(prompts))
        return texts

    def losses(
        self, prompts: Sequence[list[int]], completions: Sequence[list[int]], batch_size: int
    ) -> list[tuple[float, int]]:
        """Returns for each row the summed loss over its completion tokens (in nats) and their number."""
        import torch

        order = sorted(range(len(prompts)), key=lambda index: (len(completions[index]), len(prompts[index])))
        found: list[tuple[float, int]] = [(0.0, 0)] * len(prompts)
        with torch.inference_mode():
            if self._try([prompt + answer for prompt, answer in zip(prompts, completions, strict=True)]):
                return self.library.losses(prompts, completions, batch_size, self.vocabulary)
            prefix, state = self._share(prompts)
            start = 0
            while start < len(order):
                chosen = order[start : start + batch_size]
                # Fewer rows where the logits would fill the memory; the last row's completion is the longest.
                while len(chosen) > 1 and len(chosen) * len(completions[chosen[-1]]) * self.vocabulary > MOST_LOGITS:
                    chosen = chosen[: len(chosen) // 2]
                start += len(chosen)
                longest = len(completions[chosen[-1]])
                rows = [prompts[index][prefix:] + completions[index] for index in chosen]
                with attending_to(state, self.model):
                    logits = self._forward(rows, prefix, keep=longest + 1)[0]
                for place, index in enumerate(chosen):
                    wanted = torch.tensor(completions[index], device=logits.device)
                    own = logits[place, -1 - len(wanted) : -1].float()
                    found[index] = (float(torch.nn.functional.cross_entropy(own, wanted, reduction="sum")), len(wanted))
        return found

    def _try(self, given: Sequence[list[int]]) -> bool:
        """Whether everything is left to the library: where the way below isn't right for the longest row and the end of
        it."""
        if self.plain is None:
            rows = tried(max(given, key=len))
            expected = [self.library.alone(row) for row in rows]
            try:
                found = self._steps(rows, expected)
                self.plain = not all(map(same_steps, found, expected))
                why = "padding or its cache changes what it answers" if self.plain else ""
            except Exception as error:  # a model may refuse our mask or cache with anything
                self.plain, why = True, f"{type(error).__name__}: {error}"
            if self.plain:
                print(f"[score] {type(self.model).__name__} is left to the library: {why}", flush=True)
        return self.plain

    def _steps(self, rows: list[list[int]], expected: list[Steps]) -> list[Steps]:
        """The first two steps of each row's answer in a batch; the second after the expected token."""
        import torch

        logits, cache, seen = self._forward(rows, 0, keep=1)
        tokens = torch.tensor([[steps[0][0]] for steps in expected], device=logits.device)
        positions = torch.tensor([[len(row)] for row in rows], device=logits.device)
        seen = torch.cat([seen, seen.new_ones(len(rows), 1)], dim=1)
        after = self._next(tokens, positions, seen, cache)
        if any(getattr(layer, "keys", None) is None for layer in cache.layers):
            raise TypeError("its cache holds other things than keys and values")
        return [[(int(tokens[place, 0]), logits[place, -1]), (0, after[place, -1])] for place in range(len(rows))]

    def _share(self, prompts: Sequence[list[int]]) -> tuple[int, list[tuple[Any, Any]]]:
        """Returns how many tokens all prompts begin with and the keys and values of these, or 0 and nothing."""
        length = min(common_prefix(prompts), min(len(prompt) for prompt in prompts) - 1)
        if self.plain or length < SHORTEST_PREFIX or len(prompts) < 2:
            return 0, []
        if self._kept[0] == prompts[0][:length]:
            return length, self._kept[1]
        from transformers import DynamicCache

        cache = DynamicCache()
        ids = self._tensor([prompts[0][:length]])
        self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        state = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
        if not self._agrees(prompts, length, state):
            return 0, []
        self._kept = prompts[0][:length], state
        return length, state

    def _agrees(self, prompts: Sequence[list[int]], length: int, state: list[tuple[Any, Any]]) -> bool:
        """Whether the shared way gives the plain model's next-token logits for the shortest and the longest prompt."""
        tried = [min(prompts, key=len), max(prompts, key=len)]
        with attending_to(state, self.model):
            shared = self._forward([prompt[length:] for prompt in tried], length, keep=1)[0][:, -1].float()
        for row, prompt in enumerate(tried):
            plain = self.model(input_ids=self._tensor([prompt]), logits_to_keep=1).logits[0, -1].float()
            if not alike(shared[row], plain):
                return False
        return True

    def _safely(self, rows: list[list[int]], limit: int, prefix: int, state: list[tuple[Any, Any]]) -> list[list[int]]:
        """Generates for one batch; on a full accelerator in halves."""
        import torch

        try:
            if self.plain:
                return self.library.answers(rows, limit)
            with attending_to(state, self.model):
                return self._batch(rows, limit, prefix)
        except torch.cuda.OutOfMemoryError:
            if len(rows) == 1:
                raise
            torch.cuda.empty_cache()
        half = len(rows) // 2
        return self._safely(rows[:half], limit, prefix, state) + self._safely(rows[half:], limit, prefix, state)

    def _batch(self, rows: list[list[int]], limit: int, prefix: int) -> list[list[int]]:
        import torch

        answers: list[list[int]] = [[] for _ in rows]
        logits, cache, seen = self._forward(rows, prefix, keep=1)
        going = list(range(len(rows)))
        positions = torch.tensor([prefix + len(row) for row in rows], device=logits.device)
        for step in range(limit):
            tokens = logits[:, -1].argmax(dim=-1)
            stay = []
            for place, token in enumerate(tokens.tolist()):
                row = going[place]
                if row >= 0 and token not in self.ends:
                    answers[row].append(token)
                    stay.append(place)
                else:
                    going[place] = -1
            if not stay or step == limit - 1:
                break
            if len(stay) < COMPACT_BELOW * len(going):
                keep = torch.tensor(stay, device=logits.device)
                for layer in cache.layers:
                    layer.keys, layer.values = layer.keys[keep], layer.values[keep]
                tokens, positions, seen, going = (
                    tokens[keep],
                    positions[keep],
                    seen[keep],
                    [going[place] for place in stay],
                )
            seen = torch.cat([seen, seen.new_ones(len(going), 1)], dim=1)
            logits = self._next(tokens[:, None], positions[:, None], seen, cache)
            positions = positions + 1
        return answers

    def _next(self, tokens: Any, positions: Any, seen: Any, cache: Any) -> Any:
        """Logits after one more token of each row; `seen` says which tokens of a row are real, this one among them."""
        return self.model(
            input_ids=tokens,
            attention_mask=self._mask(seen[:, None, None, :]),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits

    def _forward(self, rows: list[list[int]], prefix: int, keep: int) -> tuple[Any, Any, Any]:
        """Runs whole rows, padded on the left. Returns the last `keep` logits, the cache and which tokens are real."""
        import torch
        from transformers import DynamicCache

        width = max(len(row) for row in rows)
        ids = self._tensor([[self.pad] * (width - len(row)) + row for row in rows])
        seen = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows], device=ids.device)
        positions = (seen.long().cumsum(dim=1) - 1).clamp(min=0) + prefix
        causal = torch.ones(width, width, dtype=torch.bool, device=ids.device).tril()
        # A padded query sees itself, because a softmax over nothing is not a number.
        visible = (causal & seen[:, None, None, :]) | torch.eye(width, dtype=torch.bool, device=ids.device)
        cache = DynamicCache()
        logits = self.model(
            input_ids=ids,
            attention_mask=self._mask(visible),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=min(keep, width),
        ).logits
        return logits, cache, seen

    def _mask(self, visible: Any) -> Any:
        import torch

        dtype = self.model.dtype
        return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(
            ~visible, torch.finfo(dtype).min
        )

    def _tensor(self, rows: list[list[int]]) -> Any:
        import torch

        return torch.tensor(rows, dtype=torch.long, device=self.model.device)


def common_prefix(prompts: Sequence[list[int]]) -> int:
    """Returns how many tokens all prompts begin with."""
    first, last = min(prompts), max(prompts)
    return next(
        (place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]),
        min(len(first), len(last)),
    )
