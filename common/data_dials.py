"""The dials of pipeline.yaml's `data:`, which Prepare reads.

Runs in the processing container of Prepare, and on the author's machine.
"""

from __future__ import annotations

from common.dials import INSTANCE_TYPE, INSTANCE_WORDS, S3_URI, Dial
from common.seed_dial import SEED

MAX_PROCESSING_SECONDS = 5 * 24 * 3600  # the longest that a processing job may run
MASKED = ("email", "phone", "iban", "card", "ip", "key")
"""What can be masked (preparation/masking.py)."""
_COLUMNS = {
    "messages": "the list of {role, content}: the chat form",
    "prompt": "the prompt or instruction",
    "input": "more input that goes under the prompt",
    "completion": "the answer to learn",
    "chosen": "task dpo: the better answer",
    "rejected": "task dpo: the worse answer",
    "text": "a text to learn as it stands (continued pre-training)",
    "system": "the system message",
    "group": "rows that share its value never cross splits (usual names: group, group_id, template)",
    "slice": "evaluation also reports each of its values separately",
}


def _column(name: str, effect: str) -> Dial:
    return Dial(
        f"data.columns.{name}", None, effect, kind=str, optional=True, longest=128, pattern=r"[^\x00]+",
        words="a column's name", argument=f"{name}-column",
    )  # fmt: skip


def _share(name: str, share: float, effect: str) -> Dial:
    return Dial(f"data.shares.{name}", share, effect, low=0.001, high=0.998, argument=f"{name}-share")


def _limit(name: str, effect: str) -> Dial:
    return Dial(
        f"data.filters.{name}", 0, effect, unit="characters", low=0, high=10_000_000, argument=name.replace("_", "-")
    )


def _no_similarity(value: float) -> str | None:
    """Below a half, rows are alike by chance."""
    return f"{value} is refused; allowed: 0 (off), or from 0.5 to 1" if 0 < value < 0.5 else None


DATA = (
    Dial(
        "data.input_uri", None, "S3 prefix with CSV, JSONL or Parquet; null = raw/ in the training data bucket",
        kind=str, optional=True, pattern=S3_URI, longest=256,
        words="s3://bucket/prefix of letters, digits and _.:/=+@-", parameter="InputDataUri",
    ),
    *(_column(name, effect) for name, effect in _COLUMNS.items()),
    _share("train", 0.8, "share of the rows to train on; the three sum to 1, rows with the same prompt stay together"),
    _share("validation", 0.1, "share for early stopping and the choice of the best checkpoint"),
    _share("test", 0.1, "share that only the evaluation sees"),
    Dial(
        "data.filters.near_duplicates", 0.0, "a row this similar to an earlier one goes (0.8: edited copies); 0 = off",
        low=0, high=1, also=_no_similarity, argument="near-duplicates",
    ),
    Dial(
        "data.filters.mask", [], "personal data replaced in all messages, as <EMAIL>; what has no such form stays",
        kind=list, low=0, high=len(MASKED), pattern="|".join(MASKED), words=f"one of {', '.join(MASKED)}",
        argument="mask",
    ),
    _limit("min_prompt_characters", "rows with a shorter prompt go"),
    _limit("max_prompt_characters", "rows with a longer prompt go; 0 = any"),
    _limit("min_answer_characters", "rows with a shorter answer, or text, go"),
    _limit("max_answer_characters", "rows with a longer answer, or text, go; 0 = any"),
    Dial(
        "data.filters.languages", [], "rows in others go (py3langid, which AWS's images lack); [] = any", kind=list,
        low=0, high=50, pattern="[a-z]{2,3}", words="an ISO 639-1 code such as en", argument="languages",
    ),
    Dial(
        "data.max_rejected_share", 0.05, "a run with a larger share of bad rows fails", unit="0-1", low=0, high=1,
        parameter="MaxRejectedShare", argument="max-rejected-share",
    ),
    Dial(
        "data.minimum_rows", 32, "fewer good rows fail the run", unit="rows", low=1, high=1_000_000,
        parameter="MinimumRows", argument="minimum-rows",
    ),
    SEED,
    Dial(
        "data.instance_type", "ml.m5.xlarge", "CPU is enough: Prepare streams", pattern=INSTANCE_TYPE,
        words=INSTANCE_WORDS, parameter="ProcessingInstanceType", shape="ProcessingInstanceType",
    ),
    Dial("data.volume_gb", 50, "at least twice the raw data", unit="GB", low=1, high=16_384),
    Dial(
        "data.max_runtime_seconds", 10_800, "a longer Prepare is stopped", unit="seconds",
        low=60, high=MAX_PROCESSING_SECONDS,
    ),
)  # fmt: skip
