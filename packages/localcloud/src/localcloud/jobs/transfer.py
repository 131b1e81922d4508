"""S3 objects in and out of job directories, through the delegate's files."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from localcloud.context import Context
from localcloud.errors import AwsError


class TransferError(Exception):
    """An input or output that could not be moved; `str()` is the reason as SageMaker words it (ClientError: ...)."""


def split_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/some/key` -> ("bucket", "some/key"); TransferError for anything else."""
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise TransferError(f"ClientError: {uri!r} is not an S3 URI (s3://bucket/prefix)")
    return parts.netloc, uri[len("s3://") + len(parts.netloc) :].lstrip("/")


def join_uri(uri: str, *parts: str) -> str:
    """`join_uri("s3://b/x/", "a", "b")` -> `s3://b/x/a/b`."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts if part)])


def relative_name(prefix: str, key: str) -> str:
    """Where SageMaker puts an object of a prefix, relative to the channel directory.

    The rest after a folder prefix, the file name for a prefix that is the whole key or the beginning of a name.
    """
    if not prefix or prefix.endswith("/"):
        return key[len(prefix) :]
    if key.startswith(prefix + "/"):
        return key[len(prefix) + 1 :]
    return key[prefix.rfind("/") + 1 :]


def safe_join(root: Path, name: str) -> Path:
    """`root/name`; TransferError when the name would leave `root` or can't be a file name."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in name:
        raise TransferError(f"ClientError: the object name {name!r} can't be a file in {root.name}/")
    return root.joinpath(*parts)


def fetch_prefix(
    ctx: Context, uri: str, target: Path, *, required: bool = True, share: tuple[int, int] = (0, 1)
) -> int:
    """Download every object that begins with an S3 URI into `target`; the number of files.

    With `share` (number, of how many) only one machine's part of the objects, which may be none. Copies, never links:
    a job may write to its inputs, and the object must stay as it is. TransferError when nothing is there and
    `required`.
    """
    bucket, prefix = split_uri(uri)
    target.mkdir(parents=True, exist_ok=True)
    try:
        keys = ctx.cloud.delegate.list_objects(ctx.account, bucket, prefix)
    except AwsError as error:
        raise TransferError(_download_failure(uri, error.message)) from error
    # An exact key is that one object; otherwise `train` also matches `training/`, as in AWS.
    count = found = 0
    for key in keys:
        name = relative_name(prefix, key)
        if not name:
            continue
        if name.endswith("/"):
            safe_join(target, name).mkdir(parents=True, exist_ok=True)
            continue
        if found % share[1] == share[0]:
            fetch_object(ctx, bucket, key, safe_join(target, name))
            count += 1
        found += 1
    if found == 0 and required:
        raise TransferError(_download_failure(uri, "No S3 objects found under this URI"))
    return count


def fetch_object(ctx: Context, bucket: str, key: str, target: Path) -> None:
    """Download one object to a file; TransferError when it is absent or there is no room."""
    source = object_file(ctx, bucket, key)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise TransferError(io_failure(error, target)) from error


def object_file(ctx: Context, bucket: str, key: str) -> Path:
    """The store's own file of an object, to be read only; TransferError when it is absent."""
    try:
        return ctx.cloud.delegate.read_object(ctx.account, bucket, key)
    except AwsError as error:
        raise TransferError(_download_failure(f"s3://{bucket}/{key}", error.message)) from error


def upload_tree(ctx: Context, directory: Path, uri: str) -> int:
    """Upload every regular file under `directory` to `uri/<relative path>`; the number of files."""
    count = 0
    for path, name in walk(directory):
        upload_file(ctx, path, join_uri(uri, name))
        count += 1
    return count


def upload_file(ctx: Context, path: Path, uri: str) -> None:
    """Keep a file as the object `uri`; TransferError when the bucket is absent or there is no room."""
    bucket, key = split_uri(uri)
    try:
        ctx.cloud.delegate.write_object(ctx.account, bucket, key, path)
    except AwsError as error:
        raise TransferError(f"ClientError: Artifact upload failed: {uri}: {error.message}") from error
    except OSError as error:
        raise TransferError(io_failure(error, path)) from error


def walk(directory: Path) -> Iterator[tuple[Path, str]]:
    """(file, relative name with /) of every regular file, sorted by name; links out of the directory are left out."""
    root = directory.resolve()
    found: list[tuple[str, Path]] = []
    for folder, _, files in os.walk(directory):
        for file in files:
            path = Path(folder, file)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                continue
            if path.is_file():
                found.append((path.relative_to(directory).as_posix(), path))
    for name, path in sorted(found):
        yield path, name


def aggregate(directories: Sequence[Path]) -> list[tuple[Path, str]]:
    """`walk` over what several machines left, as if it were one directory.

    TransferError where two of them left something of one name: "they should ensure no file/directory names clash".
    """
    owners: dict[str, Path] = {}
    found: list[tuple[str, Path]] = []
    for directory in directories:
        for path, name in walk(directory):
            top = name.split("/", 1)[0]
            if owners.setdefault(top, directory) != directory:
                raise TransferError(
                    f"ClientError: Artifact upload failed: more than one instance wrote {top} into "
                    f"{'/'.join(directory.parts[-2:])}: let one of them write it, or give each a name of its own"
                )
            found.append((name, path))
    return [(path, name) for name, path in sorted(found)]


def io_failure(error: OSError, path: Path) -> str:
    """The failure reason for an operating system error; a full disk says so first."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"InternalServerError: No space left on the disk that holds {path}: free some space and run it again"
    return f"InternalServerError: {path}: {error.strerror or error}"


def _download_failure(uri: str, reason: str) -> str:
    return (
        f"ClientError: Data download failed: {uri}: {reason}. Please ensure that the bucket exists in the selected "
        "region, that objects exist under that S3 prefix, and that the role may list and read it."
    )
