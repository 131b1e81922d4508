"""Puts a model's files where its server looks for them, as SageMaker mounts them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.context import Context
from localcloud.errors import validation
from localcloud.hosting.lmi_options import is_lmi
from localcloud.jobs.archive import unpack
from localcloud.jobs.environment import base_environment
from localcloud.jobs.layout import Layout
from localcloud.jobs.transfer import TransferError, fetch_object, fetch_prefix, object_file, split_uri
from localcloud.store import Document


@dataclass(frozen=True)
class Prepared:
    """A model directory ready to be served."""

    layout: Layout
    model_dir: Path
    code_dir: Path
    program: str
    environment: dict[str, str]
    server: str
    """What kind of container serves it: see toolkit_server."""


def container_of(model: Document) -> dict[str, Any]:
    """A model's one container; ValidationException for what localcloud can't host, by name."""
    containers = model.get("Containers") or [model["PrimaryContainer"]]
    if len(containers) != 1:
        raise validation(f"Model {model['ModelName']}: localcloud hosts one container, not an inference pipeline")
    container: dict[str, Any] = containers[0]
    if container.get("Mode", "SingleModel") != "SingleModel":
        raise validation(f"Model {model['ModelName']}: Mode MultiModel is not supported by localcloud")
    return container


def prepare(ctx: Context, model: Document, root: Path) -> Prepared:
    """Download and unpack a model into `root`; TransferError when something is absent or damaged."""
    layout = Layout.create(root)
    try:
        return _fill(ctx, model, layout)
    except BaseException:
        layout.remove()
        raise


def _fill(ctx: Context, model: Document, layout: Layout) -> Prepared:
    container = container_of(model)
    model_dir = layout.opt_ml / "model"
    model_dir.mkdir()
    if container.get("ModelDataUrl"):
        _archive(ctx, container["ModelDataUrl"], layout, model_dir)
    elif container.get("ModelDataSource"):
        _source(ctx, container["ModelDataSource"]["S3DataSource"], layout, model_dir)
    for item in container.get("AdditionalModelDataSources") or []:
        target = layout.opt_ml / "additional-model-data-sources" / item["ChannelName"]
        _source(ctx, item["S3DataSource"], layout, target)

    given: dict[str, str] = container.get("Environment") or {}
    submit = given.get("SAGEMAKER_SUBMIT_DIRECTORY", "").removeprefix("file://")
    code_dir = model_dir / "code"
    if submit.startswith("s3://"):
        _archive(ctx, submit, layout, code_dir)
    elif submit.startswith("/opt/ml/"):
        code_dir = layout.path(submit)
    if code_dir.is_dir():
        layout.map_files(code_dir)
    environment = base_environment(
        ctx, layout, isolated=bool(model.get("EnableNetworkIsolation")), role=model.get("ExecutionRoleArn", "")
    )
    environment |= {"SM_MODEL_DIR": layout.map("/opt/ml/model"), "SAGEMAKER_BIND_TO_PORT": "8080"}
    # The SDK registers models with empty SAGEMAKER_PROGRAM and SAGEMAKER_SUBMIT_DIRECTORY: as if they were not there.
    environment |= {key: layout.map(value) for key, value in given.items() if value}
    program = given.get("SAGEMAKER_PROGRAM") or "inference.py"
    return Prepared(layout, model_dir, code_dir, program, environment, server_of(container["Image"]))


def server_of(image: str) -> str:
    """The contract of an image's server: LMI's, the Hugging Face toolkit's, or that of any framework image."""
    if is_lmi(image):
        return "lmi"
    return "huggingface" if "/huggingface-pytorch-inference" in image else "toolkit"


def clone(base: Prepared, root: Path) -> Prepared:
    """The same model in a directory of its own. Its files are shared as hard links: servers don't write to them."""
    layout = Layout.create(root)
    shutil.copytree(base.layout.opt_ml, layout.opt_ml, symlinks=True, dirs_exist_ok=True, copy_function=_link)
    old, new = str(base.layout.seen), str(layout.seen)
    code_dir = layout.opt_ml / base.code_dir.relative_to(base.layout.opt_ml)
    for path in code_dir.rglob("*") if code_dir.is_dir() else ():
        # Paths in code were mapped into the other directory.
        if path.is_file() and not path.is_symlink() and old.encode() in (data := path.read_bytes()):
            path.unlink()
            path.write_bytes(data.replace(old.encode(), new.encode()))
    environment = {key: value.replace(old, new) for key, value in base.environment.items()}
    model_dir = layout.opt_ml / base.model_dir.relative_to(base.layout.opt_ml)
    return Prepared(layout, model_dir, code_dir, base.program, environment, base.server)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _source(ctx: Context, source: dict[str, str], layout: Layout, target: Path) -> None:
    """An S3DataSource: a prefix of plain files, one plain object, or an archive."""
    uri = source["S3Uri"]
    if source["CompressionType"] == "Gzip":
        _archive(ctx, uri, layout, target)
    elif source["S3DataType"] == "S3Prefix":
        fetch_prefix(ctx, uri, target)
    else:
        bucket, key = split_uri(uri)
        fetch_object(ctx, bucket, key, target / key.rsplit("/", 1)[-1])


def _archive(ctx: Context, uri: str, layout: Layout, target: Path) -> None:
    """Straight from the store's file: a model is read once, never copied first."""
    bucket, key = split_uri(uri)
    try:
        unpack(object_file(ctx, bucket, key), target)
    except TransferError as error:
        raise TransferError(f"{error} ({uri})") from error
