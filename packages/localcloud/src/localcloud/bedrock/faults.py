"""Faults on request, for tests of what uses Bedrock: throttling, server errors, failing jobs, unreliable events.

LOCALCLOUD_BEDROCK_FAULTS, or `faults(cloud).set(...)` in process, as JSON:

    throttle, error     shares of requests (0 to 1) that end with ThrottlingException, InternalServerException
    seed                the same seed and order of requests give the same answers; default 0
    operations          the only operations that these two apply to; default all
    job_failure         every customization job fails with this message instead of training
    events              "lost", "doubled", or "early": the last event of a job comes before its status is to be seen
    early_seconds       how long before; default 5, of the cloud's clock
"""

from __future__ import annotations

import functools
import json
import os
import random
import threading
from typing import Any

from localcloud.bedrock.problems import problem
from localcloud.context import Cloud, Context, Handler, Request, Response

VARIABLE = "LOCALCLOUD_BEDROCK_FAULTS"
_ALLOWED = {"throttle", "error", "seed", "operations", "job_failure", "events", "early_seconds"}


class Faults:
    """The faults of one cloud; none by default."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._lock = threading.Lock()
        self.set(**settings)

    def set(self, **settings: Any) -> None:
        """Replace all of them, and begin the seed anew; ValueError for what is not known."""
        if set(settings) - _ALLOWED:
            raise ValueError(f"{VARIABLE}: {sorted(set(settings) - _ALLOWED)} is not one of {sorted(_ALLOWED)}")
        if settings.get("events") not in (None, "lost", "doubled", "early"):
            raise ValueError(f"{VARIABLE}: events is {settings['events']!r}, not lost, doubled or early")
        shares = [settings.get(name, 0.0) for name in ("throttle", "error")]
        if not all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares) or sum(shares) > 1:
            raise ValueError(f"{VARIABLE}: throttle and error are shares, 1 together at most")
        with self._lock:
            self._settings = dict(settings)
            self._random = random.Random(settings.get("seed", 0))  # noqa: S311

    def close(self) -> None:
        """Nothing runs."""

    def check(self, operation: str) -> None:
        """ThrottlingException or InternalServerException, as often as was asked for."""
        with self._lock:
            throttle, error = self._settings.get("throttle", 0.0), self._settings.get("error", 0.0)
            only = self._settings.get("operations")
            if not throttle + error or (only is not None and operation not in only):
                return
            drawn = self._random.random()
        if drawn < throttle:
            raise problem("ThrottlingException", "Too many requests, please wait before trying again.")
        if drawn < throttle + error:
            raise problem("InternalServerException", "An internal server error occurred. Retry your request.")

    @property
    def job_failure(self) -> str:
        return str(self._settings.get("job_failure") or "")

    @property
    def events(self) -> str:
        return str(self._settings.get("events") or "")

    @property
    def early_seconds(self) -> float:
        return float(self._settings.get("early_seconds", 5))


def faults(cloud: Cloud) -> Faults:
    """The faults of a cloud."""
    return cloud.service(Faults, _from_environment)


def _from_environment() -> Faults:
    try:
        given = json.loads(os.environ.get(VARIABLE) or "{}")
    except ValueError as error:
        raise ValueError(f"{VARIABLE} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{VARIABLE} must be an object")
    return Faults(given)


def faulty(operation: str, handler: Handler) -> Handler:
    """A handler that fails as often as was asked for."""

    @functools.wraps(handler)
    def answer(ctx: Context, request: Request) -> Response:
        faults(ctx.cloud).check(operation)
        return handler(ctx, request)

    return answer
