"""CreateModelCustomizationJob, GetModelCustomizationJob, ListModelCustomizationJobs, StopModelCustomizationJob."""

from __future__ import annotations

import time

from localcloud import paging
from localcloud.bedrock import catalogue, customization, family_rules, job_record
from localcloud.bedrock.catalogue import Offer
from localcloud.bedrock.configuration import configuration
from localcloud.bedrock.custom_models import MODELS
from localcloud.bedrock.job_record import JOBS
from localcloud.bedrock.problems import conflict, invalid, not_here
from localcloud.bedrock.resources import asked, check_quota, check_role, check_tags, listed, new_id
from localcloud.context import Cloud, Context, Handler, Request, Response
from localcloud.errors import AwsError
from localcloud.jobs.supervisor import Control, supervisor
from localcloud.jobs.transfer import TransferError, split_uri
from localcloud.store import Document

_RUN_HERE = ("FINE_TUNING", "CONTINUED_PRE_TRAINING")
_STORED = ("jobName", "roleArn", "clientRequestToken", "trainingDataConfig", "outputDataConfig", "vpcConfig")
_MOST_JOBS, _MOST_MODELS = 10, 100
"""Quotas "Scheduled customization jobs" and "Custom models per account"."""
_VALIDATORS = 1
"""Validation files that one job can have here: no family is known to take more."""


def create(ctx: Context, request: Request) -> Response:
    repeated = JOBS.repeated(ctx, request)
    if repeated is not None:
        return {"jobArn": repeated["jobArn"]}
    offer = _check(ctx, request)
    configuration().trainer()
    now = time.time()
    doc: Document = {key: request[key] for key in _STORED if key in request} | {
        "jobArn": ctx.arn(f"model-customization-job/{offer.id}/{new_id()}", "bedrock"),
        "outputModelName": request["customModelName"],
        "baseModelArn": offer.arn(ctx.region),
        "customizationType": request.get("customizationType", "FINE_TUNING"),
        "hyperParameters": request.get("hyperParameters") or {},
        "validationDataConfig": request.get("validationDataConfig") or {"validators": []},
        "outputModelKmsKeyArn": request.get("customModelKmsKeyId"),
        "status": "InProgress",
        "statusDetails": job_record.phases(),
        "creationTime": now,
        "lastModifiedTime": now,
        "_asked": asked(request),
        "_tags": request.get("customModelTags"),
        "_family": offer.model.family,
        "_base": offer.id,
    }
    with ctx.cloud.store.transaction():
        _check_model_name(ctx, request["customModelName"])
        under_way = sum(one["status"] not in job_record.ENDED for one in JOBS.all(ctx))
        check_quota(under_way, _MOST_JOBS, "customization jobs in progress")
        check_quota(len(MODELS.all(ctx)), _MOST_MODELS, "custom models")
        JOBS.create(ctx, doc, request.get("jobTags"))
    job_record.tell(ctx, doc)
    _submit(ctx, doc)
    return {"jobArn": doc["jobArn"]}


def get(ctx: Context, request: Request) -> Response:
    return JOBS.find(ctx, request["jobIdentifier"])


def list_jobs(ctx: Context, request: Request) -> Response:
    summary = paging.summary(
        *("jobArn", "baseModelArn", "jobName", "status", "statusDetails", "lastModifiedTime", "creationTime"),
        *("endTime", "customModelArn", "customModelName", "customizationType"),
    )

    def named(doc: Document) -> Document:
        more = {"customModelName": doc["outputModelName"], "customModelArn": doc.get("outputModelArn")}
        return summary({**doc, **more})

    docs = JOBS.all(ctx)
    return listed(docs, request, "modelCustomizationJobSummaries", named, JOBS, equals={"statusEquals": "status"})


def stop(ctx: Context, request: Request) -> Response:
    doc = JOBS.find(ctx, request["jobIdentifier"])

    def change(kept: Document) -> None:
        if kept["status"] in job_record.ENDED:
            raise conflict(f"The job {kept['jobName']} can't be stopped: it is {kept['status']}.")
        kept |= {"status": "Stopping", "lastModifiedTime": time.time()}

    changed = JOBS.change(ctx, doc, change)
    if doc["status"] != "Stopping":
        job_record.tell(ctx, changed)
    supervisor(ctx.cloud).stop((JOBS.kind, ctx.account, ctx.region, doc["jobArn"]))
    return {}


def resume(cloud: Cloud) -> None:
    """After a restart: a job that had not ended begins again, one that was to stop has stopped."""
    for account, region, _, doc in cloud.store.scan(JOBS.kind):
        if doc["status"] not in job_record.ENDED:
            _submit(Context(account, region, cloud), doc)


def _submit(ctx: Context, doc: Document) -> None:
    def work(control: Control) -> None:
        customization.run(ctx, doc["jobArn"], control)

    supervisor(ctx.cloud).submit((JOBS.kind, ctx.account, ctx.region, doc["jobArn"]), work)


def _check(ctx: Context, request: Request) -> Offer:
    """The base model; AwsError for what Bedrock refuses, and for what localcloud can't do."""
    kind = request.get("customizationType", "FINE_TUNING")
    if kind not in _RUN_HERE:
        raise not_here(f"bedrock:CreateModelCustomizationJob with customizationType {kind}")
    if request.get("customizationConfig"):
        raise not_here("bedrock:CreateModelCustomizationJob with customizationConfig")
    offer = _base(ctx, request["baseModelIdentifier"], kind)
    family_rules.check_hyperparameters(offer.model.family, request.get("hyperParameters") or {})
    training = request["trainingDataConfig"]
    if training.get("invocationLogsConfig"):
        raise not_here("bedrock:CreateModelCustomizationJob with invocationLogsConfig")
    if not training.get("s3Uri"):
        raise invalid("trainingDataConfig needs an s3Uri.")
    validators = (request.get("validationDataConfig") or {}).get("validators") or []
    if len(validators) > _VALIDATORS:
        raise invalid(f"validationDataConfig has {len(validators)} validators; {_VALIDATORS} is supported.")
    for uri in (training["s3Uri"], *(validator["s3Uri"] for validator in validators)):
        _check_object(ctx, uri)
    _check_bucket(ctx, request["outputDataConfig"]["s3Uri"])
    check_role(ctx, request["roleArn"])
    check_tags("", request.get("jobTags"))
    check_tags("", request.get("customModelTags"))
    return offer


def _base(ctx: Context, identifier: str, kind: str) -> Offer:
    if ":custom-model/" in identifier:
        raise not_here("bedrock:CreateModelCustomizationJob with a custom model as its base")
    today = configuration().today()
    offer = catalogue.find(identifier, ctx.region, today)
    if kind not in offer.customizations(ctx.region, today):
        model = offer.model
        reason = f"it takes {', '.join(offer.customizations(ctx.region, today)) or 'no customization'} in {ctx.region}"
        if model.tuned and offer.id != model.tuned and ctx.region in model.tuned_in:
            reason = f"name it by its contextual id {model.tuned}"
        elif model.status(today) == "LEGACY":
            reason = "it is in the Legacy state, in which no customization job can be created"
        raise invalid(f"The base model {offer.id} can't be customized by {kind}: {reason}.")
    return offer


def _check_object(ctx: Context, uri: str) -> None:
    try:
        bucket, key = split_uri(uri)
        ctx.cloud.delegate.read_object(ctx.account, bucket, key)
    except (TransferError, AwsError):
        raise invalid(f"Could not read {uri}: check that the object exists and that the role may read it.") from None


def _check_bucket(ctx: Context, uri: str) -> None:
    try:
        ctx.cloud.delegate.list_objects(ctx.account, split_uri(uri)[0], "no-such-prefix/")
    except (TransferError, AwsError):
        raise invalid(f"Could not write to {uri}: check that the bucket exists and that the role may write.") from None


def _check_model_name(ctx: Context, name: str) -> None:
    """ConflictException for a name that a model has, or that a job under way will give."""
    running = any(
        doc["outputModelName"] == name and doc["status"] not in ("Failed", "Stopped", "Completed")
        for doc in JOBS.all(ctx)
    )
    if running or MODELS.sought(ctx, name) is not None:
        raise MODELS.name_taken(name)


OPERATIONS: dict[str, Handler] = {
    "CreateModelCustomizationJob": create,
    "GetModelCustomizationJob": get,
    "ListModelCustomizationJobs": list_jobs,
    "StopModelCustomizationJob": stop,
}
