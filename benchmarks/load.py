"""What callers notice of two deployments, at a steady rate, against localcloud.

    python benchmarks/load.py --rate 50 --seconds 120

A tiny model is trained and deployed; then callers ask at a fixed rate, whether earlier requests were answered or not
(an open loop), while a good version replaces it through a canary and a broken one is rolled back by its alarm. Printed
are requests, failures and latencies of each phase. The broken version's errors are the canary's share, and no others.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from tests.e2e.conftest import House
    from tests.support.load import Result

TRAINING = ("MaxSteps=6", "BatchSize=8", "EvaluationRows=8", "FewShot=2", "MaxNewTokens=8", "MaxSeqLength=512")


def prepare(directory: Path) -> House:
    """A localcloud with two registered versions, the first one in service."""
    import json

    from examples.home_assistant import build_rows
    from tests.e2e.conftest import start_house
    from tests.support.canary import CLOCK_SPEED, ENDPOINT

    rows = build_rows()[:400]
    house = start_house(
        directory, [text for row in rows for text in (row["prompt"], row["completion"])], ENDPOINT, CLOCK_SPEED
    )
    data = directory / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parameters = [word for pair in TRAINING for word in ("-p", pair)]
    for seed in (17, 23):
        house.run("start", "--data", str(data), "--wait", "-p", f"Seed={seed}", *parameters)
    house.run("approve", "1", "--wait")
    return house


def show(name: str, seconds: float, results: list[Result]) -> None:
    """One line about the requests that began in a phase."""
    times = sorted(result.seconds for result in results)
    failed = sum(bool(result.error) for result in results)
    cuts = statistics.quantiles(times, n=100)
    print(
        f"{name:<16} {seconds:6.1f} s  {len(results):6} requests  {failed:4} failed ({failed / len(results):.1%})  "
        f"median {cuts[49] * 1000:.0f} ms, 95% {cuts[94] * 1000:.0f} ms, 99% {cuts[98] * 1000:.0f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50, help="requests per second")
    parser.add_argument("--seconds", type=float, default=120, help="the shortest time under load")
    options = parser.parse_args()
    from tests.support.canary import BODY, BROKEN, spoil
    from tests.support.load import Load

    with tempfile.TemporaryDirectory() as scratch:
        house = prepare(Path(scratch))
        try:
            broken = spoil(house, 2, BROKEN)
            most = int(options.rate * (options.seconds + 300))
            with Load(house.url, house.secret, "fmops-endpoint", rate=options.rate, most=most, body=BODY) as load:
                moments = [time.monotonic()]
                for version, end in ((2, 0), (broken, 1)):
                    house.run("approve", str(version), "--wait", expect=end)
                    moments.append(time.monotonic())
                time.sleep(max(0.0, options.seconds - (time.monotonic() - moments[0])))
                moments.append(time.monotonic())
        finally:
            house.run("local", "down")
    names = ("canary, good", "canary, broken", "afterwards")
    for name, begin, end in zip(names, moments, moments[1:], strict=False):
        show(name, end - begin, load.since(begin, end))
    show("all", moments[-1] - moments[0], load.results)


if __name__ == "__main__":
    main()
