"""Requests to an endpoint from many threads while something happens to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from localcloud_jobs.conftest import Bench, until
from localcloud_jobs.test_endpoints import invoke


def word(bench: Bench, name: str, **more: Any) -> str:
    """Which model answered: the word that its archive holds."""
    text: str = json.loads(invoke(bench, name, {"inputs": "!"}, **more)["Body"])[0]["generated_text"]
    return text.removesuffix(" !")


class Traffic:
    """`with Traffic(bench, "chat") as traffic:` keeps callers asking; afterwards no request may have failed."""

    def __init__(self, bench: Bench, name: str, callers: int = 4, ask: Callable[[Bench, str], str] = word) -> None:
        self.words: list[str] = []
        self.failures: list[BaseException] = []
        self._stop = threading.Event()

        def call() -> None:
            while not self._stop.wait(0.005):
                try:
                    self.words.append(ask(bench, name))
                except BaseException as error:
                    self.failures.append(error)

        self._callers = [threading.Thread(target=call) for _ in range(callers)]

    def more(self, count: int = 20) -> list[str]:
        """Wait for so many further answers; those."""
        begin = len(self.words)
        until(lambda: len(self.words), lambda now: now >= begin + count or bool(self.failures))
        return self.words[begin:]

    def __enter__(self) -> Traffic:
        for caller in self._callers:
            caller.start()
        self.more()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for caller in self._callers:
            caller.join()
        assert self.failures == []
