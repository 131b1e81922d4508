"""Drops duplicates, splits, counts and writes. Runs in the Prepare step's processing container.

Files appear under their names when they are complete (`.partial` before), the report and the rejected rows also when
the run fails.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from filters import Filters
from layouts import OTHER_TASK
from masking import Masker
from near_duplicates import NearDuplicates
from reading import Source
from rows import Batch, Part
from splits import SPLITS, TRACKED_GROUPS, DigestSet

from common.failure import JobError

COUNTED = ("rows_out", "rejected", "duplicates", "near_duplicates", "filtered")
"""What becomes of a row: one of these."""
Rejection = tuple[int, str, str, Any]
"""(line, reason, detail, the row as it was read)."""
LONGEST = 1 << 16
"""Lengths from here on share one counter in the report's percentiles."""
FILES = {split: f"{split}/{split}.jsonl" for split in SPLITS}
REJECTED = "report/rejected.jsonl"
REPORT = "report/data_report.json"


class Lengths:
    """Minimum, mean, percentiles and maximum of a stream of lengths in constant memory."""

    def __init__(self) -> None:
        import numpy as np

        self.counts: Any = np.zeros(LONGEST + 1, dtype=np.int64)
        self.total = self.rows = self.longest = 0
        self.shortest: int | None = None

    def add(self, values: Any) -> None:
        import numpy as np

        if not len(values):
            return
        counts = np.bincount(np.minimum(values, LONGEST))
        self.counts[: len(counts)] += counts
        self.total += int(values.sum())
        self.rows += len(values)
        self.longest = max(self.longest, int(values.max()))
        self.shortest = min(int(values.min()), self.shortest if self.shortest is not None else int(values.min()))

    def summary(self) -> dict[str, float]:
        import numpy as np

        if not self.rows:
            return {"min": 0, "mean": 0.0, "p50": 0, "p95": 0, "max": 0}
        reached = np.cumsum(self.counts)
        at = {name: int(np.searchsorted(reached, share * self.rows)) for name, share in (("p50", 0.5), ("p95", 0.95))}
        return {"min": self.shortest or 0, "mean": round(self.total / self.rows, 1), **at, "max": self.longest}


@dataclass
class FileCounts:
    """What became of the rows of one file."""

    file: str
    format: str
    rows_in: int = 0
    rows_out: int = 0
    rejected: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    filtered: int = 0
    packed: str = ""
    encoding: str = "utf-8"
    delimiter: str = ""


@dataclass
class Kind:
    """How many good rows are of one kind, and where the first one stands."""

    name: str
    rows: int = 0
    first: str = ""


class Tally:
    """Counts of one run. `rows_in` is the sum of all that COUNTED names, for the whole and for each file."""

    def __init__(self, sources: list[Source]) -> None:
        self.files = {source.name: _file(source) for source in sources}
        self.splits = dict.fromkeys(SPLITS, 0)
        self.reasons: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        """Why rows were taken out by filters and as near-duplicates."""
        self.masked: dict[str, int] = {}
        """How many places were masked, by their kind."""
        self.prompt, self.completion = Lengths(), Lengths()
        self.groups: Counter[bytes] = Counter()
        self.grouped = 0
        self.leaks = 0
        """Rows left out because their prompt stands in another split, with another group."""
        self.first = ""
        """The first rejected row: where it stands, and what is wrong with it."""
        self.left_out: dict[str, str] = {}
        self.ignored: dict[str, int] = {}
        self.columns: list[dict[str, Any]] = []
        self.group_count = 0
        """How many groups the good rows form: values of the group column, else prompts."""
        self.usual_group = ""
        """A column with a usual name for groups, if a row had one."""
        self.whole = True
        """Whether all rows were looked at."""
        self.notes: list[str] = []
        self.texts, self.conversations = Kind("texts"), Kind("conversations")

    def add_kinds(self, name: str, batch: Batch) -> None:
        """Counts texts and what is none among a batch's good rows."""
        good = len(batch) - len(batch.rejected) - len(batch.filtered)
        for kind, count in ((self.texts, len(batch.texts)), (self.conversations, good - len(batch.texts))):
            if count and not kind.rows:
                texts = set(batch.texts)
                numbers = [number for part in batch.parts for number in part.numbers]
                # Several rows of one line may be of both kinds: JSON needs no line breaks.
                own = [number for number in numbers if (number in texts) == (kind is self.texts)]
                kind.first = f"{name}, line {min(own or numbers)}"
            kind.rows += count

    def total(self, key: str) -> int:
        return sum(getattr(file, key) for file in self.files.values())

    def report(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {
            "version": 1,
            **{key: self.total(key) for key in ("rows_in", *COUNTED)},
            "whole": self.whole,
            "groups": self.group_count,
            "splits": self.splits,
            "reasons": dict(self.reasons.most_common()),
            "first_rejected": self.first,
            "taken": dict(self.taken.most_common()),
            "masked": self.masked,
            "columns": self.columns,
            "ignored_columns": self.ignored,
            "left_out": self.left_out,
            "notes": self.notes,
            "files": [asdict(file) for file in self.files.values()],
            "characters": {"prompt": self.prompt.summary(), "completion": self.completion.summary()},
            "settings": settings,
        }


def row_text(row: dict[str, Any]) -> str:
    """All texts of a canonical row, one below the other."""
    if "text" in row:
        return str(row["text"])
    messages = [*row["messages"], *(row[name] for name in ("chosen", "rejected") if name in row)]
    return "\n".join(message["content"] or "" for message in messages)


def _file(source: Source) -> FileCounts:
    return FileCounts(
        source.name,
        source.format,
        packed=source.packed,
        encoding=source.encoding,
        delimiter=source.delimiter if source.format == "csv" else "",
    )


class Writer:
    """Takes batches in input order. Without a directory it only counts."""

    def __init__(self, directory: Path | None, tally: Tally, by_group: bool, filters: Filters | None = None) -> None:
        self.directory, self.tally = directory, tally
        filters = filters or Filters()
        self.near = NearDuplicates(filters.near_duplicates) if filters.near_duplicates else None
        self.names = list(tally.files)
        # What is masked in good rows must not stand in the report of the others.
        self.masker = Masker(filters.mask) if filters.mask else None
        self.seen = [DigestSet() for _ in SPLITS]
        self.groups = DigestSet()
        # Only a group column can put one prompt into two splits.
        self.prompts = [DigestSet() for _ in SPLITS] if by_group else []
        self.earlier = [DigestSet() for _ in SPLITS]
        self.outputs: dict[str, IO[bytes]] = {}
        if directory is not None:
            (directory / REPORT).unlink(missing_ok=True)
            for name in (*FILES.values(), REJECTED):
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                self.outputs[name] = open(directory / f"{name}.partial", "wb", buffering=1 << 18)  # noqa: SIM115

    def add(self, source: Source, batch: Batch) -> None:
        """Writes one batch's new rows to their splits and its rejected rows to theirs.

        Raises JobError for a row of another task: nothing that follows would be of use.
        """
        self.tally.add_kinds(source.name, batch)
        file, rejected, taken = self.tally.files[source.name], list(batch.rejected), list(batch.filtered)
        file.filtered += len(taken)
        for split, part in enumerate(batch.parts):
            if part.numbers:
                self._add_part(file, split, part, rejected, taken)
        self.tally.grouped += batch.grouped
        file.rows_in += len(batch)
        file.rejected += len(rejected)
        self._reject(source, rejected)
        for _, reason, _, _ in taken:
            self.tally.taken[reason] += 1
        self._write_rejected(source, taken)
        other = next((entry for entry in rejected if entry[1] == OTHER_TASK), None)
        if other is not None:
            raise JobError(f"{source.name}, line {other[0]}: {other[2]}")

    def _add_part(
        self, file: FileCounts, split: int, part: Part, rejected: list[Rejection], taken: list[Rejection]
    ) -> None:
        import numpy as np

        kept = self.seen[split].add(np.frombuffer(part.rows, dtype="<u8"))
        file.duplicates += len(kept) - int(kept.sum())
        if self.prompts:
            self._drop_leaks(split, part, kept, rejected)
        if self.near is not None:
            before = int(kept.sum())
            self._drop_near(self.near, file, part, kept, taken)
            file.near_duplicates += before - int(kept.sum())
        count = int(kept.sum())
        file.rows_out += count
        self.tally.splits[SPLITS[split]] += count
        self.tally.prompt.add(np.array(part.prompt_lengths, dtype=np.int64)[kept])
        self.tally.completion.add(np.array(part.completion_lengths, dtype=np.int64)[kept])
        self.tally.group_count += int(self.groups.add(np.frombuffer(part.groups, dtype="<u8")[kept]).sum())
        if len(self.tally.groups) <= TRACKED_GROUPS:
            groups = bytes(part.groups)
            self.tally.groups.update(groups[8 * row : 8 * row + 8] for row in np.flatnonzero(kept).tolist())
        if self.outputs:
            output = self.outputs[FILES[SPLITS[split]]]
            output.write(b"".join([line + b"\n" for line, new in zip(part.lines, kept.tolist(), strict=True) if new]))

    def _drop_near(self, near: NearDuplicates, file: FileCounts, part: Part, kept: Any, taken: list[Rejection]) -> None:
        """Takes out rows that are nearly an earlier one, whichever split that is in."""
        import numpy as np

        rows = np.flatnonzero(kept).tolist()
        texts = [row_text(json.loads(part.lines[row])) for row in rows]
        found = near.add(texts, self.names.index(file.file), [part.numbers[row] for row in rows])
        for row, like in zip(rows, found, strict=True):
            if like is not None:
                kept[row] = False
                detail = f"similarity {like[2]:.2f} to {self.names[like[0]]}, line {like[1]}"
                taken.append((part.numbers[row], "near-duplicate", detail, json.loads(part.lines[row])))

    def _drop_leaks(self, split: int, part: Part, kept: Any, rejected: list[Rejection]) -> None:
        """Takes out rows whose prompt already stands in another split because it came with another group.

        So it does where one is the prompt of an earlier answer of the other, which goes on from it.
        """
        import numpy as np

        prompts, earlier = np.frombuffer(part.prompts, dtype="<u8"), np.frombuffer(part.earlier, dtype="<u8")
        rows = np.array(part.earlier_rows, dtype=np.int64)
        for index, other in enumerate(self.prompts):
            if index == split:
                continue
            there = other.contains(prompts) | self.earlier[index].contains(prompts)
            there[rows[other.contains(earlier)]] = True
            leaks = np.flatnonzero(kept & there).tolist()
            kept[leaks] = False
            self.tally.leaks += len(leaks)
            detail = "the prompt came before (or in a conversation), with another group, and went to another split"
            rejected += [
                (part.numbers[row], "prompt in two groups", detail, json.loads(part.lines[row])) for row in leaks
            ]
        self.prompts[split].add(prompts[kept])
        self.earlier[split].add(earlier[kept[rows]])

    def _reject(self, source: Source, rejected: list[Rejection]) -> None:
        for number, reason, detail, _ in rejected:
            self.tally.reasons[reason] += 1
            if not self.tally.first:
                told = f"{source.name}, line {number}: {reason}{f' ({detail})' if detail else ''}"
                self.tally.first = self.masker.mask(told) if self.masker else told
        self._write_rejected(source, rejected)

    def _write_rejected(self, source: Source, rejected: list[Rejection]) -> None:
        if not self.outputs:
            return
        for number, reason, detail, row in rejected:
            text = f"{reason}: {detail}" if detail else reason
            if self.masker:
                text, row = self.masker.mask(text), _masked(row, self.masker)
            record = {"file": source.name, "line": number, "reason": text, "row": row}
            line = json.dumps(record, ensure_ascii=False, default=_readable)
            self.outputs[REJECTED].write(line.encode("utf-8", "backslashreplace") + b"\n")

    def close(self, complete: bool) -> None:
        """Gives the files their names; an incomplete run leaves no split files, only the rejected rows."""
        for name, file in self.outputs.items():
            file.close()
            partial = Path(file.name)
            if complete or name == REJECTED:
                os.replace(partial, partial.with_suffix(""))
            else:
                partial.unlink()
                partial.with_suffix("").unlink(missing_ok=True)
        self.outputs = {}


def _masked(row: Any, masker: Masker) -> Any:
    try:
        return masker.mask_all(_readable(row) if isinstance(row, bytes) else row)
    except RecursionError:
        return "not shown: nested too deeply to be masked"


def _readable(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def write_report(directory: Path, report: dict[str, Any]) -> None:
    """Writes report/data_report.json in one move."""
    path = directory / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(
        json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace"
    )
    os.replace(partial, path)
