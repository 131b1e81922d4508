"""model.tar.gz: packed fast and in a fixed order, unpacked without trusting it."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from isal import igzip

from localcloud.jobs.transfer import TransferError, io_failure

_CHUNK = 1 << 20
_MAX_MEMBERS = 200_000
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


def pack(files: Iterable[tuple[Path, str]], archive: Path) -> int:
    """Write files under the names given as a .tar.gz; their number.

    Members carry no owner; the gzip header has no time, so that equal files give an equal archive.
    """
    count = 0
    try:
        with _gzip_writer(archive) as stream, tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for path, name in files:
                info = tar.gettarinfo(str(path.resolve()), arcname=name)
                if not info.isreg():
                    # A second hard link to a file that is already in: stored again, whole.
                    info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                info.mode = 0o755 if info.mode & 0o100 else 0o644
                info.mtime = int(info.mtime)
                with path.open("rb") as source:
                    tar.addfile(info, source)
                count += 1
    except OSError as error:
        archive.unlink(missing_ok=True)
        raise TransferError(io_failure(error, archive)) from error
    return count


def unpack(archive: Path, target: Path) -> int:
    """Unpack a .tar.gz (or .tar) into `target`; the number of files.

    Refused with TransferError: absolute names, names or links that leave `target`, devices and pipes, more than the
    disk has room for, a damaged archive.
    """
    target.mkdir(parents=True, exist_ok=True)
    root = target.resolve()
    free = shutil.disk_usage(target).free
    count = total = 0
    links: list[Path] = []
    try:
        with _tar_reader(archive) as tar:
            for member in tar:
                count += 1
                total += member.size
                if count > _MAX_MEMBERS:
                    raise TransferError(f"ClientError: {archive.name} holds more than {_MAX_MEMBERS} files")
                if total > free:
                    raise TransferError(f"InternalServerError: No space left to unpack {archive.name} into {target}")
                _extract(tar, member, root)
                if member.issym():
                    links.append(Path(os.path.normpath(os.path.join(root, member.name))))
        _check_links(links, root)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise TransferError(f"ClientError: {archive.name} is not a readable tar.gz archive: {error}") from error
    except OSError as error:
        raise TransferError(io_failure(error, archive)) from error
    return count


def _check_links(links: list[Path], root: Path) -> None:
    """A chain of links may lead out although each of them, when it was made, did not."""
    for link in links:
        if link.is_symlink() and not link.resolve().is_relative_to(root):
            for other in links:
                other.unlink(missing_ok=True)
            raise TransferError(f"ClientError: the archive's link {link.relative_to(root)} leaves its directory")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    name = member.name
    path = Path(os.path.normpath(os.path.join(root, name)))
    inside = not name.startswith("/") and (path == root or path.is_relative_to(root))
    # The parent is resolved as well: an earlier member may have been a link.
    if not inside or (path != root and not path.parent.resolve().is_relative_to(root)):
        raise TransferError(f"ClientError: the archive's member {name!r} would be written outside its directory")
    if path == root:
        return
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    if member.isreg():
        source = tar.extractfile(member)
        assert source is not None
        with path.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
        path.chmod(0o755 if member.mode & 0o100 else 0o644)
    elif member.issym() or member.islnk():
        # Resolved from where the link really lies: its directory may itself be a link.
        goal = ((root if member.islnk() else path.parent.resolve()) / member.linkname).resolve()
        if member.linkname.startswith("/") or not goal.is_relative_to(root):
            raise TransferError(f"ClientError: the archive's link {name!r} -> {member.linkname!r} leaves its directory")
        if member.issym():
            path.symlink_to(member.linkname)
        else:
            shutil.copyfile(goal, path)
    else:
        raise TransferError(f"ClientError: the archive's member {name!r} is neither a file, a directory nor a link")


@contextmanager
def _gzip_writer(path: Path) -> Iterator[IO[bytes]]:
    # Intel's ISA-L is several times faster than zlib; weights hardly compress either way.
    with (
        path.open("wb") as raw,
        igzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as compressor,
    ):
        yield cast("IO[bytes]", compressor)


@contextmanager
def _tar_reader(path: Path) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as raw:
        magic = raw.read(2)
        raw.seek(0)
        if magic != b"\x1f\x8b":
            with tarfile.open(fileobj=raw, mode="r|", tarinfo=BoundedMember) as tar:
                yield tar
            return
        with (
            igzip.GzipFile(mode="rb", fileobj=raw) as stream,
            tarfile.open(fileobj=stream, mode="r|", tarinfo=BoundedMember) as tar,
        ):
            yield tar
