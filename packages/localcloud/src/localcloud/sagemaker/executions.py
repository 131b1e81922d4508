"""Pipeline executions: start, describe, list, stop, retry, update; the engine does the work.

Documents, name = `<pipeline>/<id>`: kind "pipeline-execution" is the DescribePipelineExecution answer plus
`_parameters` (typed values by name), `_role` and `_pipeline`; kind "pipeline-execution-definition" has its definition.
Its steps are kept by `localcloud.engine.journal`.
"""

from __future__ import annotations

import secrets
import string
import time
from typing import Any

from localcloud import paging, tokens
from localcloud.context import Cloud, Context, Handler, Request, Response
from localcloud.engine import callbacks, definition, expressions, journal, runner, selection
from localcloud.engine.parameters import resolve_parameters
from localcloud.errors import not_found, validation
from localcloud.sagemaker import pipelines
from localcloud.store import Document

KIND = journal.EXECUTION_KIND
_ALPHABET = string.ascii_lowercase + string.digits


def find(ctx: Context, arn: str) -> Document:
    """An execution by ARN; AwsError ResourceNotFound."""
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, journal.key_of(arn))
    if doc is None or doc["PipelineExecutionArn"] != arn:
        raise not_found(f"Pipeline execution '{arn}' does not exist.")
    return doc


def _start(ctx: Context, request: Request) -> Response:
    pipeline = pipelines.find(ctx, request["PipelineName"])
    name, token = pipelines.key_of(pipeline["PipelineName"]), request.get("ClientRequestToken")
    store, known = ctx.cloud.store, (pipelines.START_KIND, ctx.account, ctx.region, f"{name}/{token}")
    with store.transaction():
        earlier = store.get(*known) if token else None
        if earlier is not None and tokens.repeats(earlier.get("asked"), request, "ClientRequestToken"):
            return {"PipelineExecutionArn": earlier["PipelineExecutionArn"]}
        found = pipelines.version(ctx, pipeline, request.get("PipelineVersionId"))
        parsed = definition.parse(found["PipelineDefinition"])
        chosen = selection.read(ctx, request.get("SelectiveExecutionConfig"), pipeline, parsed)
        values = resolve_parameters(parsed.parameters, request.get("PipelineParameters", []))
        doc = _document(ctx, request, pipeline, found, values)
        if chosen:
            doc |= {"SelectiveExecutionConfig": chosen.config, "_selected": chosen.selected}
        arn = doc["PipelineExecutionArn"]
        doc["PipelineExperimentConfig"] = _experiment(ctx, parsed, doc)
        _keep(ctx, doc, pipeline, found)
        if chosen:
            chosen.take_over(ctx, arn)
        if token:
            asked = tokens.asked(request, "ClientRequestToken")
            store.put(*known, {"PipelineExecutionArn": arn, "asked": asked})
    journal.emit_execution(ctx, doc, "Executing", None)
    runner.launch(ctx, arn)
    return {"PipelineExecutionArn": arn}


def _document(
    ctx: Context, request: Request, pipeline: Document, version: Document, values: dict[str, Any]
) -> Document:
    execution = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    now = time.time()
    display = request.get("PipelineExecutionDisplayName", f"execution-{int(now * 1000)}")
    return {
        "PipelineArn": pipeline["PipelineArn"],
        "PipelineExecutionArn": f"{pipeline['PipelineArn']}/execution/{execution}",
        "PipelineExecutionDisplayName": display,
        "PipelineExecutionDescription": request.get("PipelineExecutionDescription"),
        "PipelineExecutionStatus": "Executing",
        "CreationTime": now,
        "LastModifiedTime": now,
        "CreatedBy": {},
        "LastModifiedBy": {},
        "ParallelismConfiguration": request.get("ParallelismConfiguration") or pipeline.get("ParallelismConfiguration"),
        "PipelineVersionId": version["PipelineVersionId"],
        "_parameters": values,
        "_role": pipeline["RoleArn"],
        "_pipeline": pipeline["PipelineName"],
    }


def _experiment(ctx: Context, parsed: definition.Definition, doc: Document) -> dict[str, Any] | None:
    if not parsed.experiment:
        return None
    try:
        resolved = expressions.resolve(parsed.experiment, runner.scope(ctx, doc, parsed))
    except expressions.ExpressionError as error:
        raise validation(f"PipelineExperimentConfig can't be resolved: {error}") from None
    return {key: value for key, value in resolved.items() if key in ("ExperimentName", "TrialName")}


def _keep(ctx: Context, doc: Document, pipeline: Document, version: Document) -> None:
    store, key = ctx.cloud.store, journal.key_of(doc["PipelineExecutionArn"])
    store.create(KIND, ctx.account, ctx.region, key, doc)
    text = {"PipelineDefinition": version["PipelineDefinition"], "CreationTime": version["CreationTime"]}
    store.put(journal.DEFINITION_KIND, ctx.account, ctx.region, key, text)
    name = pipelines.key_of(pipeline["PipelineName"])
    run = {"LastRunTime": doc["CreationTime"]}
    store.update(pipelines.KIND, ctx.account, ctx.region, name, lambda found: found.update(run))
    last = {"LastExecutionPipelineExecutionArn": doc["PipelineExecutionArn"]}
    number = f"{name}/{version['PipelineVersionId']:09d}"
    store.update(pipelines.VERSION_KIND, ctx.account, ctx.region, number, lambda found: found.update(last))


def _describe(ctx: Context, request: Request) -> Response:
    doc = find(ctx, request["PipelineExecutionArn"])
    return _shown(doc)


def _shown(doc: Document) -> Response:
    return {key: value for key, value in paging.public(doc).items() if value is not None}


def _list(ctx: Context, request: Request) -> Response:
    pipeline = pipelines.find(ctx, request["PipelineName"])
    prefix = pipelines.key_of(pipeline["PipelineName"]) + "/"
    docs = paging.within(ctx.cloud.store.list(KIND, ctx.account, ctx.region, prefix), request, "Created")
    fields = {"CreationTime": "CreationTime", "PipelineExecutionArn": "PipelineExecutionArn"}
    shown = paging.summary(
        "PipelineExecutionArn",
        "StartTime",
        "PipelineExecutionStatus",
        "PipelineExecutionDescription",
        "PipelineExecutionDisplayName",
        "PipelineExecutionFailureReason",
    )
    items = [
        shown({**doc, "StartTime": doc["CreationTime"], "PipelineExecutionFailureReason": doc.get("FailureReason")})
        for doc in paging.ordered(docs, request, fields)
    ]
    return paging.page(items, request, "PipelineExecutionSummaries", 10)


def _list_steps(ctx: Context, request: Request) -> Response:
    if "PipelineExecutionArn" not in request:
        raise validation("PipelineExecutionArn must be given.")
    doc = find(ctx, request["PipelineExecutionArn"])
    docs = journal.steps(ctx, journal.key_of(doc["PipelineExecutionArn"]))
    docs.sort(key=lambda step: (step["StartTime"], step["_order"]), reverse=request.get("SortOrder") != "Ascending")
    return paging.page([_shown(step) for step in docs], request, "PipelineExecutionSteps")


def _list_parameters(ctx: Context, request: Request) -> Response:
    doc = find(ctx, request["PipelineExecutionArn"])
    items = [{"Name": name, "Value": expressions.text_of(value)} for name, value in doc["_parameters"].items()]
    return paging.page(items, request, "PipelineParameters")


def _describe_definition(ctx: Context, request: Request) -> Response:
    doc = find(ctx, request["PipelineExecutionArn"])
    key = journal.key_of(doc["PipelineExecutionArn"])
    return ctx.cloud.store.get(journal.DEFINITION_KIND, ctx.account, ctx.region, key) or {}


def _stop(ctx: Context, request: Request) -> Response:
    arn = request["PipelineExecutionArn"]
    doc = find(ctx, arn)
    if doc["PipelineExecutionStatus"] not in pipelines.RUNNING:
        raise validation(
            f"Pipeline execution {arn} is {doc['PipelineExecutionStatus']}; "
            "only an execution that is Executing can be stopped."
        )
    journal.set_execution(ctx, journal.key_of(arn), {"PipelineExecutionStatus": "Stopping"}, only_from=("Executing",))
    runner.launch(ctx, arn)
    return {"PipelineExecutionArn": arn}


def _retry(ctx: Context, request: Request) -> Response:
    arn = request["PipelineExecutionArn"]
    asked = tokens.asked(request, "ClientRequestToken")
    changes: dict[str, Any] = {"PipelineExecutionStatus": "Executing", "FailureReason": None, "_retried": asked}
    if "ParallelismConfiguration" in request:
        changes["ParallelismConfiguration"] = request["ParallelismConfiguration"]
    with ctx.cloud.store.transaction():
        doc = find(ctx, arn)
        if tokens.repeats(doc.get("_retried"), request, "ClientRequestToken"):
            return {"PipelineExecutionArn": arn}
        if doc["PipelineExecutionStatus"] not in ("Failed", "Stopped"):
            raise validation(
                f"Pipeline execution {arn} is {doc['PipelineExecutionStatus']}; "
                "only an execution that is Failed or Stopped can be retried."
            )
        journal.forget_unsuccessful(ctx, journal.key_of(arn))
        journal.set_execution(ctx, journal.key_of(arn), changes)
    runner.launch(ctx, arn)
    return {"PipelineExecutionArn": arn}


def _update(ctx: Context, request: Request) -> Response:
    arn = request["PipelineExecutionArn"]
    find(ctx, arn)
    changes: dict[str, Any] = {
        key: request[key]
        for key in ("PipelineExecutionDescription", "PipelineExecutionDisplayName", "ParallelismConfiguration")
        if key in request
    }
    found = journal.set_execution(ctx, journal.key_of(arn), changes)
    if found is not None and found["PipelineExecutionStatus"] in pipelines.RUNNING:
        runner.launch(ctx, arn)  # which may start more steps now
    return {"PipelineExecutionArn": arn}


def resume(cloud: Cloud) -> None:
    """Go on with every execution that ran when localcloud ended: finished steps stay, open ones are looked after."""
    for account, region, _, doc in cloud.store.scan(KIND):
        if doc["PipelineExecutionStatus"] in pipelines.RUNNING:
            runner.launch(Context(account, region, cloud), doc["PipelineExecutionArn"])


OPERATIONS: dict[str, Handler] = {
    "StartPipelineExecution": _start,
    "DescribePipelineExecution": _describe,
    "ListPipelineExecutions": _list,
    "ListPipelineExecutionSteps": _list_steps,
    "ListPipelineParametersForExecution": _list_parameters,
    "DescribePipelineDefinitionForExecution": _describe_definition,
    "StopPipelineExecution": _stop,
    "RetryPipelineExecution": _retry,
    "UpdatePipelineExecution": _update,
    "SendPipelineExecutionStepSuccess": callbacks.succeeded,
    "SendPipelineExecutionStepFailure": callbacks.failed,
}
