"""Checks a file of rows against what a fine-tuning job of Amazon Bedrock takes, line by line, before it costs anything.

Runs in the Prepare step's processing container (CPU), and on any machine: `fmops data check FILE --for nova` calls it.

    python bedrock_check.py train.jsonl --for nova --epochs 2       a family, or a base model's id
    python bedrock_check.py validation.jsonl --for claude --validation

Says how many rows are good and why others aren't (the first ones with file, line and reason), what a job would process
in tokens, and why it would refuse the file. Memory stays flat. Exit codes: 0 good, 1 the job would refuse it, 2 bad
usage. Not covered: rows of both files together, which Prepare holds against the family's sum.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from bedrock_forms import form_of
from bedrock_lines import LINE_BYTES, parse_line
from bedrock_rows import check_row

from common.bedrock_families import DOCUMENTED, FAMILIES, SAFE, Family, find_family
from common.failure import JobError, report_failure
from common.rows import RowError

Part = Literal["train", "validation"]
MOST_SHOWN = 10
FEW_ROWS = 32
"""Fewer are said to be few, also where a job takes them."""
NAME = re.compile(r"[A-Za-z0-9_./-]+")
OTHERS = {".csv": "CSV", ".tsv": "CSV", ".parquet": "Parquet", ".pq": "Parquet", ".gz": "packed", ".zst": "packed"}


@dataclass
class Checker:
    """Takes the lines of one file, in order."""

    family: Family
    part: Part = "train"
    rows: int = 0
    good: int = 0
    tokens: int = 0
    """Estimated, of the good rows, prompts and answers."""
    reasons: Counter[str] = field(default_factory=Counter)
    first: list[tuple[int, str]] = field(default_factory=list)
    """The first bad rows: line and reason."""
    media: Counter[str] = field(default_factory=Counter)
    size: int = 0
    """In bytes."""

    def add(self, line: bytes, number: int) -> RowError | None:
        """Counts a line; returns what is wrong with its row."""
        self.rows += 1
        self.size += len(line)
        try:
            found = check_row(parse_line(line), self.family)
            self._add_media(found.images, found.videos)
        except RowError as error:
            self.reasons[error.reason] += 1
            if len(self.first) < MOST_SHOWN:
                self.first.append((number, str(error)))
            return error
        self.good += 1
        self.tokens += found.prompt + found.answers
        return None

    def _add_media(self, images: int, videos: int) -> None:
        if (images and self.media["videos"]) or (videos and self.media["images"]):
            raise RowError("mixed media", "rows before have the other kind; a file has images or videos, not both")
        self.media.update(images=images, videos=videos)

    def problems(self, alone: bool = True) -> list[str]:
        """Why the job would refuse the file, apart from single rows: its bytes, and how many good rows it has.

        `alone`: there is no validation file whose rows would count, too.
        """
        limits = self.family.limits
        train = self.part == "train"
        lowest, highest = limits.train_rows if train else limits.validation_rows
        lowest = max(lowest, limits.total_rows[0]) if train and alone else lowest
        most = limits.train_bytes if train else limits.validation_bytes
        found = []
        if self.good < lowest:
            what = "train on" if train else "validate with"
            found.append(
                f"{self.good:,} good rows, fewer than the {lowest:,} that a job on {self.family.label} needs to {what}"
            )
        if self.good > highest:
            found.append(
                f"{self.good:,} good rows, more than the {highest:,} that a job on {self.family.label} takes in its "
                f"{self.part} file"
            )
        if self.size > most:
            found.append(f"{self.size:,} bytes, more than the {most:,} that the {self.part} file may have")
        return found


def read_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(number, line) of every line; of one that is too long to be a row only its beginning."""
    number = 0
    while line := file.readline(LINE_BYTES):
        number += 1
        yield number, line
        while line and not line.endswith(b"\n"):  # the rest of it is no other row
            line = file.readline(LINE_BYTES)


def check_file(path: Path, family: Family, part: Part = "train", named: bool = False) -> Checker:
    """Checks every line. With `named`, the family stands for all its models: the first row's form decides which.

    Raises JobError where there is no file to read.
    """
    if path.is_dir():
        raise JobError(f"{path}: a directory; a job takes one .jsonl file")
    if not path.exists():
        raise JobError(f"{path}: there is no such file")
    if what := OTHERS.get(path.suffix.lower()):
        raise JobError(
            f"{path}: {what}; a job on {family.label} takes JSON lines, {family.shape}. Prepare reads this file and "
            f"converts it: fmops start --data {path}"
        )
    checker: Checker | None = None
    with open(path, "rb") as file:
        for number, line in read_lines(file):
            if checker is None:
                checker = Checker(_variant(family, line) if named else family, part)
            checker.add(line, number)
        size = os.fstat(file.fileno()).st_size
    checker = checker or Checker(family, part)
    checker.size = size
    return checker


def _variant(family: Family, line: bytes) -> Family:
    """The model of a family whose form a row is in; the family itself where none is, or its own is."""
    try:
        form = form_of(parse_line(line))
    except RowError:
        return family
    return next((each for each in (family, *family.variants) if each.form == form), family)


def name_problem(path: Path, family: Family) -> str:
    """Why a job takes no file of this name; empty if it does."""
    if path.suffix != ".jsonl":
        return f"{path.name}: a job takes a file that ends in .jsonl; Prepare reads others, and writes one"
    if family.name == "nova" and not NAME.fullmatch(path.name):
        return f"{path.name}: a job on {family.label} takes file names of letters, digits and _-. alone"
    return ""


def told(path: Path, checker: Checker, epochs: int | None) -> Iterator[str]:
    """What was found, line by line."""
    family, bad = checker.family, checker.rows - checker.good
    yield f"{path.name}: {checker.rows:,} rows for {family.label}, {checker.good:,} good, {bad:,} bad"
    yield f"  the form that it takes: {family.shape}"
    if checker.reasons:
        yield f"  bad: {', '.join(f'{reason} ({count:,})' for reason, count in checker.reasons.most_common())}"
    for number, reason in checker.first:
        yield f"  {path.name}, line {number}: {reason}"
    if bad > len(checker.first):
        yield f"  and {bad - len(checker.first):,} more"
    yield f"  tokens: {cost(checker.tokens, family, epochs)}"
    if checker.media.total():
        yield "  images and videos are not among them; Nova Micro and the text models of Llama take none"
    if family.retired:
        yield f"  note: {family.retired_because}"
    if 0 < checker.good < FEW_ROWS:
        yield f"  note: guides ask for {FEW_ROWS} rows at least; fewer teach little"


def cost(tokens: int, family: Family, epochs: int | None) -> str:
    """What a job is paid for: tokens of the training file in each pass."""
    default = next(each.default for each in family.hyperparameters if each.name == "epochCount") or 1
    passes = epochs or int(default)
    how = (
        f"{DOCUMENTED:g} characters for each, as Bedrock's pages say"
        if family.limits.characters_per_token == DOCUMENTED
        else f"{SAFE:g} characters for each, on the safe side"
    )
    source = "" if epochs else ", Bedrock's default"
    return (
        f"about {tokens:,} in the good rows, {tokens * passes:,} in {passes} epoch{'s' * (passes != 1)}{source} "
        f"(estimated: {how})"
    )


def refusals(path: Path, checker: Checker) -> list[str]:
    """Why the job would refuse the file; an empty list is good."""
    bad = checker.rows - checker.good
    found = [name] if (name := name_problem(path, checker.family)) else []
    if not checker.rows:
        return [*found, "the file is empty"]
    return [*found, *([f"{bad:,} bad rows"] if bad else []), *checker.problems()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Checks a file of rows against a Bedrock fine-tuning job's limits.")
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--for", dest="family", required=True, metavar="FAMILY", help=f"{', '.join(FAMILIES)}, or a base model's id"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="passes that are paid for (default: Bedrock's)")
    parser.add_argument("--validation", action="store_true", help="the file is the job's validation file")
    given = parser.parse_args(arguments)
    family = find_family(given.family)
    if family is None:
        parser.error(
            f"--for {given.family!r}: no such family or model; allowed: {', '.join(FAMILIES)}, or a model's id"
        )
    if given.epochs is not None and not 1 <= given.epochs <= 100:
        parser.error(f"--epochs {given.epochs}: refused; allowed: a whole number from 1 to 100")
    part: Part = "validation" if given.validation else "train"
    try:
        checker = check_file(given.file, family, part, named=given.family.strip().lower() in FAMILIES)
    except JobError as error:
        report_failure("bedrock_check.py", str(error), [])
        return 1
    except OSError as error:
        report_failure("bedrock_check.py", f"{given.file}: {error.strerror or error}", [])
        return 1
    found = refusals(given.file, checker)
    for line in (*told(given.file, checker, given.epochs), *(f"  refused: {reason}" for reason in found)):
        print(line.encode("utf-8", "backslashreplace").decode())  # file names needn't be UTF-8
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
