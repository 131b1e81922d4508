"""Checks, de-duplicates and splits raw rows for fine-tuning. Runs in the Prepare step's processing container (CPU).

    python prepare.py --input data.csv --output prepared
    python prepare.py --check --input data.csv                       only says whether the data can be used
    python prepare.py --look --input data.csv --output found         the same, with all that was found (fmops data look)

Reads CSV (comma, semicolon, tab), JSON (lines, arrays, wrapped or one object below the other) and Parquet; rows as
instruction/input/output, prompt/completion, conversations (conversations.py) or texts, with --task dpo as preferences
(preferences.py). Writes under --output:

    train/train.jsonl  validation/validation.jsonl  test/test.jsonl  one canonical row per line (see rows.py)
    report/data_report.json                  counts: rows_in = rows_out + rejected + duplicates + what filters take out
    report/rejected.jsonl                    {"file", "line", "reason", "row"}, also of what filters take out
    report/model_check.json                  with --base-model: what was found about it
    bedrock/  report/bedrock_check.json      with --bedrock-family: the same rows for a Bedrock job (bedrock_files.py)

Rows that begin with the same prompt, or have the same value in --group-column, never stand in two splits (splits.py),
and none of these stays empty. Memory stays flat but for 16 bytes per row. With --base-model (its small files, and the
headers of its weights) it is checked whether that model can be trained on these rows, before a GPU is paid
(common/model_check.py). Exit codes: 0 done, 1 the data or the base model can't be used (the report and the rejected
rows are written), 2 bad usage. Near-duplicates go, and personal data are masked, where that is asked for (filters.py).
Not covered: personal data without a form of their own, such as names.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass, fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from bedrock_files import write_family
from filters import Filters
from layouts import NAMED, Columns
from measurable import refuse
from pieces import whole
from readers import read_sources
from reading import Source, find_sources
from rows import Converter, Settings
from splits import SPLITS, Shares, Splitter, fill_empty_splits
from usable import can_fill, empty, empty_problem, judge, of_no_use, uneven
from workers import collect_seldom, convert, processes_for
from writing import Tally, Writer, write_report

from common.base_model import model_directory
from common.bedrock_families import FAMILIES, Family, find_family
from common.data_dials import DATA
from common.dials import add_arguments
from common.failure import JobError, report_failure
from common.findings import as_json, refusal
from common.method_check import Wanted
from common.rows import SHAPES, read_rows
from common.task_dial import TASK
from common.training_dials import OF_THE_MODEL, TRAINING

CHECK_ROWS = 200_000
FILTERS = tuple(field.name for field in fields(Filters))
MODEL_DIALS = tuple(dial for dial in TRAINING if dial.argument in OF_THE_MODEL)
MODEL_CHECK = "report/model_check.json"
NO_FAMILY = "none"
MODEL_ROWS = 20_000
"""Rows of each split that the base model's chat template is held against."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    input: Path
    output: Path | None
    columns: Columns
    shares: Shares
    max_rejected_share: float
    minimum_rows: int
    seed: int
    task: str
    answers_for: str
    needs: str
    filters: Filters
    check: bool
    look: bool
    check_rows: int
    processes: int
    message_file: Path | None
    base_model: Path | None = None
    trained: argparse.Namespace | None = None
    """The dials of training that the base model is checked with."""
    bedrock: Family | None = None


def parse(arguments: list[str] | None = None) -> Options:
    """Reads the command line; ends the program with exit code 2 where it is wrong."""
    parser = argparse.ArgumentParser(description="Checks, de-duplicates and splits raw rows for fine-tuning.")
    parser.add_argument("--input", type=Path, required=True, help="a file, or a directory of files")
    parser.add_argument("--output", type=Path, help="directory to write to (not needed with --check)")
    add_arguments(parser, [dial for dial in (*DATA, TASK) if dial.argument])
    parser.add_argument("--base-model", type=Path, help="the base model's directory, or its outline: checked, too")
    add_arguments(parser, MODEL_DIALS)
    parser.add_argument(
        "--answers-for", default="", metavar="WHAT", help="what needs rows with answers: texts are refused, naming it"
    )
    parser.add_argument(
        "--needs", default="", metavar="LIST", help="what the gate's metrics need of the test rows: json,labels=50"
    )
    parser.add_argument(
        "--bedrock-family", default=NO_FAMILY, metavar="FAMILY",
        help=f"also write what a Bedrock job wants: {', '.join(FAMILIES)}, or a base model's id (default: none); then "
        "--base-model is not looked at",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="only say whether the data can be used; writes nothing")
    parser.add_argument(
        "--look", action="store_true", help="as --check, but write what was found, even if the data can't be used"
    )
    parser.add_argument(
        "--check-rows", type=int, default=CHECK_ROWS, help=f"rows for --check and --look (default {CHECK_ROWS})"
    )
    parser.add_argument(
        "--processes", type=int, default=0, choices=range(65), metavar="N",
        help="processes that convert rows beside this one; 1: none; 0: one for small data, else one for each core",
    )  # fmt: skip
    parser.add_argument("--message-file", type=Path, help="file to write the reason of a failure to (ExitMessage)")
    given = parser.parse_args(arguments)
    shares = Shares(given.train_share, given.validation_share, given.test_share)
    if not given.check and given.output is None:
        parser.error("--output is missing: the directory to write to")
    bedrock = find_family(given.bedrock_family)
    if given.bedrock_family.strip() not in ("", NO_FAMILY) and bedrock is None:
        parser.error(
            f"--bedrock-family {given.bedrock_family!r}: no such family or model; allowed: {', '.join(FAMILIES)}, or a "
            "base model's id such as amazon.nova-micro-v1:0:128k"
        )
    named: dict[str, Any] = {name: (getattr(given, f"{name}_column") or "").strip() for name in NAMED}
    columns = Columns(**named)
    asked: dict[str, Any] = {name: getattr(given, name) for name in FILTERS}
    asked |= {name: tuple(value) for name, value in asked.items() if isinstance(value, list)}
    filters = Filters(**asked)
    output = None if given.check else given.output
    return Options(given.input, output, columns, shares, given.max_rejected_share, given.minimum_rows, given.seed,
                   given.task, given.answers_for, given.needs, filters, given.check, given.look, given.check_rows,
                   given.processes, given.message_file, given.base_model, given, bedrock)  # fmt: skip


def run(options: Options) -> Tally:
    """Does the whole job; raises JobError if the data can't be used (the report is written before)."""
    options.filters.check()
    left_out: dict[str, str] = {}
    sources = find_sources(options.input, options.columns, options.task, left_out)
    group = "" if options.columns.group else automatic_group(sources, options)
    tally, problem = _filled(sources, options, bool(group))
    if not (options.columns.group or group) and tally.usual_group:
        group = tally.usual_group  # it begins later than the rows that were looked at first
        tally, problem = _filled(sources, options, True)
    notes = []
    if group and (why := of_no_use(tally)):
        notes.append(
            f"the column {group!r} does not keep rows together: {why}; name it under data.columns.group to insist"
        )
        tally, problem = _filled(sources, options, False)
    tally.left_out, tally.notes = left_out, [*notes, *uneven(tally, options.shares)]
    if options.output is not None:
        problem = problem or refuse(options.output, options.needs)
        settings = {
            "seed": options.seed,
            "task": options.task,
            "group_column": options.columns.group or (group if not notes else ""),
            **vars(options.shares),
            "filters": vars(options.filters),
        }
        write_report(options.output, tally.report(settings) | ({"problem": problem} if problem else {}))
    if problem:
        raise JobError(problem)
    if options.bedrock is not None and options.output is not None and not options.look:
        write_family(options.output, options.bedrock, options.max_rejected_share)
    elif options.base_model is not None and options.output is not None:
        check_base_model(options.base_model, options.output, Wanted.of(options.trained))
    return tally


def check_base_model(place: Path, output: Path, wanted: Wanted) -> None:
    """Holds the base model against the run and the prepared rows; writes model_check.json. Raises JobError."""
    from common.model_check import check_model

    directory = model_directory(place)
    rows = chain.from_iterable(
        islice(read_rows(file, tuple(SHAPES)), MODEL_ROWS)
        for file in (output / split / f"{split}.jsonl" for split in SPLITS)
    )
    found = check_model(directory, wanted, rows, name="the base model")
    for finding in found:
        print(f"[prepare] base model: {finding}", flush=True)
    path = output / MODEL_CHECK
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(as_json(found), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
    if reason := refusal(found):
        raise JobError(reason)


def automatic_group(sources: list[Source], options: Options) -> str:
    """The column with a usual name for groups among the first rows of each file; empty without one."""
    columns = replace(options.columns, find_group=True)
    converter = Converter(Settings(columns, options.seed, options.task))
    for source in sources:
        try:
            with contextlib.closing(read_sources([source], columns)) as pieces:
                batch = next(whole(map(converter.convert, pieces)))
        except JobError:
            continue  # the pass over all rows will say so
        for seen in batch.seen.values():
            if seen.layout.group is not None:
                return seen.layout.group
    return ""


def _filled(sources: list[Source], options: Options, find_group: bool) -> tuple[Tally, str]:
    """A pass over all rows, and another where a split stayed empty that can be filled."""
    options = replace(options, columns=replace(options.columns, find_group=find_group))
    tally, problem = _pass(sources, options, {})
    if not problem and empty(tally) and can_fill(tally):
        overrides = fill_empty_splits(tally.groups, options.shares)
        print("[prepare] a split would stay empty: moving the smallest groups into it", flush=True)
        tally, problem = _pass(sources, options, overrides)
    return tally, problem


def _pass(sources: list[Source], options: Options, overrides: dict[bytes, int]) -> tuple[Tally, str]:
    """The counts of a pass over all rows, and why they can't be used, or an empty text.

    Without overrides an empty split that can be filled is no problem yet.
    """
    tally = Tally(sources)
    splitter = Splitter(options.shares, options.seed, overrides)
    by_group = bool(options.columns.group or options.columns.find_group)
    writer = Writer(options.output, tally, splitter, by_group, options.filters)
    settings = Settings(options.columns, options.seed, options.task, options.filters)
    processes = options.processes or processes_for(sources)
    reported = time.monotonic()
    try:
        with contextlib.closing(convert(read_sources(sources, options.columns), settings, processes)) as batches:
            for batch in whole(batches):
                writer.add(batch.source, batch)
                if (options.check or options.look) and tally.total("rows_in") >= options.check_rows:
                    tally.whole = False
                    break
                if time.monotonic() - reported > 5:
                    reported = time.monotonic()
                    print(f"[prepare] file={batch.source.name} rows={tally.total('rows_in')}", flush=True)
        problem = judge(tally, options)
        if not problem and (overrides or not can_fill(tally)):
            problem = empty_problem(tally, options)
    except JobError as error:
        problem = str(error)
    except BaseException:
        writer.close(complete=False)
        raise
    writer.close(complete=not problem or options.look)
    return tally, problem


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        tally = run(options)
    except JobError as error:
        return _fail(str(error), options)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written to the splits", options)
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or options.output}", options)
    except MemoryError:
        return _fail("out of memory; give the job a larger instance", options)
    splits = ", ".join(f"{name} {count}" for name, count in tally.splits.items())
    looked = "" if tally.whole else f" (only the first {tally.total('rows_in')} rows were looked at)"
    print(
        f"[prepare] rows={tally.total('rows_in')} good={tally.total('rows_out')} rejected={tally.total('rejected')} "
        f"duplicates={tally.total('duplicates')}{_taken(tally, options.filters)} ({splits}){looked}",
        flush=True,
    )
    for reason, count in tally.reasons.most_common(5):
        print(f"[prepare] rejected: {reason} ({count})", flush=True)
    for reason, count in tally.taken.most_common():
        print(f"[prepare] taken out: {reason} ({count})", flush=True)
    if tally.masked:
        print(f"[prepare] masked: {', '.join(f'{kind} {n}' for kind, n in tally.masked.most_common())}", flush=True)
    if tally.first:
        print(f"[prepare] the first rejected row: {tally.first}", flush=True)
    for name, why in tally.left_out.items():
        print(f"[prepare] left out: {name}: {why}", flush=True)
    if ignored := tally.ignored():
        columns = ", ".join(f"{name} ({count} rows)" for name, count in list(ignored.items())[:12])
        more = f", and {len(ignored) - 12} more" if len(ignored) > 12 else ""
        print(f"[prepare] columns that nothing is read from: {columns}{more}", flush=True)
    for note in tally.notes:
        print(f"[prepare] {note}", flush=True)
    return 0


def _taken(tally: Tally, filters: Filters) -> str:
    """What the filters that are on took out."""
    near = f" near_duplicates={tally.total('near_duplicates')}" if filters.near_duplicates else ""
    return near + (f" filtered={tally.total('filtered')}" if filters.bounds_rows else "")


def _fail(problem: str, options: Options) -> int:
    report_failure("prepare.py", problem, [options.message_file] if options.message_file else [])
    return 1


if __name__ == "__main__":
    collect_seldom()
    sys.exit(main())
