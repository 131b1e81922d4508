"""How much faster an endpoint that takes 200 ms is evaluated with 32 rows at a time than one after the other.

    python -m benchmarks.remote_evaluation            # prints a table; benchmarks/README.md keeps it

The endpoint is a server of this machine that waits 200 ms before each answer. Both ways are run in turn, in one run,
over the same rows; the answers are compared. Wall time is what counts here: waiting is what is saved.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "evaluation")]

ROWS, SECONDS, AT_ONCE, ROUNDS = 160, 0.2, 32, 3


def serve(urls: Any, seconds: float) -> None:
    """The endpoint, in a process of its own: it must not take the client's turns."""
    from tests.support.judges import judging

    def answer(_: str, messages: list[dict[str, Any]]) -> str:
        time.sleep(seconds)
        return str(messages[-1]["content"]).replace("question", "answer")

    with judging(lambda *_: "") as server:
        server.answers = answer
        urls.put(server.url)
        time.sleep(3600)


def main() -> int:
    from journal import Journal
    from patience import Patience
    from remote import remote_of
    from remote_pass import Asking, remote_pass

    os.environ |= {"AWS_ACCESS_KEY_ID": "111122223333", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
    rows: Any = [
        {"messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}"}]}
        for n in range(ROWS)
    ]
    print(f"{ROWS} rows, {SECONDS} s an answer")
    for number in range(ROUNDS):
        took, answers = {}, {}
        context = multiprocessing.get_context("spawn")
        urls = context.Queue()
        server = context.Process(target=serve, args=(urls, SECONDS), daemon=True)
        server.start()
        try:
            os.environ["AWS_ENDPOINT_URL"] = urls.get(timeout=60)
            for at_once in (1, AT_ONCE):
                with tempfile.TemporaryDirectory() as folder, Journal(Path(folder)) as journal:
                    began = time.monotonic()
                    remote = remote_of("endpoint:chat", at_once)
                    asking = Asking(journal, at_once, Patience())
                    done = remote_pass(asking, "m", remote, "m", rows, 32)[0]
                    took[at_once], answers[at_once] = time.monotonic() - began, done.answers
        finally:
            server.kill()
            server.join()
        same = "the same answers" if answers[1] == answers[AT_ONCE] else "OTHER ANSWERS"
        print(
            f"round {number + 1}: one at a time {took[1]:.1f} s, {AT_ONCE} at a time {took[AT_ONCE]:.2f} s: "
            f"{took[1] / took[AT_ONCE]:.1f} times as fast, {same}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
