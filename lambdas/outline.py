"""Copies what can be known of a base model without its weights. Runs in AWS Lambda, beside storage.py.

    s3://<training data bucket>/outlines/<digest>/config.json  tokenizer.json ...  weights.json  outline.json

Prepare checks the base model before a GPU is paid, on a machine without network. So it gets the model's small files
and, in `weights.json`, the headers of its safetensors files (common/weight_files.py), read by range: 100 KB of 140 GB.
The digest is of what lies under the model; `outline.json`, written last, says that an outline is whole.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from typing import Any

from aws import described
from documents import digest_of, s3_parts

from common.failure import JobError
from common.weight_files import LENGTH, OUTLINE, SMALL, header_length

FIRST_READ = 256 * 1024
"""Bytes of a file that are asked for at first; most headers end before."""
LARGEST = 64 * 1024 * 1024
"""Bytes of a small file; tokenizers have up to 40 MB."""
WHOLE = "outline.json"


def write_outline(s3: Any, model: str, found: Mapping[str, list[object]], place: str) -> str:
    """The URI of the outline of the model under `model`, below the URI `place`; made if it isn't there yet.

    `found` is what lies under the model: the rest of the key -> [ETag, size].
    """
    bucket, prefix = s3_parts(f"{place}{digest_of(found)}/")
    if described(s3.head_object, Bucket=bucket, Key=prefix + WHOLE) is None:
        source, beginning = s3_parts(model)
        headers: dict[str, dict[str, object]] = {}
        for rest in sorted(found):
            size, (folder, name) = int(str(found[rest][1])), _parts(rest)
            if folder.count("/") > 1:  # a model stands at the root, or in the one folder below it
                continue
            if name.endswith(".safetensors"):
                header = _header(s3, source, beginning + rest, size)
                headers.setdefault(folder, {})[name] = {"bytes": size, "header": header}
            elif size <= LARGEST and any(fnmatch.fnmatch(name, pattern) for pattern in SMALL):
                body = s3.get_object(Bucket=source, Key=beginning + rest)["Body"].read()
                s3.put_object(Bucket=bucket, Key=prefix + folder + name, Body=body)
        for folder, files in headers.items():
            content = json.dumps({"version": 1, "files": files}).encode()
            s3.put_object(Bucket=bucket, Key=f"{prefix}{folder}{OUTLINE}", Body=content)
        content = json.dumps({"version": 1, "model": model, "objects": len(found)}).encode()
        s3.put_object(Bucket=bucket, Key=prefix + WHOLE, Body=content)
    return f"s3://{bucket}/{prefix}"


def _parts(rest: str) -> tuple[str, str]:
    """Folder, with a slash at its end if there is one, and name."""
    folder, slash, name = rest.lstrip("/").rpartition("/")
    return folder + slash, name


def _header(s3: Any, bucket: str, key: str, size: int) -> str:
    """A file's header as it stands there; empty where the file can't have one, which Prepare refuses."""
    first = _read(s3, bucket, key, 0, min(size, FIRST_READ)) if size else b""
    try:
        end = LENGTH + header_length(key, first[:LENGTH], size)
    except JobError:
        return ""
    if end > len(first):
        first += _read(s3, bucket, key, len(first), end)
    return first[LENGTH:end].decode("utf-8", "replace")


def _read(s3: Any, bucket: str, key: str, start: int, end: int) -> bytes:
    content: bytes = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}")["Body"].read()
    return content
