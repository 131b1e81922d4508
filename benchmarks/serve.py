"""The serving handler with concurrent callers against the same handler one request at a time.

    python examples/base_model.py --cache .fmops/base-models
    python benchmarks/serve.py --model .fmops/base-models/SmolLM2-135M-Instruct --clients 8 16

Both are server processes that answer over HTTP, with the same model, precision, cores and greedy requests; "one by
one" answers each request with the library's own `generate`, the next one waits. Requests of a home assistant, at most
40 new tokens. Rounds alternate, the ratio is the median of the rounds. CPU-seconds are the server's.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
TOOLKIT = ROOT / "packages/localcloud/src/localcloud/hosting/toolkit_server.py"
NEW_TOKENS = 40
ONE_BY_ONE = """
from inference import input_fn, output_fn, predict_fn
import inference

def model_fn(model_dir):
    model = inference.model_fn(model_dir)
    model.close()
    model._batched = None
    model._one_by_one = inference.TextModel.__init__.__globals__["OneByOne"](
        model.model, model._ends, model.tokenizer.pad_token_id
    )
    return model
"""


@contextlib.contextmanager
def server(model: Path, program: str) -> Iterator[tuple[int, psutil.Process]]:
    """(port, process) of a server that is ready."""
    from configuration.code import bundle

    with tempfile.TemporaryDirectory() as name:
        code, port_file = Path(name) / "code", Path(name) / "port"
        bundle("serving", code)
        (code / "one_by_one.py").write_text(ONE_BY_ONE)
        command = [
            *(
                sys.executable,
                str(TOOLKIT),
                "--port",
                "0",
            ),
            *("--model-dir", str(model), "--code", str(code), "--program", program, "--port-file", str(port_file)),
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while not port_file.exists() or not ready(int(port_file.read_text())):
                if process.poll() is not None:
                    raise SystemExit(f"{program} ended with {process.returncode}")
                time.sleep(0.2)
            yield int(port_file.read_text()), psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait()


def ready(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", "/ping")
        response = connection.getresponse()
        response.read()
        return response.status == 200


def answers(port: int, clients: int, prompts: list[str]) -> list[str]:
    """The answer to each prompt, asked by so many clients at once."""

    def ask(prompt: str) -> str:
        body = json.dumps({"inputs": prompt, "parameters": {"max_new_tokens": NEW_TOKENS}})
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=600)) as connection:
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read()
            if response.status != 200:
                raise SystemExit(f"{response.status}: {data!r}")
            return str(json.loads(data)[0]["generated_text"])

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(ask, prompts))


def measure(port: int, process: psutil.Process, clients: int, prompts: list[str]) -> tuple[float, float, list[str]]:
    """Wall and CPU-seconds a request, and the answers."""
    before, started = sum(process.cpu_times()[:2]), time.monotonic()
    found = answers(port, clients, prompts)
    wall, cpu = time.monotonic() - started, sum(process.cpu_times()[:2]) - before
    return wall / len(prompts), cpu / len(prompts), found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2, help="requests a client in a round")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT / "examples"))
    from home_assistant import build_rows

    prompts = [row["prompt"] for row in build_rows(max(options.clients) * options.requests)]
    print("| clients | one by one requests/s | batched requests/s | x wall | x CPU | same answers |")
    print("|---|---|---|---|---|---|")
    with server(options.model, "one_by_one.py") as single, server(options.model, "inference.py") as batched:
        for one in (single, batched):
            answers(one[0], 1, prompts[:1])
        for clients in options.clients:
            some = prompts[: clients * options.requests]
            few = some[:8]  # one by one takes as long for each, whoever waits
            rounds = [(measure(*single, clients, few), measure(*batched, clients, some)) for _ in range(options.rounds)]
            wall = statistics.median(one[0] / many[0] for one, many in rounds)
            cpu = statistics.median(one[1] / many[1] for one, many in rounds)
            speeds = [1 / statistics.median(pair[which][0] for pair in rounds) for which in (0, 1)]
            same = sum(one == many for one, many in zip(rounds[0][0][2], rounds[0][1][2], strict=False))
            print(
                f"| {clients} | {speeds[0]:.2f} | {speeds[1]:.2f} | {wall:.1f} | {cpu:.1f} | {same} of {len(few)} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
