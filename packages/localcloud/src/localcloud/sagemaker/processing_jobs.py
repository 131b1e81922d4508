"""CreateProcessingJob, DescribeProcessingJob, ListProcessingJobs, StopProcessingJob."""

from __future__ import annotations

import time

from localcloud import images, paging, tags
from localcloud.context import Cloud, Context, Handler, Request, Response
from localcloud.jobs import processing, states
from localcloud.jobs.states import PROCESSING, Job
from localcloud.jobs.supervisor import Control, supervisor
from localcloud.store import Document

_SUMMARY = paging.summary(
    "ProcessingJobName",
    "ProcessingJobArn",
    "CreationTime",
    "ProcessingEndTime",
    "LastModifiedTime",
    "ProcessingJobStatus",
    "FailureReason",
    "ExitMessage",
)


def create(ctx: Context, request: Request) -> Response:
    name = request["ProcessingJobName"]
    now = time.time()
    doc: Document = {key: value for key, value in request.items() if key != "Tags"}
    doc.setdefault("StoppingCondition", {"MaxRuntimeInSeconds": processing.MAX_RUNTIME_SECONDS})
    images.check_processing(doc["AppSpecification"]["ImageUri"])
    processing.check(doc)
    states.check_role(ctx, doc["RoleArn"])
    doc |= {
        "ProcessingJobArn": ctx.arn(f"processing-job/{name}"),
        "ProcessingJobStatus": "InProgress",
        "CreationTime": now,
        "LastModifiedTime": now,
    }
    with ctx.cloud.store.transaction():
        Job(ctx, PROCESSING, name).create(doc)
        tags.keep(ctx, doc["ProcessingJobArn"], request.get("Tags"))
    _submit(ctx, name)
    return {"ProcessingJobArn": doc["ProcessingJobArn"]}


def describe(ctx: Context, request: Request) -> Response:
    return states.public(Job(ctx, PROCESSING, request["ProcessingJobName"]).read())


def list_jobs(ctx: Context, request: Request) -> Response:
    return states.list_jobs(ctx, PROCESSING, request, _SUMMARY)


def stop(ctx: Context, request: Request) -> Response:
    job = Job(ctx, PROCESSING, request["ProcessingJobName"])
    if states.stop(job):
        supervisor(ctx.cloud).stop((PROCESSING.kind, ctx.account, ctx.region, job.name))
    return {}


def resume(cloud: Cloud) -> None:
    """After a restart: jobs that ran are Failed with AWS's internal error, jobs that only waited are queued again."""
    for account, region, name, doc in cloud.store.scan(PROCESSING.kind):
        if doc["ProcessingJobStatus"] in states.ENDED:
            continue
        ctx = Context(account, region, cloud)
        if doc.get("_started"):
            Job(ctx, PROCESSING, name).finish("Failed", FailureReason=states.LOST)
        else:
            _submit(ctx, name)


def _submit(ctx: Context, name: str) -> None:
    def work(control: Control) -> None:
        processing.run(ctx, name, control)

    supervisor(ctx.cloud).submit((PROCESSING.kind, ctx.account, ctx.region, name), work)


OPERATIONS: dict[str, Handler] = {
    "CreateProcessingJob": create,
    "DescribeProcessingJob": describe,
    "ListProcessingJobs": list_jobs,
    "StopProcessingJob": stop,
}
