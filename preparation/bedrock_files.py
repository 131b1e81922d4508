"""Writes the splits once more, in the form that a Bedrock fine-tuning job takes, and holds them against its limits.

Runs in the Prepare step's processing container (CPU), where `--bedrock-family` names a family or a base model's id.

    bedrock/train.jsonl  bedrock/validation.jsonl     the rows of these splits that can be said so, in the same order
    report/bedrock_check.json                         rows_in = rows_out + refused + cut, in all and for each file

What is written has been checked as it stands, by the code that checks a user's file (bedrock_check.py). The validation
file is cut to what the family takes; the split that training on SageMaker and the evaluation read stays whole.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bedrock_check import MOST_SHOWN, Checker, Part, cost
from bedrock_forms import family_row
from writing import FILES

from common.bedrock_families import Family
from common.failure import JobError
from common.rows import RowError

FOLDER = "bedrock"
REPORT = "report/bedrock_check.json"
PARTS: tuple[Part, Part] = ("train", "validation")
COUNTS = ("rows_in", "rows_out", "refused", "cut")


@dataclass
class Written:
    """What became of a split's rows."""

    checker: Checker
    rows_in: int = 0
    rows_out: int = 0
    refused: int = 0
    cut: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: list[dict[str, Any]] = field(default_factory=list)


def write_family(directory: Path, family: Family, max_rejected_share: float) -> None:
    """Writes both files and the report; raises JobError where the job would refuse them, and leaves only the report."""
    (directory / FOLDER).mkdir(parents=True, exist_ok=True)
    limits = family.limits
    train = _write(directory, family, "train", sys.maxsize)  # which rows to learn from is nothing to decide here
    room, (fewest, most) = limits.total_rows[1] - train.rows_out, limits.validation_rows
    validation = _write(directory, family, "validation", min(room, most) if room >= fewest else most)
    written = {"train": train, "validation": validation}
    problem = _problem(written, family, max_rejected_share)
    notes = [family.retired_because] if family.retired else []
    if validation.cut:
        notes.append(
            f"{FOLDER}/validation.jsonl is cut to {validation.rows_out:,} of {validation.rows_in:,} rows, as many as a "
            f"job on {family.label} takes; the validation split itself stays whole"
        )
    notes.append(f"tokens: {cost(train.checker.tokens, family, None)}")
    _report(directory, written, family, notes, problem)
    refused = _reasons(written)
    print(
        f"[prepare] bedrock: {family.label}: train {train.rows_out}, validation {validation.rows_out} rows as "
        f"{family.form}; refused {refused.total()}",
        flush=True,
    )
    for reason, count in refused.most_common(5):
        print(f"[prepare] bedrock: refused: {reason} ({count})", flush=True)
    for note in notes:
        print(f"[prepare] bedrock: {note}", flush=True)
    for part in PARTS:
        path = directory / FOLDER / f"{part}.jsonl"
        if problem:
            path.with_suffix(".partial").unlink()
            path.unlink(missing_ok=True)
        else:
            os.replace(path.with_suffix(".partial"), path)
    if problem:
        raise JobError(problem)


def _write(directory: Path, family: Family, part: Part, most: int) -> Written:
    """Writes up to `most` rows of a split; those that follow are cut."""
    found = Written(Checker(family, part))
    path = (directory / FOLDER / f"{part}.jsonl").with_suffix(".partial")
    with open(directory / FILES[part], "rb") as lines, open(path, "wb", buffering=1 << 18) as out:
        for number, line in enumerate(lines, 1):
            found.rows_in += 1
            if found.rows_out >= most:
                found.cut += 1
                continue
            try:
                row = json.dumps(family_row(json.loads(line), family), ensure_ascii=False).encode() + b"\n"
                error = found.checker.add(row, number)
            except RowError as said:
                error = said
            if error is None:
                out.write(row)
                found.rows_out += 1
                continue
            found.refused += 1
            found.reasons[error.reason] += 1
            if len(found.first) < MOST_SHOWN:
                found.first.append({"file": FILES[part], "line": number, "reason": str(error)})
        found.checker.size = out.tell()  # without the rows that are refused
    return found


def _problem(written: dict[str, Written], family: Family, max_rejected_share: float) -> str:
    """Why a job on the family would refuse the files, or too few rows are left; empty if neither."""
    rows_in, refused = (sum(getattr(each, name) for each in written.values()) for name in ("rows_in", "refused"))
    first = next((each.first[0] for each in written.values() if each.first), None)
    where = f" The first: {first['file']}, line {first['line']}: {first['reason']}." if first else ""
    if rows_in and refused / rows_in > max_rejected_share:
        reasons = _reasons(written)
        told = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(5))
        return (
            f"{refused} of {rows_in} rows can't be given to a job on {family.label} ({refused / rows_in:.1%}), more "
            f"than the allowed {max_rejected_share:.1%}: {told}.{where} All counts: {REPORT}. Repair the rows, choose "
            "another base, or raise --max-rejected-share."
        )
    problems = [problem for each in written.values() for problem in each.checker.problems(alone=False)]
    total = sum(each.rows_out for each in written.values())
    if total < family.limits.total_rows[0]:
        problems.append(
            f"{total} rows for training and validation, fewer than the {family.limits.total_rows[0]} that a job on "
            f"{family.label} needs"
        )
    if total > family.limits.total_rows[1]:
        problems.append(
            f"{total:,} rows for training and validation, more than the {family.limits.total_rows[1]:,} that a job on "
            f"{family.label} takes"
        )
    if not problems:
        return ""
    return (
        f"Bedrock would refuse the job: {'; '.join(dict.fromkeys(problems))}.{where} Give more or fewer rows, or other "
        "shares (data.shares)."
    )


def _reasons(written: dict[str, Written]) -> Counter[str]:
    return sum((each.reasons for each in written.values()), Counter[str]())


def _report(directory: Path, written: dict[str, Written], family: Family, notes: list[str], problem: str) -> None:
    files = {
        name: {
            **{count: getattr(each, count) for count in COUNTS},
            "bytes": each.checker.size,
            "tokens": each.checker.tokens,
        }
        for name, each in written.items()
    }
    report = {
        "version": 1,
        "family": family.name,
        "models": family.label,
        "form": family.form,
        "retired": family.retired,
        **{count: sum(getattr(each, count) for each in written.values()) for count in COUNTS},
        "files": files,
        "reasons": dict(_reasons(written).most_common()),
        "first": [entry for each in written.values() for entry in each.first][:MOST_SHOWN],
        "notes": notes,
        **({"problem": problem} if problem else {}),
    }
    path = directory / REPORT
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
