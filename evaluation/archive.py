"""Runs in the Evaluate step's processing container: unpacks model.tar.gz, trusting nothing in it.

Only plain files and folders below the target are written, so neither a path nor a link can lead out of it. Weights
are read from safetensors alone, because the other formats run code when they are loaded.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath

from errors import ScoringError

UNSAFE_WEIGHTS = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack"}


def unpack(archive: Path, target: Path) -> Path:
    """Unpacks into `target` (made if absent) and returns it; raises ScoringError on anything but files and folders."""
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                _unpack_member(tar, member, archive, target)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ScoringError(f"{archive}: not a readable tar archive ({error})") from None
    return target


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Path, target: Path) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\x00" in member.name:
        raise ScoringError(f"{archive}: the entry {member.name!r} points outside of the archive; not unpacked")
    place = target.joinpath(*path.parts)
    if member.isdir():
        place.mkdir(parents=True, exist_ok=True)
        return
    if not member.isfile():
        raise ScoringError(
            f"{archive}: the entry {member.name!r} is a link or a device; only files and folders are unpacked"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None
    with source, open(place, "xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def check_weights(directory: Path) -> None:
    """Raises ScoringError if a model directory holds no safetensors weights (other formats are never loaded)."""
    if any(directory.glob("*.safetensors")):
        return
    unsafe = sorted(path.name for path in directory.glob("*") if path.suffix in UNSAFE_WEIGHTS)
    found = (
        f"only {', '.join(unsafe)}, which can run code when loaded; save the model as safetensors"
        if unsafe
        else "no weights"
    )
    raise ScoringError(f"{directory}: {found} (looked for *.safetensors)")
