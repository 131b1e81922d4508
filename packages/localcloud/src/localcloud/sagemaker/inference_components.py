"""CreateInferenceComponent, UpdateInferenceComponent, UpdateInferenceComponentRuntimeConfig,
DescribeInferenceComponent, ListInferenceComponents, DeleteInferenceComponent.

A base component's copies are model server processes. An adapter component (BaseInferenceComponentName) is a server of
its own over the base's model files, which finds the adapter where SAGEMAKER_ADAPTER_DIR points.
"""

from __future__ import annotations

import time
from typing import Any

from localcloud import paging, tags
from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import AwsError, validation
from localcloud.hosting import policy
from localcloud.hosting.host import host
from localcloud.sagemaker import component_documents as documents
from localcloud.sagemaker import component_work as work
from localcloud.sagemaker import endpoint_updates
from localcloud.store import Document

_SUMMARY = paging.summary(
    "InferenceComponentName",
    "InferenceComponentArn",
    "EndpointName",
    "EndpointArn",
    "VariantName",
    "InferenceComponentStatus",
    "CreationTime",
    "LastModifiedTime",
)


def _create(ctx: Context, request: Request) -> Response:
    name, asked = request["InferenceComponentName"], _specification(request)
    if asked is None:
        raise validation("Specification is required.")
    endpoint = endpoint_updates.find(ctx, request["EndpointName"])
    variant = _variant(endpoint, request.get("VariantName"))
    copies = (request.get("RuntimeConfig") or {}).get("CopyCount")
    documents.check(ctx, endpoint, asked, copies)
    if asked.get("BaseInferenceComponentName"):
        base = documents.find(ctx, asked["BaseInferenceComponentName"])
        if base["InferenceComponentStatus"] != "InService":
            raise validation(
                f'Base inference component "{base["InferenceComponentArn"]}" is '
                f"{base['InferenceComponentStatus']}, not InService."
            )
        copies = min(1, documents.copies_of(base["_fleet"]))
    assert copies is not None
    _check_limit(ctx, endpoint["EndpointName"], name, copies)
    now, arn = time.time(), documents.arn_of(ctx, name)
    spec = documents.spec_of(ctx, name, variant, asked, copies)
    doc: Document = {
        "InferenceComponentName": name,
        "InferenceComponentArn": arn,
        "EndpointName": endpoint["EndpointName"],
        "EndpointArn": endpoint["EndpointArn"],
        "VariantName": variant["VariantName"],
        "CreationTime": now,
        "LastModifiedTime": now,
        "InferenceComponentStatus": "Creating",
        "_asked": asked,
    }
    documents.show(doc, spec, 0)
    with ctx.cloud.store.transaction():
        # It may be gone by now.
        _variant(endpoint_updates.find(ctx, endpoint["EndpointName"]), variant["VariantName"])
        if not ctx.cloud.store.create(documents.KIND, ctx.account, ctx.region, name, doc, any_case=True):
            raise validation(f'Cannot create already existing inference component "{arn}".')
        tags.keep(ctx, arn, request.get("Tags"))
    work.start(ctx, name, spec)
    return {"InferenceComponentArn": arn}


def _specification(request: Request) -> dict[str, Any] | None:
    if request.get("Specifications"):
        raise validation("Specifications is not supported by localcloud; use Specification")
    return request.get("Specification")


def _variant(endpoint: Document, name: str | None) -> dict[str, Any]:
    """The endpoint's variant that is to host a component."""
    if not endpoint_updates.hosts_components(endpoint["_fleet"]):
        raise validation(
            f'Endpoint "{endpoint["EndpointArn"]}" can\'t host inference components: its endpoint configuration has a '
            "ModelName."
        )
    if endpoint["EndpointStatus"] != "InService":
        raise validation(f'Endpoint "{endpoint["EndpointArn"]}" is {endpoint["EndpointStatus"]}, not InService.')
    variants: list[dict[str, Any]] = [item["Variant"] for item in endpoint["_fleet"]["Variants"]]
    found = [item for item in variants if name in (None, item["VariantName"])]
    if name is None and len(variants) > 1:
        raise validation("VariantName is required: the endpoint has several variants.")
    if not found:
        raise validation(f'Endpoint "{endpoint["EndpointArn"]}" has no variant {name}.')
    return found[0]


def _check_limit(ctx: Context, endpoint: str, name: str, copies: int) -> None:
    """ResourceLimitExceeded when an endpoint would have more copies, adapters' servers too, than are to run here."""
    limit = host(ctx.cloud).settings.endpoint_instances
    now = {
        doc["InferenceComponentName"]: documents.copies_of(doc["_fleet"])
        for doc in documents.on_endpoint(ctx, endpoint)
    }
    current, wanted = sum(now.values()), sum((now | {name: copies}).values())
    if wanted > max(limit, current):
        raise AwsError(
            "ResourceLimitExceeded",
            f"The account-level service limit 'Maximum number of inference component copies per endpoint' is {limit} "
            f"Copies, with current utilization of {current} Copies and a request delta of {wanted - current} Copies. "
            "Please set LOCALCLOUD_ENDPOINT_INSTANCES to request an increase for this quota.",
        )


def _settled(doc: Document, verb: str) -> None:
    """ValidationException while a component changes; its adapters change with a base."""
    if doc["InferenceComponentStatus"] in ("Creating", "Updating", "Deleting"):
        raise validation(
            f'Cannot {verb} in-progress inference component "{doc["InferenceComponentArn"]}" '
            f"(it is {doc['InferenceComponentStatus']})."
        )


def _must_serve(ctx: Context, doc: Document) -> None:
    _settled(doc, "update")
    if doc["InferenceComponentStatus"] != "InService":
        raise validation(
            f'Cannot update inference component "{doc["InferenceComponentArn"]}": it is '
            f"{doc['InferenceComponentStatus']}. Delete it and create it again."
        )
    base = doc["_fleet"].get("Base")
    for other in [documents.find(ctx, base)] if base else documents.adapters_of(ctx, doc["InferenceComponentName"]):
        _settled(other, "update")


def _update(ctx: Context, request: Request) -> Response:
    name, asked = request["InferenceComponentName"], _specification(request)
    found, deployment = documents.find(ctx, name), request.get("DeploymentConfig")
    runtime = request.get("RuntimeConfig")
    if asked is None:
        if deployment:
            raise validation("DeploymentConfig can't be given without Specification.")
        if runtime is None:
            raise validation("Nothing to update: give Specification or RuntimeConfig.")
        return _scale(ctx, name, runtime["CopyCount"])
    # What a request leaves out stays; a model takes a container's place and the other way round.
    kept = {
        key: value
        for key, value in found["_asked"].items()
        if not (key in ("ModelName", "Container") and ("ModelName" in asked or "Container" in asked))
    }
    asked = kept | asked
    endpoint = endpoint_updates.find(ctx, found["EndpointName"])
    variant = _variant(endpoint, found["VariantName"])
    is_adapter = bool(found["_fleet"].get("Base"))
    if asked.get("BaseInferenceComponentName") != found["_fleet"].get("Base"):
        raise validation("BaseInferenceComponentName can't be updated.")
    now = documents.copies_of(found["_fleet"])
    copies = runtime["CopyCount"] if runtime else now
    documents.check(ctx, endpoint, asked, None if is_adapter and not runtime else copies)
    _check_limit(ctx, found["EndpointName"], name, copies)
    name_of = variant["VariantName"]
    policy.check(ctx, work.in_instances(deployment), {name_of: now}, {name_of: copies})
    spec = documents.spec_of(ctx, name, variant, asked, copies)

    def apply(doc: Document) -> None:
        _must_serve(ctx, doc)
        doc["InferenceComponentStatus"] = "Updating"
        doc.pop("FailureReason", None)
        doc.pop("LastDeploymentConfig", None)
        doc["_next"], doc["_next_asked"], doc["_deployment"] = spec, asked, deployment
        if deployment:
            doc["LastDeploymentConfig"] = deployment
        if not is_adapter:
            doc["RuntimeConfig"]["DesiredCopyCount"] = copies

    doc = documents.change(ctx, name, apply)
    work.update(ctx, name, spec, deployment)
    return {"InferenceComponentArn": doc["InferenceComponentArn"]}


def _update_runtime(ctx: Context, request: Request) -> Response:
    return _scale(ctx, request["InferenceComponentName"], request["DesiredRuntimeConfig"]["CopyCount"])


def _scale(ctx: Context, name: str, count: int) -> Response:
    def apply(doc: Document) -> None:
        if doc["_fleet"].get("Base"):
            raise validation("An adapter inference component has no copies of its own: scale its base.")
        _must_serve(ctx, doc)
        _check_limit(ctx, doc["EndpointName"], name, count)
        if count != documents.copies_of(doc["_fleet"]):
            doc["InferenceComponentStatus"] = "Updating"
            doc.pop("FailureReason", None)
            documents.set_copies(doc["_fleet"], count)
            doc["RuntimeConfig"]["DesiredCopyCount"] = count

    doc = documents.change(ctx, name, apply)
    if doc["InferenceComponentStatus"] == "Updating":
        work.scale(ctx, name, doc["_fleet"], count)
    return {"InferenceComponentArn": doc["InferenceComponentArn"]}


def _describe(ctx: Context, request: Request) -> Response:
    return paging.public(documents.find(ctx, request["InferenceComponentName"]))


def _list(ctx: Context, request: Request) -> Response:
    docs = paging.within(ctx.cloud.store.list(documents.KIND, ctx.account, ctx.region), request)
    docs = paging.within(docs, request, "LastModifiedTime", "LastModifiedTime")
    docs = paging.named(docs, request, "InferenceComponentName")
    for member, wanted in (
        ("InferenceComponentStatus", request.get("StatusEquals")),
        ("EndpointName", request.get("EndpointNameEquals")),
        ("VariantName", request.get("VariantNameEquals")),
    ):
        docs = [doc for doc in docs if wanted in (None, doc[member])]
    fields = {"CreationTime": "CreationTime", "Name": "InferenceComponentName", "Status": "InferenceComponentStatus"}
    shown = [_SUMMARY(doc) for doc in paging.ordered(docs, request, fields)]
    return paging.page(shown, request, "InferenceComponents", 10)


def _delete(ctx: Context, request: Request) -> Response:
    name = request["InferenceComponentName"]

    def apply(doc: Document) -> None:
        _settled(doc, "delete")
        adapters = documents.adapters_of(ctx, name)
        if adapters:
            raise validation(
                f'Cannot delete inference component "{doc["InferenceComponentArn"]}": it is the base of the adapter '
                f"inference components {', '.join(item['InferenceComponentName'] for item in adapters)}. Delete them "
                "first."
            )
        doc["InferenceComponentStatus"] = "Deleting"

    documents.change(ctx, name, apply)
    work.remove(ctx, name)
    return {}


OPERATIONS: dict[str, Handler] = {
    "CreateInferenceComponent": _create,
    "UpdateInferenceComponent": _update,
    "UpdateInferenceComponentRuntimeConfig": _update_runtime,
    "DescribeInferenceComponent": _describe,
    "ListInferenceComponents": _list,
    "DeleteInferenceComponent": _delete,
}
