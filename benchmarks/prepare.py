"""Preparation/prepare.py against the script that one would write with pandas and jsonlines.

    python benchmarks/prepare.py --rows 1000000

Both read the same CSV (rows of about 500 bytes, a third with an empty input cell, some duplicates), format, drop
duplicates, split and write train, validation and test; the script then reads its output again and validates it,
prepare validates before it writes. The script runs without orjson, which `pip install pandas jsonlines` does not bring.
Times are of whole processes; memory is the peak of the summed RSS of the process and its children, sampled every 20 ms,
so pages that processes share count more than once.
"""

from __future__ import annotations

import argparse
import csv
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NAIVE = """
import sys
sys.modules["orjson"] = None
import jsonlines, pandas
frame = pandas.read_csv(sys.argv[1])
rows, seen = [], set()
for item in frame.to_dict("records"):
    row = {"prompt": f"{item['instruction']}\\n\\n{item['input']}", "completion": item["output"]}
    if (row["prompt"], row["completion"]) not in seen:
        seen.add((row["prompt"], row["completion"]))
        rows.append(row)
cuts = [0, int(len(rows) * 0.8), int(len(rows) * 0.9), len(rows)]
for name, start, end in zip(("train", "validation", "test"), cuts, cuts[1:]):
    with jsonlines.open(f"{sys.argv[2]}/{name}.jsonl", "w") as writer:
        writer.write_all(rows[start:end])
for name in ("train", "validation", "test"):
    with jsonlines.open(f"{sys.argv[2]}/{name}.jsonl") as reader:
        for row in reader:
            for name in ("prompt", "completion"):
                assert isinstance(row[name], str) and row[name]
"""


def write_rows(path: Path, rows: int, seed: int = 1) -> None:
    """Writes a CSV of instruction, input and output with quoted line breaks and quotes in it."""
    dice = random.Random(seed)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 9))) for _ in range(5000)]
    texts = [" ".join(dice.choices(words, k=25)) for _ in range(20_000)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["instruction", "input", "output"])
        for number in range(rows):
            tail = ', "quoted"\nand on a second line' if number % 5 == 0 else ""
            extra = dice.choice(texts) + tail if number % 3 else ""
            unique = number - 1 if number % 100 == 99 and number % 3 else number
            dice_row = random.Random(unique)
            writer.writerow(
                [dice_row.choice(texts), extra if unique == number else "", f"{unique} {dice_row.choice(texts)}"]
            )


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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fmops-benchmark-") as folder:
        data = Path(folder) / "rows.csv"
        write_rows(data, options.rows)
        size = data.stat().st_size
        print(f"{options.rows} rows, {size / 1e6:.0f} MB, {size / options.rows:.0f} bytes a row")
        prepare = [
            sys.executable,
            str(ROOT / "preparation/prepare.py"),
            "--input",
            str(data),
            "--output",
            folder + "/ours",
        ]
        Path(folder, "naive").mkdir()
        runs: dict[str, dict[str, Any]] = {
            "prepare.py": measure(prepare),
            "pandas + jsonlines": measure([sys.executable, "-c", NAIVE, str(data), folder + "/naive"]),
        }
    base = runs["pandas + jsonlines"]
    print("| script | wall s | krows/s | CPU-s | peak MB | x rows/s | x memory |\n|---|---|---|---|---|---|---|")
    for name, run in runs.items():
        wall, times = run["seconds"], base["seconds"] / run["seconds"]
        cells = [f"{wall:.1f}", f"{options.rows / wall / 1000:.0f}", f"{run['cpu']:.1f}", f"{run['megabytes']:.0f}"]
        cells += [f"{times:.1f}", f"{run['megabytes'] / base['megabytes']:.2f}"]
        print(" | ".join(["| " + name, *cells]) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
