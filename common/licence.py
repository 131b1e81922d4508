"""Under which licence a model directory says its model is.

Runs in the containers of Prepare and Train, and on the author's machine; only the standard library is needed.

    find_licence(Path("base"))  Licence("other: llama3.1", "https://...", "README.md", ("LICENSE", "USE_POLICY.md"))

Read are README.md's front matter (`license`, `license_name`, `license_link`), `license` in config.json, and files
called LICENSE, COPYING, NOTICE or USE_POLICY. What the terms allow is for people to read; here they are named.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

FILES = re.compile(r"(licen[sc]e|copying|notice|use_policy|acceptable_use)([-_. ].*)?", re.IGNORECASE)
TERMS = re.compile(r"(licen[sc]e|copying)", re.IGNORECASE)
MOST_BYTES = 1_000_000
LONGEST = 120
_ENTRY = re.compile(r"(license|license_name|license_link)\s*:\s*(.*)")


@dataclass(frozen=True)
class Licence:
    """What was found; `name` is empty where nothing names one."""

    name: str = ""
    link: str = ""
    source: str = ""
    """The file that says so."""
    files: tuple[str, ...] = ()
    """Those that hold terms."""

    def __str__(self) -> str:
        if not self.name:
            return "none is named: not in README.md's front matter, in config.json or in a LICENSE file"
        more = [f"terms in {', '.join(self.files)}"] * bool(self.files) + [self.link] * bool(self.link)
        return "; ".join([f"{self.name} (says {self.source})", *more])


def find_licence(directory: Path) -> Licence:
    """The licence of the model in a directory."""
    files = tuple(sorted(path.name for path in directory.iterdir() if path.is_file() and FILES.fullmatch(path.name)))
    said = _front_matter(_text(directory / "README.md"))
    name, own = said.get("license", ""), said.get("license_name", "")
    if name or own:
        name = f"{name}: {own}" if name and own and name != own else name or own
        return Licence(name, said.get("license_link", ""), "README.md", files)
    try:
        config = json.loads(_text(directory / "config.json") or "{}")
        named = config.get("license") if isinstance(config, dict) else None
    except (ValueError, RecursionError):
        named = None
    if isinstance(named, str) and named.strip():
        return Licence(named.strip()[:LONGEST], "", "config.json", files)
    for file in files:
        title = next(
            (line.strip(" #*=-\t") for line in _text(directory / file).splitlines() if line.strip(" #*=-\t")), ""
        )
        if title and TERMS.match(file):
            return Licence(title[:LONGEST], "", file, files)
    return Licence(files=files)


def _text(file: Path) -> str:
    try:
        with open(file, "rb") as content:
            return content.read(MOST_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return ""


def _front_matter(text: str) -> dict[str, str]:
    """The three keys at the top level of the YAML between README.md's first `---` lines; of a list its items."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    found: dict[str, str] = {}
    key = ""
    for line in lines[1:]:
        if line.strip() in ("---", "..."):
            break
        entry = _ENTRY.fullmatch(line.rstrip())
        if entry:
            key, value = entry.group(1), _plain(entry.group(2))
            found[key] = ", ".join(_plain(part) for part in value.strip("[]").split(",")) if value[:1] == "[" else value
        elif key and line.lstrip().startswith("- "):
            found[key] = ", ".join(part for part in (found[key], _plain(line.lstrip()[2:])) if part)
        elif line[:1].strip():
            key = ""
    return {name: value[:LONGEST] for name, value in found.items() if value}


def _plain(value: str) -> str:
    value = re.sub(r"\s+#.*$", "", value).strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
