"""Says why rows can't be used, and what to know about those that can. Runs in the Prepare step's container (CPU)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from splits import SPLITS, TRACKED_GROUPS, Shares
from writing import Tally

if TYPE_CHECKING:
    from prepare import Options

UNEVEN, UNEVEN_ROWS = 0.1, 100
"""A note is worth a difference of more than this between a split's share and the one asked for, of so many rows."""


def judge(tally: Tally, options: Options) -> str:
    """Returns why the rows can't be used, or an empty text."""
    if tally.texts.rows and tally.conversations.rows:
        rarer, other = sorted((tally.texts, tally.conversations), key=lambda kind: kind.rows)
        return (
            f"{rarer.rows} {rarer.name} among {other.rows} {other.name}, the first in {rarer.first}: a data set holds "
            "one kind of rows, since one measure has to be right for all; take the others out into one of their own."
        )
    if tally.texts.rows and options.answers_for:
        return (
            f"the rows are texts ({tally.texts.first}), of which validation_loss alone is measured, but "
            f"{options.answers_for} asks for more: give rows with answers, or ask for validation_loss alone "
            "(gate: {rules: [{metric: validation_loss, against: base, better_by: 0.05}]})."
        )
    rows_in, rows_out, rejected = (tally.total(key) for key in ("rows_in", "rows_out", "rejected"))
    reasons = ", ".join(f"{reason} ({count})" for reason, count in tally.reasons.most_common(5))
    where = f" The first: {tally.first}." if tally.first else ""
    where += " All of them, with their reasons: report/rejected.jsonl." if options.output and rejected else ""
    share = rejected / rows_in if rows_in else 0.0
    if rows_in and share > options.max_rejected_share:
        return (
            f"{rejected} of {rows_in} rows rejected ({share:.1%}), more than the allowed "
            f"{options.max_rejected_share:.1%}: {reasons}.{where} Repair the rows or raise --max-rejected-share."
        )
    if rows_out < options.minimum_rows:
        lost = (
            f" ({rejected} rejected: {reasons}; {tally.total('duplicates')} duplicates{_taken(tally)})"
            if rows_in > rows_out
            else ""
        )
        return f"{rows_out} good rows{lost}, fewer than the {options.minimum_rows} of --minimum-rows.{where}"
    if options.columns.group and not tally.grouped:
        return f"no row has a value in the column {options.columns.group!r} (named by --group-column)."
    return ""


def _taken(tally: Tally) -> str:
    return "".join(f"; {count} taken out: {reason}" for reason, count in tally.taken.most_common(5))


def uneven(tally: Tally, shares: Shares) -> list[str]:
    """A note on a split that is far from its share, since groups are few or large."""
    rows, whole = tally.total("rows_out"), sum(vars(shares).values())
    far = [
        f"{name} holds {count / rows:.0%} of the rows, not {getattr(shares, name) / whole:.0%}"
        for name, count in tally.splits.items()
        if rows >= UNEVEN_ROWS and not empty(tally) and abs(count / rows - getattr(shares, name) / whole) > UNEVEN
    ]
    why = (
        f"rows that begin alike, or share a group, stay together, and these {rows} rows form {tally.group_count} groups"
    )
    return [f"{', '.join(far)}: {why}"] if far else []


def of_no_use(tally: Tally) -> str:
    """Why a group column that nobody named does harm; empty if it does none."""
    if tally.leaks:
        return f"{tally.leaks} rows have a prompt that also stands under another of its values, in another split"
    if tally.total("rows_out") and len(tally.groups) < len(tally.splits):
        return f"{len(tally.groups)} of its values can't fill {len(tally.splits)} splits"
    return ""


def empty(tally: Tally) -> list[str]:
    """The splits without a row."""
    return [name for name, count in tally.splits.items() if not count]


def can_fill(tally: Tally) -> bool:
    return len(SPLITS) <= len(tally.groups) <= TRACKED_GROUPS


def empty_problem(tally: Tally, options: Options) -> str:
    """Why the rows can't be split in three; of a look at the first rows alone nothing is said."""
    left = " and ".join(empty(tally))
    if not left or not tally.whole:
        return ""
    said = f"the {tally.total('rows_out')} good rows leave {left} empty, which training and evaluation need: "
    if len(tally.groups) > TRACKED_GROUPS:
        return f"{said}the shares are {vars(options.shares)}; raise the smallest (data.shares)."
    count = f"only {tally.group_count} group{'s' * (tally.group_count != 1)}"
    if options.columns.group:
        return (
            f"{said}they hold {count} of the column {options.columns.group!r}, and a group never stands in two splits; "
            f"add rows of others, to have {len(SPLITS)} at least, or name another column under data.columns.group "
            "(null: only rows that begin with the same prompt stay together)."
        )
    return (
        f"{said}they form {count}, since rows that begin with the same prompt (a conversation's system message and "
        f"first user message) never stand in two splits; add rows that begin otherwise, to have {len(SPLITS)} at least."
    )
