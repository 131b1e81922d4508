"""How long an answer is: unless the request says so, and at most. Runs in the containers of Train and the endpoint."""

from __future__ import annotations

DEFAULT_NEW_TOKENS = 128
MOST_NEW_TOKENS = 1024
"""Unless $FMOPS_MAX_NEW_TOKENS says otherwise. The context that a server is started with has room for so many."""
