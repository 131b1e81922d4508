"""Rows for Bedrock's fine-tuning jobs: how fast they are converted and checked, and in how much memory.

    python benchmarks/bedrock_data.py --rows 200000 --rounds 3

For each family a file in its form, of a prompt and an answer of 220 characters each, is checked by bedrock_check.py;
the same rows go through prepare.py without and with --bedrock-family, of which the difference is what converting,
checking and writing cost. Both scripts end with exit code 1 here, after all rows: no job takes so many. Times are of
whole processes; memory is the peak RSS of each, with a quarter of the rows beside it, so as to see whether it is flat.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FAMILIES = ("nova", "claude", "llama", "titan", "cohere")
WORDS = "turn the light in the kitchen to forty percent and tell me when it is done "


def row(family: str, number: int) -> dict[str, Any]:
    """One row in the family's form."""
    prompt, answer = f"{number} {WORDS * 3}"[:220], f"{WORDS[8:] * 3} {number}"[:220]
    if family == "nova":
        turns = [("user", prompt), ("assistant", answer)]
        messages: list[Any] = [{"role": role, "content": [{"text": text}]} for role, text in turns]
        return {"schemaVersion": "bedrock-conversation-2024", "messages": messages}
    if family == "claude":
        return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}
    return {"prompt": prompt, "completion": answer}


def written(path: Path, family: str, rows: int) -> Path:
    with path.open("w", encoding="utf-8") as out:
        for number in range(rows):
            out.write(json.dumps(row(family, number)) + "\n")
    return path


def timed(script: str, *arguments: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak MB of a script, which may end with 0 or 1."""
    command = [sys.executable, str(ROOT / "preparation" / script), *arguments]
    start = time.perf_counter()
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise SystemExit(f"{script} {arguments}: exit code {process.returncode}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast rows for Bedrock are converted and checked.")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    given = parser.parse_args()
    print(
        "| family | what | wall s | CPU-s | thousand rows a minute, by the clock | peak MB, of a quarter of the rows |"
    )
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for family in given.families:
            path = written(place / "rows.jsonl", family, given.rows)
            quarter = written(place / "quarter.jsonl", family, given.rows // 4)
            out = ["--output", str(place / "out"), "--processes", "1"]
            convert = ["--bedrock-family", family, *out]
            ways: dict[str, tuple[str, list[str]]] = {
                "check a file": ("bedrock_check.py", ["--for", family]),
                "Prepare alone": ("prepare.py", out),
                "Prepare, with the files for Bedrock": ("prepare.py", convert),
            }
            for name, (script, more) in ways.items():
                runs = [timed(script, *_input(script, path), *more) for _ in range(given.rounds)]
                wall, cpu, memory = (statistics.median(values) for values in zip(*runs, strict=True))
                _, _, small = timed(script, *_input(script, quarter), *more)
                minute = given.rows / wall * 60 / 1000
                print(f"| {family} | {name} | {wall:.1f} | {cpu:.1f} | {minute:,.0f} | {memory:.0f}, {small:.0f} |")


def _input(script: str, path: Path) -> list[str]:
    return [str(path)] if script == "bedrock_check.py" else ["--input", str(path)]


if __name__ == "__main__":
    main()
