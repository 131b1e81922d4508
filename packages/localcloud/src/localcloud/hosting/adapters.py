"""LoRA adapters of adapter inference components: fetched, checked, laid beside the base model's files."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from localcloud.context import Context
from localcloud.hosting.lmi_options import check_adapter, read_options
from localcloud.hosting.model_files import Prepared, clone
from localcloud.jobs.archive import unpack
from localcloud.jobs.transfer import TransferError, fetch_prefix, object_file, split_uri

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_HEADER_LIMIT = 100_000_000
"""Bytes of a safetensors header, as its format allows."""


def adapt(ctx: Context, base: Prepared, name: str, url: str, root: Path) -> Prepared:
    """The base model once more in `root`, with the adapter in /opt/ml/adapters/<name>/ and its path in the environment.

    `url` is a .tar.gz archive or an S3 prefix that ends in "/". TransferError when it holds no PEFT LoRA adapter.
    """
    prepared = clone(base, root)
    try:
        target = prepared.layout.opt_ml / "adapters" / name
        _fetch(ctx, url, target)
        rank = _check(url, target)
        if base.server == "lmi":
            check_adapter(read_options(base.model_dir, base.environment), rank)
    except ValueError as error:
        prepared.layout.remove()
        raise TransferError(f"ClientError: the adapter {url} can't be loaded: {error}.") from None
    except BaseException:
        prepared.layout.remove()
        raise
    seen = prepared.layout.map(f"/opt/ml/adapters/{name}")
    return replace(prepared, environment=prepared.environment | {"SAGEMAKER_ADAPTER_DIR": seen})


def _fetch(ctx: Context, url: str, target: Path) -> None:
    if url.endswith("/"):
        fetch_prefix(ctx, url, target)
    elif url.endswith((".tar.gz", ".tgz")):
        try:
            unpack(object_file(ctx, *split_uri(url)), target)
        except TransferError as error:
            raise TransferError(f"{error} ({url})") from error
    else:
        raise _refused(url, 'it is neither a .tar.gz archive nor an S3 prefix that ends in "/"')


def _check(url: str, directory: Path) -> int:
    """The adapter's rank; TransferError where it is none."""
    try:
        config: Any = json.loads((directory / _CONFIG).read_bytes())
    except FileNotFoundError:
        raise _refused(url, f"there is no {_CONFIG} at its top") from None
    except ValueError as error:
        raise _refused(url, f"{_CONFIG} is not JSON: {error}") from None
    rank = config.get("r") if isinstance(config, dict) else None
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise _refused(url, f"{_CONFIG} has no rank r greater than 0 (it is {rank!r})")
    weights = directory / _WEIGHTS
    if not weights.is_file():
        raise _refused(url, f"there is no {_WEIGHTS} at its top")
    with weights.open("rb") as file:
        head = file.read(8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 0 < size <= min(_HEADER_LIMIT, weights.stat().st_size - 8):
            raise _refused(url, f"{_WEIGHTS} is not a safetensors file")
        try:
            json.loads(file.read(size))
        except ValueError:
            raise _refused(url, f"{_WEIGHTS} is not a safetensors file") from None
    return rank


def _refused(url: str, reason: str) -> TransferError:
    return TransferError(
        f"ClientError: {url} is not a LoRA adapter: {reason}. An adapter is a PEFT directory with {_CONFIG} (r > 0) "
        f"and {_WEIGHTS}, as a .tar.gz archive or under an S3 prefix."
    )
