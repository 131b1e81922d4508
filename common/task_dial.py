"""The one dial that Prepare and Train both read: the task.

Runs in the containers of Prepare and Train, and on the author's machine.
"""

from __future__ import annotations

from common.dials import Dial

TASK = Dial(
    "training.task", "sft", "learn what rows say (chats, texts), or prefer chosen answers to rejected ones",
    choices=("sft", "dpo"), argument="task",
)  # fmt: skip
