"""Writes requirements.lock, the release set with hashes (make lock).

    uv pip install --no-deps --require-hashes -r requirements.lock      # or pip, with the same options
    pip install --no-deps torch==2.13.0                                 # the build for your machine

It holds what `fmops[local]` and localcloud need, within constraints.txt. torch is left out: its builds for CPU and for
each CUDA have hashes of their own and come from different indexes; constraints.txt pins its version. For Linux and
Python 3.11; hashes of every file of a release are kept, so other platforms work where the same versions exist.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
HEADER = """# The release set with hashes, for Linux and Python 3.11; `make lock` writes it. Install it with --no-deps.
# torch is not in it: its builds for CPU and CUDA have hashes of their own on other indexes (tools/lock.py).
"""


def requirements() -> list[str]:
    """What fmops, its extra `local` and localcloud declare, without fmops-localcloud itself, which is in this tree."""
    fmops = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    local = tomllib.loads((ROOT / "packages/localcloud/pyproject.toml").read_text("utf-8"))["project"]
    declared = [*fmops["dependencies"], *fmops["optional-dependencies"]["local"], *local["dependencies"]]
    return [item for item in declared if not item.startswith("fmops-localcloud")]


def without(text: str, package: str) -> str:
    """A lock without one package's entry: its line and the lines of its hashes."""
    return re.sub(rf"^{package}==.*?(?=^\S|\Z)", "", text, flags=re.MULTILINE | re.DOTALL)


def main(uv: str) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        wanted, out = Path(scratch) / "requirements.in", Path(scratch) / "requirements.lock"
        wanted.write_text("\n".join(requirements()), "utf-8")
        command = [uv, "pip", "compile", str(wanted), "-c", str(ROOT / "constraints.txt"), "-o", str(out)]
        command += ["--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        result = subprocess.run([*command, "--python-version", "3.11", "-q"], check=False)
        if result.returncode:
            return result.returncode
        LOCK.write_text(HEADER + without(out.read_text("utf-8"), "torch"), "utf-8")
    print(f"wrote {LOCK.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "uv"))
