"""Reads shipped code, and names it by its content: `code/<folder>/<sha256>/<file>`.

The same files have the same key on every machine and on every day, so an upsert changes a step only when its code
changed, and an upload that is already there is not made again. The hash covers relative paths and bytes, not modes or
dates.

What several shipped folders need stands once, in `common/`. A folder's upload brings the modules of `common/` that it
imports, directly or through each other, as a folder of that name: a change to one of them reaches only the steps that
run it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

REPOSITORY = Path(__file__).resolve().parent.parent
COMMON = "common"
IGNORED_FOLDERS = {"__pycache__", "build", "dist"}
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Where a statement keeps other statements."""
IGNORED_SUFFIXES = {".pyc", ".pyo", ".swp", ".orig"}


@dataclass(frozen=True)
class Code:
    """One folder of code: `files` maps POSIX relative paths to bytes, `sha256` names exactly these."""

    folder: str
    files: dict[str, bytes]
    sha256: str

    @property
    def prefix(self) -> str:
        """The S3 key prefix, with a trailing slash."""
        return f"code/{self.folder}/{self.sha256}/"

    def uri(self, bucket: str) -> str:
        return f"s3://{bucket}/{self.prefix}"


def shipped(folder: str, own: Mapping[str, bytes] = MappingProxyType({})) -> Code:
    """The code of one of the repository's shipped folders, for example `shipped("training")`.

    `own` holds files of the user's that go with it; they are part of its name.
    """
    code = read_code(REPOSITORY / folder, folder)
    files = code.files | _imported_from_common(code.files) | dict(own)
    return Code(folder, files, digest(files))


def bundle(folder: str, directory: Path) -> Path:
    """Write a shipped folder with its part of `common/`, as its container sees it, into `directory`; returns that."""
    for name, body in shipped(folder).files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return directory


def _imported_from_common(files: dict[str, bytes]) -> dict[str, bytes]:
    """The modules of common/ that `files` import, and that these import in turn, by their place in the upload."""
    common = read_code(REPOSITORY / COMMON, COMMON).files
    found: dict[str, bytes] = {}
    waiting = [body for name, body in files.items() if name.endswith(".py")]
    while waiting:
        for module in _imports(waiting.pop()):
            name = f"{module.removeprefix(COMMON + '.')}.py"
            if module.startswith(f"{COMMON}.") and name in common and f"{COMMON}/{name}" not in found:
                found[f"{COMMON}/{name}"] = common[name]
                waiting.append(common[name])
    if found:
        found[f"{COMMON}/__init__.py"] = common["__init__.py"]
    return found


@functools.lru_cache(maxsize=256)
def _imports(source: bytes) -> frozenset[str]:
    """Every module that is imported, wherever in the file; a definition asks for the same files ten times."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:  # through statements alone: imports are never inside of expressions, which are most of a tree
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting += [child for block in _BLOCKS for child in getattr(node, block, ())]
    return frozenset(names)


def read_code(path: Path, folder: str) -> Code:
    """Read a folder without caches, hidden files and editor leftovers. Raises FileNotFoundError if nothing is left."""
    files = {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and _is_shipped(file.relative_to(path))
    }
    if not files:
        raise FileNotFoundError(f"{path}: no code to ship; is the installation complete?")
    return Code(folder, files, digest(files))


def digest(files: dict[str, bytes]) -> str:
    """SHA-256 over sorted relative paths and bytes; lengths are hashed too, so that no two trees read alike."""
    sha = hashlib.sha256()
    for name in sorted(files):
        for part in (name.encode(), files[name]):
            sha.update(len(part).to_bytes(8, "big"))
            sha.update(part)
    return sha.hexdigest()


def _is_shipped(relative: Path) -> bool:
    if any(part.startswith(".") or part in IGNORED_FOLDERS or part.endswith(".egg-info") for part in relative.parts):
        return False
    return relative.suffix not in IGNORED_SUFFIXES and not relative.name.endswith("~")
