"""Save MiniStack's state while it runs. By itself it saves only at a graceful stop and loses the rest to kill -9."""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from localcloud.hooks import states
from localcloud.hooks.application import Application

_log = logging.getLogger("localcloud")
_INTERVAL_S = 1.0
_AFTERMATH_S = 5.0
_IDLE_INTERVAL_S = 30.0
_SHARE = 20
"""A service whose state took t > 50 ms to save is saved again after `_SHARE` times t at the earliest."""


class Checkpoint:
    """Writes the services' states that changed: on request before an answer goes out, and every second.

    A state is taken on the event loop, where nothing changes it meanwhile, and written on a thread.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._dirty: set[str] = set()
        self._watch_until = 0.0
        self._not_before: dict[str, float] = {}
        self._failing: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = collections.defaultdict(asyncio.Lock)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="localcloud-checkpoint")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin the periodic saving; on the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Before MiniStack saves everything by itself: no write of ours may come after that."""
        if self._task is not None:
            self._task.cancel()
        self._writer.shutdown(wait=True)

    def touch(self) -> None:
        """Something may have changed, anywhere, and more may follow: stacks and functions work on after the answer."""
        self._watch_until = time.monotonic() + _AFTERMATH_S

    async def save_now(self, module: str) -> None:
        """Save one service module's state before its request is answered; OSError when the disk doesn't take it."""
        for key, name in self._app.saved_names().items():
            if name == module:
                await self._save(key)

    async def _run(self) -> None:
        last_full = time.monotonic()
        while True:
            await asyncio.sleep(_INTERVAL_S)
            now = time.monotonic()
            # Schedules and rules work without any request.
            if now < self._watch_until or now > last_full + _IDLE_INTERVAL_S:
                last_full = now
                self._dirty.update(self._app.saved_names())
            for key in list(self._dirty):
                if time.monotonic() >= self._not_before.get(key, 0.0):
                    await self._save_later(key)

    async def _save_later(self, key: str) -> None:
        """Nobody waits for this one: what fails is said once, and tried again."""
        try:
            await self._save(key)
        except OSError as error:
            self._not_before[key] = time.monotonic() + _IDLE_INTERVAL_S
            if key not in self._failing:
                _log.error("the state of %s can't be saved: %s", key, error)
            self._failing.add(key)
        else:
            self._failing.discard(key)

    async def _save(self, key: str) -> None:
        async with self._locks[key]:
            self._dirty.discard(key)
            # Processor time: a busy machine must not make a small state look costly, and leave it unsaved.
            started = time.thread_time()
            state = self._app.state_of(key)
            took = time.thread_time() - started
            if state is None:
                return
            try:
                took += await asyncio.get_running_loop().run_in_executor(self._writer, _write, key, state)
            except OSError:
                self._dirty.add(key)
                raise
            except RuntimeError:
                return  # stopping: the writer takes no more work, MiniStack saves everything itself
            self._not_before[key] = time.monotonic() + _SHARE * took if took > _INTERVAL_S / _SHARE else 0.0


def _write(key: str, state: Any) -> float:
    """Save a state; the processor time it took, in seconds."""
    started = time.thread_time()
    states.save(key, state)
    return time.thread_time() - started
