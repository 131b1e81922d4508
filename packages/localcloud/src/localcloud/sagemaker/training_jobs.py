"""CreateTrainingJob, DescribeTrainingJob, ListTrainingJobs, StopTrainingJob."""

from __future__ import annotations

import time

from localcloud import images, paging, tags
from localcloud.context import Cloud, Context, Handler, Request, Response
from localcloud.jobs import states, training
from localcloud.jobs.logs import check_metric_definitions
from localcloud.jobs.states import TRAINING, Job, secondary
from localcloud.jobs.supervisor import Control, supervisor
from localcloud.jobs.training_host import CHECKPOINTS
from localcloud.store import Document

_SUMMARY = paging.summary(
    "TrainingJobName",
    "TrainingJobArn",
    "CreationTime",
    "TrainingEndTime",
    "LastModifiedTime",
    "TrainingJobStatus",
    "SecondaryStatus",
)


def create(ctx: Context, request: Request) -> Response:
    name = request["TrainingJobName"]
    now = time.time()
    doc: Document = {key: value for key, value in request.items() if key != "Tags"}
    doc.setdefault("StoppingCondition", {}).setdefault("MaxRuntimeInSeconds", training.MAX_RUNTIME_SECONDS)
    for flag in ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining"):
        doc.setdefault(flag, False)
    if doc.get("CheckpointConfig"):
        doc["CheckpointConfig"] = {"LocalPath": CHECKPOINTS, **doc["CheckpointConfig"]}
    images.check_training(doc["AlgorithmSpecification"])
    training.check(ctx, doc)
    states.check_role(ctx, doc["RoleArn"])
    training.check_inputs(ctx, doc)
    check_metric_definitions(doc["AlgorithmSpecification"].get("MetricDefinitions") or [])
    doc |= {
        "TrainingJobArn": ctx.arn(f"training-job/{name}"),
        "TrainingJobStatus": "InProgress",
        "CreationTime": now,
        "LastModifiedTime": now,
    }
    secondary(doc, "Starting", "Preparing the instances for training")
    with ctx.cloud.store.transaction():
        Job(ctx, TRAINING, name).create(doc)
        tags.keep(ctx, doc["TrainingJobArn"], request.get("Tags"))
    _submit(ctx, name)
    return {"TrainingJobArn": doc["TrainingJobArn"]}


def describe(ctx: Context, request: Request) -> Response:
    doc = states.public(Job(ctx, TRAINING, request["TrainingJobName"]).read())
    # AWS always answers these; a running job has no artifact yet.
    doc.setdefault("ModelArtifacts", {"S3ModelArtifacts": ""})
    return doc


def list_jobs(ctx: Context, request: Request) -> Response:
    return states.list_jobs(ctx, TRAINING, request, _SUMMARY)


def stop(ctx: Context, request: Request) -> Response:
    job = Job(ctx, TRAINING, request["TrainingJobName"])
    if states.stop(job):
        supervisor(ctx.cloud).stop((TRAINING.kind, ctx.account, ctx.region, job.name))
    return {}


def resume(cloud: Cloud) -> None:
    """After a restart: jobs that ran are Failed with AWS's internal error, jobs that only waited are queued again."""
    for account, region, name, doc in cloud.store.scan(TRAINING.kind):
        if doc["TrainingJobStatus"] in states.ENDED:
            continue
        ctx = Context(account, region, cloud)
        job = Job(ctx, TRAINING, name)
        if not doc.get("_started"):
            _submit(ctx, name)
            continue
        job.change(lambda changed: secondary(changed, "Failed", "Training job failed"))
        job.finish("Failed", FailureReason=states.LOST)


def _submit(ctx: Context, name: str) -> None:
    def work(control: Control) -> None:
        training.run(ctx, name, control)

    supervisor(ctx.cloud).submit((TRAINING.kind, ctx.account, ctx.region, name), work)


OPERATIONS: dict[str, Handler] = {
    "CreateTrainingJob": create,
    "DescribeTrainingJob": describe,
    "ListTrainingJobs": list_jobs,
    "StopTrainingJob": stop,
}
