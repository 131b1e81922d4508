"""Unpacks model.tar.gz, trusting nothing in it. Runs in the containers of Train and Evaluate.

Only plain files and folders below the target are written, so neither a path nor a link can lead out of it.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath

from common.failure import JobError

LONG_HEADERS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip
LONGEST_HEADER = 1 << 20


class BoundedMember(tarfile.TarInfo):
    """A tar header whose long names and attributes are bounded: tarfile reads them whole, of any size, into memory."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in LONG_HEADERS and self.size > LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes; allowed: {LONGEST_HEADER}")
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]


def unpack(archive: Path, target: Path) -> Path:
    """Unpacks into `target` (made if absent) and returns it; raises JobError on anything but files and folders."""
    try:
        with tarfile.open(archive, "r:*", tarinfo=BoundedMember) as tar:
            for member in tar:
                _unpack_member(tar, member, archive, target)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise JobError(f"{archive}: not a readable tar archive ({error})") from None
    return target


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: Path, target: Path) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\x00" in member.name:
        raise JobError(f"{archive}: the entry {member.name!r} points outside of the archive; not unpacked")
    place = target.joinpath(*path.parts)
    if member.isdir():
        place.mkdir(parents=True, exist_ok=True)
        return
    if not member.isfile():
        raise JobError(
            f"{archive}: the entry {member.name!r} is a link or a device; only files and folders are unpacked"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None
    with source, open(place, "xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
