"""Answers many requests at once on one model, batched by transformers. Runs in the inference container.

`Batched` hands requests to the library's continuous batching: they join and leave the running batch token by token, so
a long answer holds nobody up. `OneByOne` is the library's `generate` in a queue: for requests that sample, because a
batch has one sampling setting, and for library versions or models that continuous batching can't run.

Both take a `Ticket` and give it the new tokens as they come. A request that fails or is cancelled ends alone. When the
batching thread itself dies, every request in it fails and the next one starts a new thread.

Continuous batching needs transformers 5.4 or later (the AWS inference image has 5.5.3). In 5.3 it asks for pinned
memory on a CPU and spins while nothing is to do, so there everything goes one by one.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import os
import queue
import secrets
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

BLOCK = 32
"""Tokens in one block of the cache: what a request takes is rounded up to it, and what prompts may share, down."""
CPU_CACHE_TOKENS = 16384
GPU_MEMORY_SHARE = 0.6
"""Of the memory left after loading; the rest is for activations and for the requests that sample."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen where it is not plainly the likeliest; `temperature` 0 is greedy, with the penalty."""

    temperature: float
    top_p: float
    seed: int | None
    top_k: int = 0
    repetition_penalty: float = 1.0

    @classmethod
    def of(cls, request: Any) -> Sampling | None:
        """A request's; None where it is plainly greedy."""
        if not request.temperature and request.repetition_penalty == 1:
            return None
        return cls(request.temperature, request.top_p, request.seed, request.top_k, request.repetition_penalty)

    def options(self) -> dict[str, Any]:
        """The same for transformers' GenerationConfig."""
        found: dict[str, Any] = {"repetition_penalty": self.repetition_penalty}
        if self.temperature:
            found |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k, "do_sample": True}
        return found


class Ticket:
    """One request under way. Iterating gives new token ids as they come and raises RuntimeError if it fails."""

    def __init__(self, prompt: list[int], max_new_tokens: int, sampling: Sampling | None = None) -> None:
        self.prompt, self.max_new_tokens, self.sampling = prompt, max_new_tokens, sampling
        self.cancelled = threading.Event()
        self.on_cancel: Callable[[], None] = lambda: None
        self.second_chance = False
        self._events: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()

    def put(self, tokens: list[int]) -> None:
        for token in tokens:
            self._events.put(token)

    def end(self, error: Exception | None = None) -> None:
        """No more tokens come; `error` says why if that is a failure."""
        self._events.put(error)

    def cancel(self) -> None:
        """Nobody wants the rest. Safe at any time, also when it has ended."""
        if not self.cancelled.is_set():
            self.cancelled.set()
            self.on_cancel()

    def __iter__(self) -> Iterator[int]:
        while (event := self._events.get()) is not None:
            if isinstance(event, Exception):
                raise RuntimeError(f"generation failed: {event}") from event
            yield event


class OneByOne:
    """`generate` for one request after the other."""

    def __init__(self, model: Any, ends: list[int], pad: int | None) -> None:
        self._model, self._ends, self._pad = model, ends, pad
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="one-by-one")

    def submit(self, ticket: Ticket) -> None:
        self._worker.submit(self._run, ticket)

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)

    def _run(self, ticket: Ticket) -> None:
        try:
            if not ticket.cancelled.is_set():
                self._generate(ticket)
        except Exception as error:
            traceback.print_exc()
            ticket.end(error)
        else:
            ticket.end()

    def _generate(self, ticket: Ticket) -> None:
        import torch
        from transformers import GenerationConfig, StoppingCriteriaList

        options: dict[str, Any] = {"do_sample": False}
        if ticket.sampling is not None:
            options |= ticket.sampling.options()
            seed = ticket.sampling.seed
            # Only this thread draws random numbers, one request at a time: a seed gives the same answer again.
            torch.manual_seed(secrets.randbits(63) if seed is None else seed)
        config = GenerationConfig(
            max_new_tokens=ticket.max_new_tokens,
            eos_token_id=self._ends or None,
            pad_token_id=self._pad,
            use_cache=True,
            **options,
        )
        ids = torch.tensor([ticket.prompt], device=self._model.device)
        with torch.inference_mode():
            self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=config,
                streamer=_TokenStreamer(ticket),
                stopping_criteria=StoppingCriteriaList([_when_cancelled(ticket)]),
            )


class Batched:
    """The library's continuous batching behind tickets. `room` is how many tokens, prompt and answer, fit at once."""

    def __init__(self, model: Any, ends: list[int], pad: int | None) -> None:
        # The library may switch the attention of the model it is given; the weights are shared.
        shared = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
        self._model = copy.deepcopy(model, shared)
        self._ends, self._pad = ends, pad
        self._lock = threading.Condition()
        self._door = threading.Lock()
        self._tickets: dict[str, tuple[Ticket, int]] = {}
        self._manager: Any = None
        self._used = 0
        self.room = BLOCK
        self._numbers = itertools.count()
        self._closed = False

    def start(self) -> None:
        """Run a prompt through it and learn how much fits; raises whatever keeps it from working here."""
        ticket = Ticket([0, 0, 0], 2)  # a prompt of one token, or one new token, does not see every fault
        self.submit(ticket)
        list(ticket)
        cache = self._manager.batch_processor.cache
        self.room = cache.num_blocks * getattr(cache, "block_size", BLOCK)

    def submit(self, ticket: Ticket) -> None:
        """Let a request in as soon as it fits beside those that run: the engine never has to put one out again."""
        need = -(-(len(ticket.prompt) + ticket.max_new_tokens) // BLOCK) * BLOCK
        with self._door, self._lock:  # one waits, the others behind it: a long request is not overtaken for ever
            self._lock.wait_for(lambda: self._used + need <= self.room)
            if self._closed:
                raise RuntimeError("the model is closed")
            if self._manager is None:
                self._manager = self._new_manager()
                threading.Thread(target=self._serve, args=(self._manager,), name="batching", daemon=True).start()
            manager, name = self._manager, f"r{next(self._numbers)}"
            self._tickets[name] = ticket, need
            self._used += need
            ticket.on_cancel = lambda: self._cancel(manager, name)
            manager.add_request(ticket.prompt, request_id=name, max_new_tokens=ticket.max_new_tokens, streaming=True)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            manager = self._manager
        if manager is not None:
            for name in list(self._tickets):
                self._cancel(manager, name)
            manager.stop(block=True, timeout=10)

    def _new_manager(self) -> Any:
        import torch
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        known = {field.name for field in dataclasses.fields(ContinuousBatchingConfig)}
        settings: dict[str, Any] = {"page_size" if "page_size" in known else "block_size": BLOCK}
        if "auto_switch_to_flash" in known:
            settings["auto_switch_to_flash"] = False  # it would look for kernels on the hub
        if torch.device(self._model.device).type == "cpu":
            tokens = int(os.environ.get("FMOPS_CACHE_TOKENS", CPU_CACHE_TOKENS))
            settings |= {"num_blocks": max(1, tokens // BLOCK), "max_batch_tokens": 256}
        else:
            settings["max_memory_percent"] = GPU_MEMORY_SHARE
        config = GenerationConfig(do_sample=False, eos_token_id=self._ends or [-1], pad_token_id=self._pad)
        with torch.no_grad():
            return self._model.init_continuous_batching(
                generation_config=config, continuous_batching_config=ContinuousBatchingConfig(**settings)
            )

    def _serve(self, manager: Any) -> None:
        """Pass tokens on until the library's thread ends. It is started here, so that it is a daemon as this one is."""
        given: dict[str, int] = {}
        manager.start()
        while True:
            output = manager.get_result(timeout=0.2)
            if output is not None:
                self._deliver(output, given)
            elif not manager.is_running():
                break
        with self._lock:
            if self._manager is manager:
                self._manager = None
            lost, self._tickets, self._used = self._tickets, {}, 0
            self._lock.notify_all()
        for name, (ticket, _) in lost.items():
            self._lost(ticket, begun=name in given)

    def _lost(self, ticket: Ticket, *, begun: bool) -> None:
        """A request whose thread ended. One that came too late to be begun there gets a second chance."""
        error: Exception = RuntimeError("the batching thread ended")
        if not (begun or ticket.second_chance or ticket.cancelled.is_set()):
            ticket.second_chance = True
            try:
                self.submit(ticket)
                return
            except Exception as failure:
                error = failure
        ticket.end(error)

    def _deliver(self, output: Any, given: dict[str, int]) -> None:
        name = output.request_id
        found = self._tickets.get(name)
        if found is None:  # cancelled
            given.pop(name, None)
            return
        ticket = found[0]
        ticket.put(output.generated_tokens[given.get(name, 0) :])
        given[name] = len(output.generated_tokens)
        if output.error is not None or output.status >= 3:  # RequestStatus.FINISHED; FAILED is 4
            given.pop(name, None)
            self._leave(name)
            ticket.end(RuntimeError(output.error) if output.error is not None else None)

    def _cancel(self, manager: Any, name: str) -> None:
        ticket = self._leave(name)
        if ticket is not None:
            manager.cancel_request(name)
            ticket.end()

    def _leave(self, name: str) -> Ticket | None:
        with self._lock:
            ticket, need = self._tickets.pop(name, (None, 0))
            self._used -= need
            self._lock.notify_all()
        return ticket


def make_batched(model: Any, ends: list[int], pad: int | None) -> Batched | None:
    """A started `Batched`, or None where this library version or this model can't; the log says why."""
    if not getattr(model, "_supports_attention_backend", False):
        # Its attention is its own code, which knows nothing of a paged cache: Falcon and StableLM fail there, Bloom,
        # MPT and GPT-J answer something else.
        print(f"requests are answered one by one, not batched: {type(model).__name__} can't be", flush=True)
        return None
    batched = None
    try:
        batched = Batched(model, ends, pad)
        batched.start()
    except Exception as error:
        print(f"requests are answered one by one, not batched: {type(error).__name__}: {error}", flush=True)
        if batched is not None:
            with contextlib.suppress(Exception):
                batched.close()
        return None
    return batched


def _when_cancelled(ticket: Ticket) -> Any:
    import torch
    from transformers import StoppingCriteria

    class Cancelled(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            return torch.full((input_ids.shape[0],), ticket.cancelled.is_set(), device=input_ids.device)

    return Cancelled()


class _TokenStreamer:
    """What `generate` calls with the prompt first, then with each new token."""

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        if self._prompt_seen:
            self._ticket.put(value.reshape(-1).tolist())
        self._prompt_seen = True

    def end(self) -> None:
        pass
