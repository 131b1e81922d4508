"""Reads the loss curves that a customization job leaves in S3. Runs in AWS Lambda, beside customize.py.

Bedrock writes CSV files under the job's output: `.../training_artifacts/step_wise_training_metrics.csv` and
`.../validation_artifacts/.../validation_metrics.csv`, with the columns step_number, epoch_number, training_loss (or
validation_loss) and perplexity; a folder `model-customization-job-<id>` holds them. What is absent, or isn't a number,
is left out: a curve is for people, and no reason to fail a job that has succeeded.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

from aws import list_keys
from documents import s3_parts

FILES = {"training": ("step_wise_training_metrics.csv", "training_loss"),
         "validation": ("validation_metrics.csv", "validation_loss")}  # fmt: skip
MOST_POINTS = 1000
MOST_BYTES = 16 << 20

Point = dict[str, float]


def read_curves(s3: Any, output_uri: str, job_arn: str) -> dict[str, list[Point]]:
    """`{"training": [{"step", "epoch", "loss"}], "validation": [...]}` of a job, thinned to 1,000 points each."""
    bucket, prefix = s3_parts(output_uri)
    identity = job_arn.rsplit("/", 1)[-1]
    keys = [key for key in list_keys(s3, bucket, prefix) if f"-{identity}/" in key or f"/{identity}/" in key]
    found = {}
    for name, (file, column) in FILES.items():
        points: list[Point] = []
        for key in sorted(key for key in keys if key.endswith(f"/{file}")):
            body = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{MOST_BYTES - 1}")["Body"].read()
            points += curve(body.decode("utf-8", "replace"), column)
        found[name] = points[:: max(1, math.ceil(len(points) / MOST_POINTS))]
    return found


def curve(text: str, column: str) -> list[Point]:
    """The points of one CSV file whose loss is a number."""
    rows = csv.DictReader(io.StringIO(text.lstrip("\ufeff")), skipinitialspace=True)
    points: list[Point] = []
    for row in rows:
        loss, step, epoch = (_number(row, name) for name in (column, "step_number", "epoch_number"))
        if loss is not None:
            points.append({"step": step if step is not None else len(points) + 1, "epoch": epoch or 0.0, "loss": loss})
    return points


def _number(row: Mapping[str, Any], name: str) -> float | None:
    try:
        value = float(row.get(name) or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
