"""What safetensors files hold, from their headers: names, types and shapes, without the weights.

Runs in the containers of Prepare and Train, in AWS Lambda and on the author's machine; only the standard library is
needed.

    read_headers(Path("base"))      {"model.embed_tokens.weight": Tensor("BF16", (128256, 4096)), ...}

A safetensors file begins with the length of its header (8 bytes, little-endian) and the header, JSON that says for each
tensor its type, shape and place behind it. A directory without the files themselves may have their headers in
`weights.json`, which the storage function writes: `{"version": 1, "files": {name: {"bytes": size, "header": text}}}`.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.failure import JobError

OUTLINE = "weights.json"
SMALL = ("*.json", "*.model", "*.txt", "*.jinja", "README.md", "LICENSE*", "NOTICE*", "USE_POLICY*")
"""Of a model directory all that is read but its weights."""
LENGTH = 8
"""Bytes that say how long the header is."""
LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""
METADATA = "__metadata__"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True)
class Tensor:
    """One weight in a file: its type as safetensors calls it (`BF16`), and its shape."""

    kind: str
    shape: tuple[int, ...]


def header_length(name: str, first: bytes, size: int) -> int:
    """Bytes of a file's header, from its first 8 bytes and its size. Raises JobError where it is none."""
    length = struct.unpack("<Q", first)[0] if len(first) == LENGTH else 0
    if not 2 <= length <= min(LONGEST_HEADER, size - LENGTH):
        raise JobError(f"{name}: not a whole safetensors file ({size} bytes): it must be copied again")
    return int(length)


def check_header(name: str, content: bytes, size: int) -> dict[str, Any]:
    """A header's JSON, `size` being the file's bytes. Raises JobError where it isn't one, or the file is cut off."""
    try:
        header = json.loads(content)
        if not isinstance(header, dict):
            raise ValueError("no object")
        ends = [int(item["data_offsets"][1]) for key, item in header.items() if key != METADATA]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        raise JobError(f"{name}: its safetensors header can't be read: the file must be copied again") from None
    wanted = LENGTH + len(content) + max(ends, default=0)
    if size != wanted:
        raise JobError(
            f"{name} has {size} bytes, and its header says {wanted}: it isn't whole, and must be copied again"
        )
    return header


def read_headers(directory: Path) -> dict[str, Tensor]:
    """Every tensor of the safetensors files that transformers reads of a model directory, by name.

    These are model.safetensors, or those of the index. Raises JobError where there are none, for one that can't be read
    or isn't whole, and for one that the index names and that isn't there.
    """
    kept = _kept(directory / OUTLINE)
    there = kept or {file.name: {} for file in directory.glob("*.safetensors")}
    named = {SINGLE} if SINGLE in there else _indexed(directory)
    if not named:
        raise JobError(
            f"{directory}: {', '.join(sorted(there)[:5])} is neither {SINGLE} nor named by {INDEX}, so nothing would "
            "be loaded from it; take the model's whole directory as it was published"
        )
    absent = sorted(named - there.keys())
    if absent:
        one = len(absent) == 1
        raise JobError(
            f"{directory}: {', '.join(absent[:5])} {'is' if one else 'are'} not there, though the index names "
            f"{'it' if one else 'them'}; the directory must hold the whole model"
        )
    headers = {name: kept[name] if kept else _read(directory / name) for name in sorted(named)}
    found: dict[str, Tensor] = {}
    for name, header in headers.items():
        try:
            found |= {
                key: Tensor(str(item["dtype"]), tuple(int(number) for number in item["shape"]))
                for key, item in header.items()
                if key != METADATA
            }
        except (ValueError, TypeError, KeyError):
            raise JobError(f"{name}: its safetensors header can't be read: the file must be copied again") from None
    return found


def _read(file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    with open(file, "rb") as content:
        length = header_length(str(file), content.read(LENGTH), size)
        return check_header(str(file), content.read(length), size)


def _kept(outline: Path) -> dict[str, dict[str, Any]]:
    """The headers in weights.json, checked as those of files are."""
    if not outline.is_file():
        return {}
    found = {}
    for name, item in json.loads(outline.read_bytes())["files"].items():
        header = item["header"].encode()
        header_length(name, struct.pack("<Q", len(header)), item["bytes"])
        found[name] = check_header(name, header, item["bytes"])
    return found


def _indexed(directory: Path) -> set[str]:
    """The files that the index names."""
    index = directory / INDEX
    if not index.is_file():
        return set()
    try:
        return set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise JobError(f"{index}: not an index of safetensors files (weight_map): copy it again") from None
