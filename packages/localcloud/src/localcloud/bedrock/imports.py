"""Custom Model Import: import jobs and imported models.

A job copies what lies under an S3 prefix, and fails with the reason where it isn't a model that Bedrock can run.
"""

from __future__ import annotations

import logging
import shutil
import time

from localcloud import paging
from localcloud.bedrock.custom_models import model_directory
from localcloud.bedrock.import_check import ImportFault, examine
from localcloud.bedrock.model_servers import model_servers
from localcloud.bedrock.problems import invalid, not_here
from localcloud.bedrock.resources import Kind, asked, check_quota, check_role, check_tags, listed, new_id
from localcloud.context import Cloud, Context, Handler, Request, Response
from localcloud.errors import AwsError
from localcloud.jobs.supervisor import Control, supervisor
from localcloud.jobs.transfer import TransferError, fetch_prefix, split_uri
from localcloud.store import Document

_LOG = logging.getLogger("localcloud.bedrock")
IMPORT_JOBS = Kind("bedrock-import-job", "jobArn", "jobName", "model import job")
IMPORTED = Kind("bedrock-imported-model", "modelArn", "modelName", "imported model")
_MOST_JOBS, _MOST_MODELS = 1, 3
"""Documentation page "Amazon Bedrock endpoints and quotas": concurrent import jobs, imported models."""
_REGIONS = ("eu-central-1", "us-east-1", "us-east-2", "us-west-2")


def create(ctx: Context, request: Request) -> Response:
    repeated = IMPORT_JOBS.repeated(ctx, request)
    if repeated is not None:
        return {"jobArn": repeated["jobArn"]}
    if ctx.region not in _REGIONS:
        raise invalid(f"Custom Model Import is available in {', '.join(_REGIONS)}, not in {ctx.region}.")
    source = request["modelDataSource"].get("s3DataSource")
    if source is None:
        raise not_here("bedrock:CreateModelImportJob from another source than S3")
    check_tags("", request.get("jobTags"))
    check_tags("", request.get("importedModelTags"))
    check_role(ctx, request["roleArn"])
    _check_prefix(ctx, source["s3Uri"])
    now = time.time()
    doc: Document = {
        "jobArn": ctx.arn(f"model-import-job/{new_id()}", "bedrock"),
        "jobName": request["jobName"],
        "importedModelName": request["importedModelName"],
        "roleArn": request["roleArn"],
        "modelDataSource": request["modelDataSource"],
        "vpcConfig": request.get("vpcConfig"),
        "importedModelKmsKeyArn": request.get("importedModelKmsKeyId"),
        "status": "InProgress",
        "creationTime": now,
        "lastModifiedTime": now,
        "_asked": asked(request),
        "_tags": request.get("importedModelTags"),
    }
    name = request["importedModelName"]
    with ctx.cloud.store.transaction():
        running = any(
            one["importedModelName"] == name and one["status"] == "InProgress" for one in IMPORT_JOBS.all(ctx)
        )
        if running or IMPORTED.sought(ctx, name) is not None:
            raise IMPORTED.name_taken(name)
        under_way = sum(one["status"] == "InProgress" for one in IMPORT_JOBS.all(ctx))
        check_quota(under_way, _MOST_JOBS, "model import jobs in progress")
        check_quota(len(IMPORTED.all(ctx)), _MOST_MODELS, "imported models")
        IMPORT_JOBS.create(ctx, doc, request.get("jobTags"))
    _submit(ctx, doc)
    return {"jobArn": doc["jobArn"]}


def get_job(ctx: Context, request: Request) -> Response:
    return IMPORT_JOBS.find(ctx, request["jobIdentifier"])


def list_jobs(ctx: Context, request: Request) -> Response:
    summary = paging.summary(
        *("jobArn", "jobName", "status", "lastModifiedTime", "creationTime", "endTime", "importedModelArn"),
        "importedModelName",
    )
    docs = IMPORT_JOBS.all(ctx)
    return listed(docs, request, "modelImportJobSummaries", summary, IMPORT_JOBS, equals={"statusEquals": "status"})


def get_model(ctx: Context, request: Request) -> Response:
    return IMPORTED.find(ctx, request["modelIdentifier"])


def list_models(ctx: Context, request: Request) -> Response:
    summary = paging.summary("modelArn", "modelName", "creationTime", "instructSupported", "modelArchitecture")
    return listed(IMPORTED.all(ctx), request, "modelSummaries", summary, IMPORTED)


def delete_model(ctx: Context, request: Request) -> Response:
    doc = IMPORTED.find(ctx, request["modelIdentifier"])
    IMPORTED.delete(ctx, doc)
    directory = model_directory(ctx.cloud, doc["modelArn"])
    model_servers(ctx.cloud).forget(directory)
    shutil.rmtree(directory, ignore_errors=True)
    return {}


def resume(cloud: Cloud) -> None:
    """After a restart: imports that had not ended begin again."""
    for account, region, _, doc in cloud.store.scan(IMPORT_JOBS.kind):
        if doc["status"] == "InProgress":
            _submit(Context(account, region, cloud), doc)


def _submit(ctx: Context, doc: Document) -> None:
    supervisor(ctx.cloud).submit(
        (IMPORT_JOBS.kind, ctx.account, ctx.region, doc["jobArn"]), lambda control: _run(ctx, doc, control)
    )


def _run(ctx: Context, doc: Document, control: Control) -> None:
    arn = ctx.arn(f"imported-model/{new_id()}", "bedrock")
    directory = model_directory(ctx.cloud, arn)
    try:
        fetch_prefix(ctx, doc["modelDataSource"]["s3DataSource"]["s3Uri"], directory)
        control.check()
        found = examine(directory, ctx.region)
        model: Document = {key: doc[key] for key in ("jobName", "jobArn", "modelDataSource")} | {
            "modelArn": arn,
            "modelName": doc["importedModelName"],
            "creationTime": time.time(),
            "modelArchitecture": found.architecture,
            "modelKmsKeyArn": doc.get("importedModelKmsKeyArn"),
            "instructSupported": found.converses,
            "_positions": found.positions,
        }
        IMPORTED.create(ctx, model, doc.get("_tags"))
        _finish(ctx, doc, {"status": "Completed", "importedModelArn": arn})
    except (ImportFault, TransferError, AwsError, OSError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        message = str(error).removeprefix("ClientError: ")[:2048]
        _LOG.warning("bedrock import %s failed: %s", doc["jobName"], message)
        _finish(ctx, doc, {"status": "Failed", "failureMessage": message})


def _finish(ctx: Context, doc: Document, members: Document) -> None:
    now = time.time()
    IMPORT_JOBS.change(ctx, doc, lambda kept: kept.update(members, endTime=now, lastModifiedTime=now))


def _check_prefix(ctx: Context, uri: str) -> None:
    try:
        found = ctx.cloud.delegate.list_objects(ctx.account, *split_uri(uri))
    except (TransferError, AwsError):
        found = []
    if not found:
        raise invalid(f"Nothing lies under {uri}: check that the bucket and the files exist.")


OPERATIONS: dict[str, Handler] = {
    "CreateModelImportJob": create,
    "GetModelImportJob": get_job,
    "ListModelImportJobs": list_jobs,
    "GetImportedModel": get_model,
    "ListImportedModels": list_models,
    "DeleteImportedModel": delete_model,
}
