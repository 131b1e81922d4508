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
from pieces import Batch, Rejection, Seen, shown
from reading import Source
from splits import SPLITS, TRACKED_GROUPS, DigestSet, Splitter

from common.failure import JobError

COUNTED = ("rows_out", "rejected", "duplicates", "near_duplicates", "filtered")
"""What becomes of a row: one of these."""
MOST_LAYOUTS = 1000
"""Sets of keys that are remembered; rows with others are read as well, but not counted by column."""
MOST_SHOWN = 20
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
        self.masked: Counter[str] = Counter()
        """How many places were masked, by their kind."""
        self.prompt, self.completion = Lengths(), Lengths()
        self.groups: Counter[bytes] = Counter()
        self.grouped = 0
        self.leaks = 0
        """Rows left out because their prompt stands in another split, with another group."""
        self.first = ""
        """The first rejected row: where it stands, and what is wrong with it."""
        self.left_out: dict[str, str] = {}
        self.seen: dict[tuple[str, ...], Seen] = {}
        """Rows by their keys."""
        self.unread: Counter[str] = Counter()
        """Rows by the keys of their messages that nothing is read from."""
        self.group_count = 0
        """How many groups the good rows form: values of the group column, else prompts."""
        self.usual_group = ""
        """A column with a usual name for groups, if a row had one."""
        self.whole = True
        """Whether all rows were looked at."""
        self.notes: list[str] = []
        self.texts, self.conversations = Kind("texts"), Kind("conversations")

    def add_counts(self, name: str, batch: Batch) -> None:
        """Counts what a batch of that file says about its rows, whatever becomes of them."""
        self.grouped += batch.grouped
        self.masked.update(batch.masked)
        self.usual_group = self.usual_group or batch.usual_group
        for names, seen in batch.seen.items():
            if names in self.seen or len(self.seen) < MOST_LAYOUTS:
                self.seen.setdefault(names, Seen(seen.layout)).rows += seen.rows
        for key, rows in batch.unread.items():
            if key in self.unread or len(self.unread) < MOST_LAYOUTS:
                self.unread[key] += rows
        for kind, count in (
            (self.texts, len(batch.texts)),
            (self.conversations, len(batch.numbers) - len(batch.texts)),
        ):
            if count and not kind.rows:
                texts = set(batch.texts)
                # Several rows of one line may be of both kinds: JSON needs no line breaks.
                own = [number for number in batch.numbers if (number in texts) == (kind is self.texts)]
                kind.first = f"{name}, line {min(own or batch.numbers)}"
            kind.rows += count

    def ignored(self) -> dict[str, int]:
        """How many rows had a column that nothing was read from, by its name."""
        found: Counter[str] = Counter()
        for names, seen in self.seen.items():
            for name in seen.layout.ignored(names):
                found[name] += seen.rows
        found.update({f"{key} of messages": rows for key, rows in self.unread.items()})
        return dict(found.most_common())

    def columns(self) -> list[dict[str, Any]]:
        """What was read as what, the most frequent first: {"rows", "read": {part: column}, "ignored": [column]}."""
        found: Counter[tuple[tuple[tuple[str, str], ...], tuple[str, ...]]] = Counter()
        for names, seen in self.seen.items():
            found[tuple(seen.layout.read().items()), tuple(sorted(seen.layout.ignored(names)))] += seen.rows
        return [
            {"rows": rows, "read": dict(read), "ignored": list(ignored)}
            for (read, ignored), rows in found.most_common(MOST_SHOWN)
        ]

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
            "masked": dict(self.masked.most_common()),
            "columns": self.columns(),
            "ignored_columns": self.ignored(),
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

    def __init__(
        self, directory: Path | None, tally: Tally, splitter: Splitter, by_group: bool, filters: Filters | None = None
    ) -> None:
        self.directory, self.tally, self.splitter = directory, tally, splitter
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
        import numpy as np

        self.tally.add_counts(source.name, batch)
        file, rejected, taken = self.tally.files[source.name], list(batch.rejected), list(batch.filtered)
        file.filtered += len(taken)
        splits = self.splitter.splits_of(batch.groups)
        for split in range(len(SPLITS)):
            rows = np.flatnonzero(splits == split)
            if len(rows):
                self._add_split(file, split, rows, batch, rejected, taken)
        file.rows_in += len(batch)
        file.rejected += len(rejected)
        self._reject(source, rejected)
        for _, reason, _, _ in taken:
            self.tally.taken[reason] += 1
        self._write_rejected(source, taken)
        other = next((entry for entry in rejected if entry[1] == OTHER_TASK), None)
        if other is not None:
            raise JobError(f"{source.name}, line {other[0]}: {other[2]}")

    def _add_split(
        self, file: FileCounts, split: int, rows: Any, batch: Batch, rejected: list[Rejection], taken: list[Rejection]
    ) -> None:
        """Adds the rows of a batch, given by their numbers in it, that belong to a split."""
        import numpy as np

        new = self.seen[split].add(np.frombuffer(batch.rows, dtype="<u8")[rows])
        file.duplicates += len(new) - int(new.sum())
        rows = rows[new]
        if self.prompts:
            rows = self._drop_leaks(split, rows, batch, rejected)
        if self.near is not None:
            before = len(rows)
            rows = self._drop_near(self.near, file, rows, batch, taken)
            file.near_duplicates += before - len(rows)
        file.rows_out += len(rows)
        self.tally.splits[SPLITS[split]] += len(rows)
        self.tally.prompt.add(np.array(batch.prompt_lengths, dtype=np.int64)[rows])
        self.tally.completion.add(np.array(batch.completion_lengths, dtype=np.int64)[rows])
        groups = np.frombuffer(batch.groups, dtype="<u8")[rows]
        self.tally.group_count += int(self.groups.add(groups).sum())
        if len(self.tally.groups) <= TRACKED_GROUPS:
            digests = groups.tobytes()
            self.tally.groups.update(digests[place : place + 8] for place in range(0, len(digests), 8))
        if self.outputs:
            lines = batch.lines
            self.outputs[FILES[SPLITS[split]]].write(b"".join([lines[row] + b"\n" for row in rows.tolist()]))

    def _drop_near(
        self, near: NearDuplicates, file: FileCounts, rows: Any, batch: Batch, taken: list[Rejection]
    ) -> Any:
        """The rows but for those that are nearly an earlier one, whichever split that is in."""
        texts = [row_text(json.loads(batch.lines[row])) for row in rows]
        found = near.add(texts, self.names.index(file.file), [batch.numbers[row] for row in rows])
        for row, like in zip(rows, found, strict=True):
            if like is not None:
                detail = f"similarity {like[2]:.2f} to {self.names[like[0]]}, line {like[1]}"
                taken.append(self._left_out(batch, row, "near-duplicate", detail))
        return rows[[like is None for like in found]]

    def _drop_leaks(self, split: int, rows: Any, batch: Batch, rejected: list[Rejection]) -> Any:
        """The rows but for those whose prompt already stands in another split because it came with another group.

        So it does where one is the prompt of an earlier answer of the other, which goes on from it.
        """
        import numpy as np

        prompts, earlier = np.frombuffer(batch.prompts, dtype="<u8"), np.frombuffer(batch.earlier, dtype="<u8")
        of_rows = np.array(batch.earlier_rows, dtype=np.int64)
        kept: Any = np.zeros(len(batch.numbers), dtype=bool)
        kept[rows] = True
        for index, other in enumerate(self.prompts):
            if index == split:
                continue
            there = other.contains(prompts) | self.earlier[index].contains(prompts)
            there[of_rows[other.contains(earlier)]] = True
            found = np.flatnonzero(kept & there)
            kept[found] = False
            detail = "the prompt came before (or in a conversation), with another group, and went to another split"
            rejected += [self._left_out(batch, row, "prompt in two groups", detail) for row in found.tolist()]
            self.tally.leaks += len(found)
        self.prompts[split].add(prompts[kept])
        self.earlier[split].add(earlier[kept[of_rows]])
        return np.flatnonzero(kept)

    def _left_out(self, batch: Batch, row: int, reason: str, detail: str) -> Rejection:
        return batch.numbers[row], reason, detail, shown(json.loads(batch.lines[row]), self.masker)

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
            told = self.masker.mask(text) if self.masker else text
            record = json.dumps({"file": source.name, "line": number, "reason": told}, ensure_ascii=False)
            line = record.removesuffix("}").encode("utf-8", "backslashreplace") + b', "row": ' + row + b"}\n"
            self.outputs[REJECTED].write(line)

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


def write_report(directory: Path, report: dict[str, Any]) -> None:
    """Writes report/data_report.json in one move."""
    path = directory / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(
        json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace"
    )
    os.replace(partial, path)
