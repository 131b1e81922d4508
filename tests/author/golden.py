"""The golden definition: `python -m tests.author.golden` writes it again after a wanted change.

Hashes of shipped code are replaced by a token, so that an edit of a script doesn't change the golden file; that hashes
follow content is tested by itself.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "finetuning.json"


def normalise(definition: str) -> str:
    """Replace `code/<folder>/<sha256>/` and the `code_<folder>` metadata by tokens."""
    text, keys = re.subn(r"/code/(\w+)/[0-9a-f]{64}/", r"/code/\1/<sha256 of \1>/", definition)
    text, metadata = re.subn(r'"code_(\w+)": "[0-9a-f]{64}"', r'"code_\1": "<sha256 of \1>"', text)
    assert (keys, metadata) == (10, 8), (keys, metadata)
    return text


def main() -> None:
    from configuration.layers import load_config
    from pipelines.finetuning import definition

    GOLDEN.write_text(normalise(definition(load_config(ROOT / "pipeline.yaml"))), "utf-8")
    sys.stderr.write(f"wrote {GOLDEN}; read its diff before committing it\n")


if __name__ == "__main__":
    main()
