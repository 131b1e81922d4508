"""The edges of the lineage graph: AddAssociation, DeleteAssociation, ListAssociations.

Document kind "association", name = SourceArn|DestinationArn.
"""

from __future__ import annotations

import time

from localcloud import paging
from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import not_found, validation
from localcloud.sagemaker.lineage_entities import ASSOCIATION, Entity, by_arn, edges, everything
from localcloud.store import Document


def link(ctx: Context, source: str, destination: str, kind: str | None) -> bool:
    """Associate two entities by their ARNs; False when they are."""
    doc: Document = {"SourceArn": source, "DestinationArn": destination, "CreationTime": time.time(), "CreatedBy": {}}
    if kind:
        doc["AssociationType"] = kind
    return ctx.cloud.store.create(ASSOCIATION, ctx.account, ctx.region, f"{source}|{destination}", doc)


def _add(ctx: Context, request: Request) -> Response:
    source, destination = by_arn(ctx, request["SourceArn"]).arn, by_arn(ctx, request["DestinationArn"]).arn
    if source == destination:
        raise validation("An entity can't be associated with itself.")
    if not link(ctx, source, destination, request.get("AssociationType")):
        raise validation(f"Association already exists: from {source} to {destination}")
    return {"SourceArn": source, "DestinationArn": destination}


def _delete(ctx: Context, request: Request) -> Response:
    source, destination = by_arn(ctx, request["SourceArn"]).arn, by_arn(ctx, request["DestinationArn"]).arn
    if not ctx.cloud.store.delete(ASSOCIATION, ctx.account, ctx.region, f"{source}|{destination}"):
        raise not_found(f"There is no association from {source} to {destination}.")
    return {"SourceArn": source, "DestinationArn": destination}


def _list(ctx: Context, request: Request) -> Response:
    entities = everything(ctx)
    source, destination = request.get("SourceArn"), request.get("DestinationArn")
    for arn in (source, destination):
        if arn is not None:
            by_arn(ctx, arn)
    docs = [
        _summary(edge, entities)
        for edge in edges(ctx)
        if edge["SourceArn"] in entities
        and edge["DestinationArn"] in entities
        and source in (None, edge["SourceArn"])
        and destination in (None, edge["DestinationArn"])
    ]
    for member in ("SourceType", "DestinationType", "AssociationType"):
        docs = [doc for doc in docs if request.get(member) in (None, doc.get(member))]
    docs = paging.within(docs, request, "Created")
    fields = ("CreationTime", "SourceArn", "DestinationArn", "SourceType", "DestinationType")
    docs = paging.ordered(docs, request, {name: name for name in fields})
    return paging.page(docs, request, "AssociationSummaries", 10)


def _summary(edge: Document, entities: dict[str, Entity]) -> Document:
    source, destination = entities[edge["SourceArn"]], entities[edge["DestinationArn"]]
    names = {"SourceName": source.name, "DestinationName": destination.name}
    return {
        **edge,
        "SourceType": source.type,
        "DestinationType": destination.type,
        **{member: name for member, name in names.items() if name},
    }


OPERATIONS: dict[str, Handler] = {"AddAssociation": _add, "DeleteAssociation": _delete, "ListAssociations": _list}
