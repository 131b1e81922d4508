"""Writes what people read of the dials: pipeline.yaml's comments and docs/dials.md. `make reference` runs it.

python -m configuration.reference            # write both
python -m configuration.reference --check    # exit 1 if one of them is not what the table says
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from common.dials import Dial
from common.gate_rules import MEANINGS
from common.metric_names import METRICS
from configuration.code import REPOSITORY
from configuration.dials import TABLE, by_key
from configuration.gate import threshold

COLUMN = 43
"""Where the comments of pipeline.yaml begin, unless the value is longer."""
LINE = re.compile(r"^(?P<indent> *)(?P<key>[a-z_]+):(?P<value>(?: (?!#)[^#]*?)?)(?P<comment> +#.*)?$")
HEADER = """# Dials

Every value of `pipeline.yaml`, from the one table that also makes the checks, the pipeline's parameters, the scripts'
command lines and the deploy function's settings (`common/*_dials.py`, `configuration/account_dials.py`).
`make reference` writes this page. `parameter`: a run may override it (`fmops start -p Name=Value`); the others need
an upsert.
`read by`: an option of the shipped script, or a setting of the deploy function (`fmops deploy -s name=value`).
"""


def with_comments(text: str) -> str:
    """pipeline.yaml with each dial's comment as the table has it; everything else stays."""
    path: list[tuple[int, str]] = []
    lines = []
    for line in text.splitlines():
        match = LINE.match(line)
        if not match:
            lines.append(line)
            continue
        indent = len(match["indent"])
        path = [*((depth, name) for depth, name in path if depth < indent), (indent, match["key"])]
        dial = by_key().get(".".join(name for _, name in path))
        if dial is None:
            lines.append(line)
            continue
        written = f"{match['indent']}{match['key']}:{match['value'].rstrip()}"
        lines.append(f"{written.ljust(COLUMN - 1)} # {dial.comment}")
    return "\n".join(lines) + "\n"


def page() -> str:
    """docs/dials.md."""
    return "\n".join([HEADER, *_sections()])


def _sections() -> Iterator[str]:
    """One table for each section of pipeline.yaml; the file's own two keys come first."""
    groups: dict[str, list[Dial]] = {}
    for dial in TABLE:
        groups.setdefault(dial.key.split(".")[0] if "." in dial.key else "the file itself", []).append(dial)
    groups["gate"] += (threshold(metric, *pair) for metric in METRICS for pair in MEANINGS)
    for title, dials in groups.items():
        yield f"## {title}\n"
        yield "| dial | default | allowed | effect | parameter | read by |\n|---|---|---|---|---|---|"
        yield from map(_row, dials)
        yield ""


def _row(dial: Dial) -> str:
    default = "" if dial.default is None else f"`{dial.text(dial.default) or '[]'}`"
    reader = f"`{dial.setting}`" if dial.setting else f"`--{dial.argument}`" if dial.argument else ""
    parameter = f"`{dial.parameter}`" if dial.parameter else ""
    cells = (f"`{dial.key}`", default, dial.allowed(), dial.meaning, parameter, reader)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main(arguments: list[str]) -> int:
    files = {
        REPOSITORY / "pipeline.yaml": with_comments((REPOSITORY / "pipeline.yaml").read_text("utf-8")),
        REPOSITORY / "docs" / "dials.md": page(),
    }
    stale = [path for path, text in files.items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.name} is not what the table of dials says; write it with: make reference", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        Path(path).write_text(files[path], "utf-8")
        print(f"wrote {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
