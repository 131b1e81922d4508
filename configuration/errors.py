"""What reaches a user: one message, one exit code (1 the work failed, 2 bad usage or configuration)."""

from __future__ import annotations


class UserError(Exception):
    """A message for the user: what went wrong, where, what is allowed and what to do; never shown with a traceback."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UsageProblem(UserError):
    """The command or its configuration is wrong; nothing was started."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=2)
