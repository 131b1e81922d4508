"""Trial components: what SageMaker keeps of each job for its lineage. They are made by themselves, not through the API.

Document kind "experiment-trial-component", name = the component's name in lower case, doc = the Describe answer.
"""

from __future__ import annotations

import time
from typing import Any

from localcloud import paging
from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import not_found, validation
from localcloud.jobs.capacity import selected
from localcloud.jobs.states import Kind
from localcloud.sagemaker.lineage_entities import TRIAL_COMPONENT
from localcloud.store import Document

_SUMMARY = paging.summary(
    "TrialComponentName",
    "TrialComponentArn",
    "DisplayName",
    "Status",
    "StartTime",
    "EndTime",
    "CreationTime",
    "LastModifiedTime",
)


def keep(ctx: Context, kind: Kind, job: Document, inputs: dict[str, str], outputs: dict[str, str]) -> str:
    """Make or update the component of a job; its ARN. `inputs` and `outputs` are URIs by name."""
    name = f"{job[f'{kind.noun}Name']}-aws-{kind.kind}"
    source = {"SourceArn": job[f"{kind.noun}Arn"], "SourceType": f"SageMaker{kind.noun}"}
    doc: Document = {
        "TrialComponentName": name,
        "TrialComponentArn": ctx.arn(f"{TRIAL_COMPONENT}/{name}"),
        "DisplayName": name,
        "Source": source,
        "Sources": [source],
        "Status": {"PrimaryStatus": job[f"{kind.noun}Status"]},
        "CreationTime": job["CreationTime"],
        "LastModifiedTime": time.time(),
        "CreatedBy": {},
        "LastModifiedBy": {},
        "Parameters": _parameters(kind, job),
        "InputArtifacts": {key: {"Value": uri} for key, uri in inputs.items()},
        "OutputArtifacts": {key: {"Value": uri} for key, uri in outputs.items()},
        "Metrics": [_metric(job, kind, metric) for metric in job.get("FinalMetricDataList") or []],
    }
    if job.get("FailureReason"):
        doc["Status"]["Message"] = job["FailureReason"]
    for member, given in (("StartTime", f"{kind.prefix}StartTime"), ("EndTime", f"{kind.prefix}EndTime")):
        if given in job:
            doc[member] = job[given]
    ctx.cloud.store.put(TRIAL_COMPONENT, ctx.account, ctx.region, name, doc)
    return str(doc["TrialComponentArn"])


def _parameters(kind: Kind, job: Document) -> dict[str, Any]:
    resources = job.get("ResourceConfig") or (job.get("ProcessingResources") or {}).get("ClusterConfig") or {}
    found: dict[str, Any] = {key: {"StringValue": value} for key, value in (job.get("HyperParameters") or {}).items()}
    kind_of_machine, count = selected(resources)
    if kind_of_machine:
        found["SageMaker.InstanceType"] = {"StringValue": kind_of_machine}
        found["SageMaker.InstanceCount"] = {"NumberValue": float(count)}
    return found


def _metric(job: Document, kind: Kind, metric: Document) -> Document:
    value = metric["Value"]
    return {
        "MetricName": metric["MetricName"],
        "SourceArn": job[f"{kind.noun}Arn"],
        "TimeStamp": metric["Timestamp"],
        "Last": value,
        "Min": value,
        "Max": value,
        "Avg": value,
        "Count": 1,
    }


def _describe(ctx: Context, request: Request) -> Response:
    name = request["TrialComponentName"].rpartition("/")[2]
    doc = ctx.cloud.store.get(TRIAL_COMPONENT, ctx.account, ctx.region, name)
    if doc is None:
        raise not_found(f"Trial component {ctx.arn(f'{TRIAL_COMPONENT}/{name}')} does not exist.")
    return paging.public(doc)


def _list(ctx: Context, request: Request) -> Response:
    for member in ("ExperimentName", "TrialName"):
        if member in request:
            raise validation(f"{member} is not supported by localcloud: it has no experiments and trials")
    docs = ctx.cloud.store.list(TRIAL_COMPONENT, ctx.account, ctx.region)
    docs = [doc for doc in docs if request.get("SourceArn") in (None, doc["Source"]["SourceArn"])]
    docs = paging.within(docs, request, "Created")
    docs = paging.ordered(docs, request, {"CreationTime": "CreationTime", "Name": "TrialComponentName"})
    shown = [{**_SUMMARY(doc), "TrialComponentSource": doc["Source"]} for doc in docs]
    return paging.page(shown, request, "TrialComponentSummaries", 10)


OPERATIONS: dict[str, Handler] = {"DescribeTrialComponent": _describe, "ListTrialComponents": _list}
