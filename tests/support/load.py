"""Steady load on an endpoint of this machine, bounded in rate, time and count, and what came of each request.

with Load("http://127.0.0.1:4566", secret, "chat", rate=50, most=6000) as load:
    ...
load.results     # [Result(start, seconds, error)], one for each request, none lost
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

WORKERS = 32


@dataclass(frozen=True)
class Result:
    """One request: when it began (time.monotonic), how long it took in seconds, and what went wrong, if anything."""

    start: float
    seconds: float
    error: str


class Load:
    """Sends `rate` requests a second, whether earlier ones were answered or not, until left or `most` were sent."""

    def __init__(self, url: str, secret: str, endpoint: str, *, rate: float, most: int, body: dict[str, Any]) -> None:
        assert urlsplit(url).hostname in ("127.0.0.1", "localhost"), "load goes to this machine alone"
        self._client = _client(url, secret)
        self._endpoint, self._body = endpoint, json.dumps(body)
        self._rate, self._most = rate, most
        self._numbers, self._lock = itertools.count(), threading.Lock()
        self._stop = threading.Event()
        self._begin = 0.0
        self.results: list[Result] = []
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(WORKERS)]

    def __enter__(self) -> Load:
        self._begin = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=300)

    def since(self, moment: float, until: float = float("inf")) -> list[Result]:
        """The results of the requests that began in this time."""
        with self._lock:
            return [result for result in self.results if moment <= result.start < until]

    def _work(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                number = next(self._numbers)
            due = self._begin + number / self._rate
            if number >= self._most or self._stop.wait(max(0.0, due - time.monotonic())):
                return
            start = time.monotonic()
            error = self._ask()
            with self._lock:
                self.results.append(Result(start, time.monotonic() - start, error))

    def _ask(self) -> str:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._client.invoke_endpoint(
                EndpointName=self._endpoint, ContentType="application/json", Body=self._body
            )
            json.loads(answer["Body"].read())
        except (BotoCoreError, ClientError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return ""


def _client(url: str, secret: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "sagemaker-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="111122223333",
        aws_secret_access_key=secret,
        # A retry would hide what this is here to see.
        config=Config(max_pool_connections=WORKERS, retries={"max_attempts": 0}, read_timeout=60),
    )
