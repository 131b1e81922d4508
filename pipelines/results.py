"""What an execution found: the evaluation report, the gate's decision, the files of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.metric_names import Metric, metrics_of
from configuration.errors import UserError
from pipelines import executions
from pipelines.aws import s3_parts

if TYPE_CHECKING:
    import boto3
    from rich.table import Table

# "gain" is the tuned model beside the better of the two bases.
_MODELS = {
    "base": "base",
    "base_few_shot": "few-shot",
    "champion": "champion",
    "candidate": "tuned",
    "improvement": "gain",
}


def evaluation_uri(session: boto3.Session, arn: str) -> str:
    """The S3 prefix that the Evaluate step wrote evaluation.json and report.html to."""
    step = executions.find_step(session, arn, "Evaluate") or executions.find_step(session, arn, "EvaluateBedrock")
    job = executions.job(step) if step else None
    if job is None:
        raise UserError(
            f"Execution {executions.execution_id(arn)} has no evaluation report: it did not reach Evaluate.\n"
            f"See what happened: fmops status {executions.execution_id(arn)}"
        )
    description = session.client("sagemaker").describe_processing_job(ProcessingJobName=job.name)
    uri = _output_uri(description, "evaluation")
    if uri is None:
        raise UserError(f"The processing job {job.name} has no output named 'evaluation'.")
    return uri


def _output_uri(description: dict[str, Any], name: str) -> str | None:
    for output in description["ProcessingOutputConfig"]["Outputs"]:
        if output["OutputName"] == name:
            return str(output["S3Output"]["S3Uri"]).rstrip("/")
    return None


def rejected_rows_uri(session: boto3.Session, arn: str) -> str | None:
    """Where a failed Prepare left the rows that it rejected, each with file, line and reason."""
    step = executions.find_step(session, arn, "Prepare")
    job = executions.job(step) if step and step["StepStatus"] == "Failed" else None
    if job is None:
        return None
    description = session.client("sagemaker").describe_processing_job(ProcessingJobName=job.name)
    report = _output_uri(description, "report")
    return f"{report}/rejected.jsonl" if report else None


def evaluation(session: boto3.Session, arn: str) -> dict[str, Any]:
    """evaluation.json of an execution (docs/contracts.md has its shape)."""
    return read_json(session, f"{evaluation_uri(session, arn)}/evaluation.json")


def download_report(session: boto3.Session, arn: str, directory: Path) -> Path:
    """Fetch report.html and evaluation.json into `directory/<execution id>/`; returns the report's path."""
    prefix = evaluation_uri(session, arn)
    target = directory / executions.execution_id(arn)
    target.mkdir(parents=True, exist_ok=True)
    for name in ("evaluation.json", "report.html"):
        (target / name).write_bytes(_read(session, f"{prefix}/{name}"))
    return target / "report.html"


def read_json(session: boto3.Session, uri: str) -> dict[str, Any]:
    """A JSON object in S3."""
    return dict(json.loads(_read(session, uri)))


def _read(session: boto3.Session, uri: str) -> bytes:
    bucket, key = s3_parts(uri)
    client = session.client("s3")
    try:
        return bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    except client.exceptions.NoSuchKey:
        raise UserError(f"{uri} is not there (has the Evaluate step finished?).") from None


def metrics_table(report: dict[str, Any]) -> Table:
    """Base against tuned, one row a metric, each value with its 95% interval."""
    from rich import box
    from rich.table import Table

    groups = report.get("groups", report["rows"])
    among = f" in {groups} groups" if groups < report["rows"] else ""
    table = Table(
        title=f"Held-out test set, {report['rows']} rows{among}, with 95% intervals",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        leading=0,
    )
    table.add_column("metric", no_wrap=True)
    present = [key for key in _MODELS if any(key in models for models in report["metrics"].values())]
    for key in present:
        table.add_column(_MODELS[key], justify="right", no_wrap=True)
    known = metrics_of(report)
    for metric, models in report["metrics"].items():
        of = f"\n[dim]of {models['rows']} rows[/dim]" if "rows" in models else ""
        table.add_row(f"{metric}{of}", *(cell(known.get(metric), models.get(key)) for key in present))
    return table


def gate_lines(report: dict[str, Any]) -> list[str]:
    """The gate's decision, a line for each rule, as the step, the card and the page have it."""
    gate = report["gate"]
    lines = [gate["text"].partition(": ")[0].rstrip(".") + "." if not gate["passed"] else gate["text"]]
    lines += [f"  {rule['verdict']}: {rule['text']}" for rule in gate["rules"]]
    return lines + [f"  worse: {item['text']}" for item in gate["slices"]]


def cell(metric: Metric | None, estimate: dict[str, Any] | None) -> str:
    """One value with its interval below it, as the tables show it; of a metric that isn't known as a plain number."""
    if not estimate or estimate.get("value") is None:
        return "-"
    share = metric is not None and metric.share
    scale, digits, unit = (100, 1, "%") if share else (1, 3, "")
    value = f"{estimate['value'] * scale:.{digits}f}{unit}"
    if estimate.get("low") is None:
        return value
    # The interval goes below the value, so that the table fits a terminal of 80 columns.
    places = 0 if share else 2
    return f"{value}\n[dim]{estimate['low'] * scale:.{places}f}–{estimate['high'] * scale:.{places}f}[/dim]"
