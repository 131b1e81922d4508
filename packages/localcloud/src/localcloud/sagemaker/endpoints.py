"""CreateEndpoint, UpdateEndpoint, UpdateEndpointWeightsAndCapacities, DescribeEndpoint, ListEndpoints, DeleteEndpoint.

Document kind "endpoint", name = EndpointName, doc = the DescribeEndpoint answer plus

    _fleet        the spec of what is in service (see localcloud.hosting.fleet), with the counts and weights asked for
    _next         during an update: the spec of its successor
    _leaving      at the end of an update: the spec of the fleet that is being ended
    _deployment   during an update: the DeploymentConfig that it follows

An endpoint keeps what it needs of its configuration and models: those can be deleted while it is in service, as on
AWS. Each instance of a variant is a model server process.

After a restart `_fleet` is in service. An update that was under way begins again from its first step, whatever share of
the traffic it had; one that was going back has gone back.
"""

from __future__ import annotations

import time

from localcloud import paging, tags
from localcloud.context import Cloud, Context, Handler, Request, Response
from localcloud.errors import validation
from localcloud.hosting import policy, record
from localcloud.hosting.fleet import counts_of
from localcloud.hosting.host import host
from localcloud.hosting.record import KIND, change
from localcloud.sagemaker import component_documents, endpoint_updates
from localcloud.store import Document

_SUMMARY = paging.summary("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")


def _create(ctx: Context, request: Request) -> Response:
    name = request["EndpointName"]
    spec = endpoint_updates.spec_of(ctx, request["EndpointConfigName"])
    counts = counts_of(spec)
    policy.check(ctx, request.get("DeploymentConfig"), counts, counts)
    endpoint_updates.check_limit(ctx, 0, sum(counts.values()))
    now = time.time()
    arn = ctx.arn(f"endpoint/{name}")
    doc: Document = {
        "EndpointName": name,
        "EndpointArn": arn,
        "EndpointConfigName": request["EndpointConfigName"],
        "EndpointStatus": "Creating",
        "CreationTime": now,
        "LastModifiedTime": now,
        "_fleet": spec,
    }
    if spec.get("AsyncInferenceConfig"):
        doc["AsyncInferenceConfig"] = spec["AsyncInferenceConfig"]
    if request.get("DeploymentConfig"):
        doc["LastDeploymentConfig"] = request["DeploymentConfig"]
    with ctx.cloud.store.transaction():
        if not ctx.cloud.store.create(KIND, ctx.account, ctx.region, name, doc, any_case=True):
            raise validation(f'Cannot create already existing endpoint "{arn}".')
        tags.keep(ctx, arn, request.get("Tags"))
    record.tell(ctx, doc)
    _start(ctx, name, spec)
    return {"EndpointArn": arn}


def _start(ctx: Context, name: str, spec: Document) -> None:
    """Bring up an endpoint's fleet from nothing: InService, or Failed with the reason."""

    def done(reason: str | None) -> None:
        def apply(doc: Document) -> None:
            if doc["EndpointStatus"] == "Deleting":
                return
            endpoint_updates.forget_update(doc)
            doc["EndpointStatus"] = "Failed" if reason else "InService"
            if reason:
                doc["FailureReason"] = reason
            else:
                record.show(doc, spec)

        change(ctx, name, apply)

    host(ctx.cloud).create(ctx, name, spec, done)


def _describe(ctx: Context, request: Request) -> Response:
    return paging.public(endpoint_updates.find(ctx, request["EndpointName"]))


def _list(ctx: Context, request: Request) -> Response:
    docs = paging.within(ctx.cloud.store.list(KIND, ctx.account, ctx.region), request)
    docs = paging.within(docs, request, "LastModifiedTime", "LastModifiedTime")
    docs = paging.named(docs, request, "EndpointName")
    docs = [doc for doc in docs if request.get("StatusEquals") in (None, doc["EndpointStatus"])]
    fields = {"CreationTime": "CreationTime", "Name": "EndpointName", "Status": "EndpointStatus"}
    return paging.page([_SUMMARY(doc) for doc in paging.ordered(docs, request, fields)], request, "Endpoints", 10)


def _delete(ctx: Context, request: Request) -> Response:
    name = request["EndpointName"]

    def apply(doc: Document) -> None:
        if doc["EndpointStatus"] == "Deleting":
            raise validation(f'Cannot delete endpoint "{doc["EndpointArn"]}": it is being deleted already.')
        hosted = component_documents.on_endpoint(ctx, name)
        if hosted:
            raise validation(
                f'Cannot delete endpoint "{doc["EndpointArn"]}" with inference components '
                f"{', '.join(item['InferenceComponentName'] for item in hosted)}. Delete them first."
            )
        doc["EndpointStatus"] = "Deleting"

    if change(ctx, name, apply) is None:
        raise endpoint_updates.absent(ctx, name)
    _remove(ctx, name)
    return {}


def _remove(ctx: Context, name: str) -> None:
    def done() -> None:
        with ctx.cloud.store.transaction():
            ctx.cloud.store.delete(KIND, ctx.account, ctx.region, name)
            tags.drop(ctx, ctx.arn(f"endpoint/{name}"))

    host(ctx.cloud).remove(ctx, name, done)


def resume(cloud: Cloud) -> None:
    """After a restart: start the servers again. An endpoint is Updating until they answer; a deletion is finished."""
    for account, region, name, doc in cloud.store.scan(KIND):
        ctx = Context(account, region, cloud)
        if doc["EndpointStatus"] == "Deleting":
            for spec in ("_fleet", "_next", "_leaving"):
                if doc.get(spec):
                    host(cloud).sweep(ctx, name, doc[spec])
            _remove(ctx, name)
        elif doc["EndpointStatus"] != "Failed":
            if doc.get("_leaving"):
                host(cloud).sweep(ctx, name, doc["_leaving"])
            change(ctx, name, _come_back)
            if doc.get("_next"):
                _go_on(ctx, name, doc)
            else:
                _start(ctx, name, doc["_fleet"])


def _come_back(doc: Document) -> None:
    """What is shown while the servers start again: nothing of how far an update was."""
    if doc["EndpointStatus"] != "Creating":
        doc["EndpointStatus"] = "Updating"
    for variant in doc.get("ProductionVariants") or []:
        variant.pop("VariantStatus", None)
    if doc.get("_next"):
        doc["PendingDeploymentSummary"] = record.pending(doc["_next"])


def _go_on(ctx: Context, name: str, doc: Document) -> None:
    """The old fleet comes back and the update begins anew; when the old one can't start, the new one alone."""

    def done(reason: str | None) -> None:
        if reason:
            _start(ctx, name, doc["_next"])
        else:
            endpoint_updates.deploy(ctx, name, doc["_next"], doc.get("_deployment"))

    host(ctx.cloud).create(ctx, name, doc["_fleet"], done)


OPERATIONS: dict[str, Handler] = {
    "CreateEndpoint": _create,
    **endpoint_updates.OPERATIONS,
    "DescribeEndpoint": _describe,
    "ListEndpoints": _list,
    "DeleteEndpoint": _delete,
}
