"""Preparation/prepare.py by the form of its input, in one process and in more, and against a script with pandas.

    python benchmarks/prepare.py --rows 1000000 --rounds 3
    python benchmarks/prepare.py --input rows.jsonl --processes 2          one run over a file of yours

Rows are a prompt and a completion of about 220 characters each, a hundredth of them duplicates: as JSON lines, as
messages under a system message, as CSV (quotes and line breaks in a fifth of the rows) and Parquet. `half rejected` is
JSON lines of which every second has no answer, and `stray quotes` CSV in which every fiftieth row opens a quote that
doesn't close: what is said of single rows takes its time. The script reads the same CSV with pandas, formats, drops
duplicates, splits and writes with json, then reads its output again and validates it, which prepare.py does before it
writes. Times are of whole processes with all that they started; memory is the peak of the summed RSS of the process and
its children, sampled every 20 ms, so pages that processes share count more than once. Rounds go through all forms in
turn; the table has medians.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAIVE = """
import json, sys
import pandas
frame = pandas.read_csv(sys.argv[1])
rows, seen = [], set()
for item in frame.to_dict("records"):
    row = {"prompt": item["prompt"], "completion": item["completion"]}
    if (row["prompt"], row["completion"]) not in seen:
        seen.add((row["prompt"], row["completion"]))
        rows.append(row)
cuts = [0, int(len(rows) * 0.8), int(len(rows) * 0.9), len(rows)]
for name, start, end in zip(("train", "validation", "test"), cuts, cuts[1:]):
    with open(f"{sys.argv[2]}/{name}.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\\n" for row in rows[start:end])
for name in ("train", "validation", "test"):
    with open(f"{sys.argv[2]}/{name}.jsonl") as file:
        for line in file:
            row = json.loads(line)
            for name in ("prompt", "completion"):
                assert isinstance(row[name], str) and row[name]
"""
FORMS = ("rows.jsonl", "messages.jsonl", "rows.csv", "rows.parquet", "half rejected.jsonl", "stray quotes.csv")


def texts_of(rows: int, seed: int = 1) -> Iterator[tuple[str, str]]:
    """Prompts and completions."""
    dice = random.Random(seed)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 9))) for _ in range(5000)]
    texts = [" ".join(dice.choices(words, k=31)) for _ in range(20_000)]
    for number in range(rows):
        unique = number - 1 if number % 100 == 99 else number
        prompt, completion = texts[unique * 7919 % len(texts)], texts[unique * 104_729 % len(texts)]
        yield f"{prompt} {unique}", f"{unique} {completion}{', quoted' if unique % 5 == 0 else ''}"


def write_form(path: Path, rows: int) -> None:
    """Writes the rows in the form that the file is named after."""
    made = texts_of(rows)
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        with pyarrow.parquet.ParquetWriter(path, pyarrow.schema({"prompt": "string", "completion": "string"})) as out:
            while part := list(itertools.islice(made, 50_000)):
                prompts, completions = zip(*part, strict=True)
                out.write_table(pyarrow.table({"prompt": prompts, "completion": completions}))
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".csv":
            file.write("prompt,completion\n")
        for number, (prompt, completion) in enumerate(made):
            if path.suffix == ".csv":
                stray = '"' if path.stem == "stray quotes" and number % 50 == 0 else ""
                tail = '\n""on a second line"""' if number % 5 == 0 else ""
                file.write(f"{stray}{prompt},{chr(34) if tail else ''}{completion.replace(',', '')}{tail}\n")
            elif path.stem == "messages":
                turns = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": prompt}]
                file.write(json.dumps({"messages": [*turns, {"role": "assistant", "content": completion}]}) + "\n")
            else:
                answer = "" if path.stem == "half rejected" and number % 2 else completion
                file.write(json.dumps({"prompt": prompt, "completion": answer}) + "\n")


def measure(command: list[str]) -> dict[str, float]:
    """Runs a command to its end; returns seconds of wall time, of CPU, and the peak of its memory in MB."""
    import psutil

    before, started, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    tree = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak = max(peak, sum(member.memory_info().rss for member in (tree, *tree.children(recursive=True))))
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.02)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"benchmark: {command[1]} ended with exit code {process.returncode}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.monotonic() - started, "cpu": cpu, "megabytes": peak / 1e6}


def prepare(data: Path, output: Path, processes: int) -> dict[str, float]:
    command = [sys.executable, str(ROOT / "preparation/prepare.py"), "--input", str(data), "--output", str(output)]
    return measure([*command, "--processes", str(processes), "--max-rejected-share", "1"])


def line(name: str, rows: int, runs: list[dict[str, float]]) -> str:
    """A line of the table: medians of rounds."""
    wall, cpu, peak = (statistics.median(run[key] for run in runs) for key in ("seconds", "cpu", "megabytes"))
    cells = [f"{wall:.1f}", f"{rows / wall / 1000:.0f}", f"{cpu:.1f}", f"{rows / cpu / 1000:.0f}", f"{peak:.0f}"]
    return " | ".join(["| " + name, *cells]) + " |"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--input", type=Path, help="measure this file, once")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fmops-benchmark-") as folder:
        output, files = Path(folder) / "out", [options.input] if options.input else []
        for name in options.forms if not files else []:
            files.append(Path(folder) / name)
            write_form(files[-1], options.rows)
        runs: dict[str, list[dict[str, float]]] = collections.defaultdict(list)
        counts: dict[str, int] = {}
        for _ in range(1 if options.input else options.rounds):
            for data in files:
                for processes in options.processes:
                    name = f"{data.name}, {processes}"
                    runs[name].append(prepare(data, output, processes))
                    counts[name] = json.loads((output / "report/data_report.json").read_text())["rows_in"]
            if Path(folder) / "rows.csv" in files:
                output.mkdir(exist_ok=True)
                naive = [sys.executable, "-c", NAIVE, str(Path(folder) / "rows.csv"), str(output)]
                runs["rows.csv, pandas + json"].append(measure(naive))
                counts["rows.csv, pandas + json"] = options.rows
        print(", ".join(f"{data.name} {data.stat().st_size / 1e6:.0f} MB" for data in files))
    print("| form, processes | wall s | krows/s | CPU-s | krows/CPU-s | peak MB |\n|---|---|---|---|---|---|")
    for name, measured in runs.items():
        print(line(name, counts[name], measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
