"""Runs in the Evaluate step's processing container: the one error that users see."""


class ScoringError(Exception):
    """The evaluation can't be done; the message says what, where and what to do."""
