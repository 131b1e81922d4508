"""Does a test notice when the code is wrong? Mutation testing with a short list, chosen by hand.

    python tools/mutants.py                     all of tools/mutations.py, some minutes
    python tools/mutants.py --only canary       those whose name contains a word

    caught    4.1 s  canary: its size is always 50%
    SURVIVED  3.9 s  stage: the oldest for the newest    tests/author/test_endpoint.py

Every mutation is applied in a copy of the tree, never in the tree itself, and its tests must fail there; without it
they must pass. Exit code 1 if a mutation survived, if its text is not found exactly once, or if its tests can't tell.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_SECONDS = 300
PASSED, FAILED = 0, 1
"""pytest's exit codes; any other one means that the tests could not be run."""


def problem(mutation: Mutation, root: Path = ROOT) -> str:
    """Why a mutation can't be applied; empty if it can."""
    path = root / mutation.file
    if not path.is_file():
        return f"{mutation.file} does not exist"
    count = path.read_text("utf-8").count(mutation.old)
    return "" if count == 1 else f"its old text occurs {count} times in {mutation.file}, once is expected"


@contextmanager
def copied(root: Path) -> Iterator[Path]:
    """A copy of the tree's own files, as git lists them, without what git ignores."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode().split("\0")
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        copy = Path(scratch)
        for name in filter(None, listed):
            if (root / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copy / name)
        yield copy


def run_tests(copy: Path, tests: Sequence[str]) -> int:
    """pytest's exit code in a copy of the tree; every process of the tests imports from the copy, too."""
    paths = os.pathsep.join([str(copy / "packages" / "localcloud" / "src"), str(copy)])
    # Two writes in one second look alike to the cache of compiled modules, so there is none.
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        return subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return FAILED


def verdict(mutation: Mutation, copy: Path) -> str:
    """ "caught", "SURVIVED", or why neither can be said. The copy is left as it was."""
    path = copy / mutation.file
    text = path.read_text("utf-8")
    path.write_text(text.replace(mutation.old, mutation.new), "utf-8")
    try:
        code = run_tests(copy, mutation.tests)
    finally:
        path.write_text(text, "utf-8")
    if code == FAILED:
        return "caught"
    return "SURVIVED" if code == PASSED else f"unclear: pytest ended with {code}"


def judge(mutations: Sequence[Mutation], root: Path = ROOT) -> bool:
    """Print a line for each mutation; whether all were caught."""
    good, sound = True, {}
    with copied(root) as copy:
        for mutation in mutations:
            begin, found = time.monotonic(), problem(mutation, copy)
            if not found:
                if mutation.tests not in sound:
                    sound[mutation.tests] = run_tests(copy, mutation.tests)
                if sound[mutation.tests] != PASSED:
                    found = f"unclear: its tests fail without it (pytest ended with {sound[mutation.tests]})"
            found = found or verdict(mutation, copy)
            good = good and found == "caught"
            where = "" if found == "caught" else f"    {' '.join(mutation.tests)}"
            print(f"{found:<9} {time.monotonic() - begin:5.1f} s  {mutation.name}{where}", flush=True)
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only the mutations whose name contains this")
    word = parser.parse_args(arguments).only
    chosen = [mutation for mutation in MUTATIONS if word in mutation.name]
    if not chosen:
        print(f"No mutation's name contains {word!r}; names: {', '.join(item.name for item in MUTATIONS)}")
        return 1
    begin, good = time.monotonic(), judge(chosen)
    print(f"{len(chosen)} mutations, {time.monotonic() - begin:.0f} s" + ("" if good else ": not all were caught"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
