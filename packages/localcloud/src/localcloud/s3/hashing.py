"""Digests of object bytes: MD5 for the ETag, and the checksums that clients ask for."""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from pathlib import Path
from typing import Any

CHUNK = 1 << 20
ALGORITHMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
COMPUTED = frozenset({"CRC32", "SHA1", "SHA256"})
"""What is computed and compared here. CRC32C and CRC64NVME are kept as the client states them."""


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def _new(algorithm: str) -> Any:
    if algorithm == "CRC32":
        return _Crc32()
    return hashlib.new(algorithm.lower(), usedforsecurity=False)


class Digests:
    """MD5 and any checksums of a stream of bytes."""

    def __init__(self, algorithms: set[str] | frozenset[str] = frozenset()) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._others = {name: _new(name) for name in algorithms & COMPUTED}

    def update(self, data: bytes) -> None:
        self._md5.update(data)
        for digest in self._others.values():
            digest.update(data)

    @property
    def wanted(self) -> bool:
        """Whether a checksum beside MD5 is being taken."""
        return bool(self._others)

    @property
    def md5(self) -> bytes:
        return self._md5.digest()

    @property
    def checksums(self) -> dict[str, str]:
        """Algorithm -> base64, as S3 writes them."""
        return {name: base64.b64encode(digest.digest()).decode() for name, digest in self._others.items()}


def of_bytes(algorithm: str, data: bytes) -> str:
    """One checksum of a few bytes, base64."""
    digest = _new(algorithm)
    digest.update(data)
    return base64.b64encode(digest.digest()).decode()


def copy(source: Path, target: Path, digests: Digests, *, append: bool = False, start: int = 0, size: int = -1) -> None:
    """Copy a file, or `size` bytes of it from `start`, in chunks, and take its digests on the way."""
    with open(source, "rb") as reader, open(target, "ab" if append else "wb") as writer:
        reader.seek(start)
        left = size
        while data := reader.read(CHUNK if left < 0 else min(CHUNK, left)):
            digests.update(data)
            writer.write(data)
            left -= len(data) if left >= 0 else 0


def join(sources: list[Path], target: Path, digests: Digests) -> None:
    """Append files to a new one; inside the kernel when no digest of the whole is wanted."""
    with open(target, "wb") as writer:
        for source in sources:
            with open(source, "rb") as reader:
                if digests.wanted or not _copied_in_kernel(reader.fileno(), writer.fileno()):
                    while data := reader.read(CHUNK):
                        digests.update(data)
                        writer.write(data)
                    writer.flush()


def _copied_in_kernel(source: int, target: int) -> bool:
    """Whether the kernel could copy the file (not every platform and file system does)."""
    if not hasattr(os, "copy_file_range"):
        return False
    start = os.lseek(target, 0, os.SEEK_CUR)
    try:
        while os.copy_file_range(source, target, 1 << 30):
            pass
    except OSError:
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(target, start, os.SEEK_SET)
        os.ftruncate(target, start)
        return False
    return True
