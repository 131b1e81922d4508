"""QueryLineage: what an entity came from and what came of it, over any number of associations.

raw data -> processing job -> data set -> training job -> model -> package -> deployment -> endpoint
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from localcloud import paging
from localcloud.context import Context, Handler, Request, Response
from localcloud.sagemaker.lineage_entities import Entity, by_arn, edges, everything
from localcloud.store import Document

_DEEPEST = 10
_PAGE = 50


def _query(ctx: Context, request: Request) -> Response:
    """The vertices reached, nearest first, without the one that it starts from.

    With IncludeEdges (the default) also those on the way to the ones that the filters keep, and the associations.
    """
    entities = everything(ctx)
    known = [edge for edge in edges(ctx) if edge["SourceArn"] in entities and edge["DestinationArn"] in entities]
    starts = [by_arn(ctx, arn).arn for arn in request.get("StartArns", [])]
    before = _walk(starts, known, request) if starts else dict.fromkeys(entities)
    filters = request.get("Filters", {})
    kept = [arn for arn in before if arn not in starts and _matches(entities[arn], filters)]
    with_edges = request.get("IncludeEdges", True)
    if with_edges:
        on_the_way = {step for arn in kept for step in _way(arn, before)}
        kept = [arn for arn in before if arn in on_the_way and arn not in starts]
    page = paging.page(kept, request, "Arns", _PAGE)
    answer: Response = {"Vertices": [_vertex(entities[arn]) for arn in page.pop("Arns")], **page}
    if with_edges:
        shown = [vertex["Arn"] for vertex in answer["Vertices"]]
        answer["Edges"] = _between(known, [*starts, *kept], shown)
    return answer


def _walk(starts: list[str], known: list[Document], request: Request) -> dict[str, str | None]:
    """Every ARN reached, in order of distance, with the one before it on the way."""
    direction, deepest = request.get("Direction", "Both"), min(request.get("MaxDepth", _DEEPEST), _DEEPEST)
    next_to: dict[str, list[str]] = {}
    for edge in known:
        if direction != "Ascendants":
            next_to.setdefault(edge["SourceArn"], []).append(edge["DestinationArn"])
        if direction != "Descendants":
            next_to.setdefault(edge["DestinationArn"], []).append(edge["SourceArn"])
    before: dict[str, str | None] = dict.fromkeys(starts)
    border = list(starts)
    for _ in range(deepest):
        reached: list[str] = []
        for arn in border:
            for neighbour in next_to.get(arn, []):
                if neighbour not in before:
                    before[neighbour] = arn
                    reached.append(neighbour)
        border = reached
    return before


def _way(arn: str, before: dict[str, str | None]) -> Iterable[str]:
    step: str | None = arn
    while step is not None:
        yield step
        step = before[step]


def _matches(entity: Entity, filters: dict[str, Any]) -> bool:
    if filters.get("Types") and entity.type not in filters["Types"]:
        return False
    if filters.get("LineageTypes") and entity.lineage not in filters["LineageTypes"]:
        return False
    for moment, name in ((entity.created, "Created"), (entity.modified, "Modified")):
        if moment >= filters.get(f"{name}Before", moment + 1) or moment <= filters.get(f"{name}After", moment - 1):
            return False
    return all(entity.properties.get(name) == value for name, value in filters.get("Properties", {}).items())


def _vertex(entity: Entity) -> Document:
    return {"Arn": entity.arn, "Type": entity.type, "LineageType": entity.lineage}


def _between(known: list[Document], whole: list[str], shown: list[str]) -> list[Document]:
    """The associations among all vertices whose later end is on this page: each comes on one page."""
    place = {arn: number for number, arn in enumerate(whole)}
    members = ("SourceArn", "DestinationArn", "AssociationType")
    found = []
    for edge in known:
        ends = (edge["SourceArn"], edge["DestinationArn"])
        if all(arn in place for arn in ends) and max(ends, key=lambda arn: place[arn]) in shown:
            found.append({name: edge[name] for name in members if name in edge})
    return found


OPERATIONS: dict[str, Handler] = {"QueryLineage": _query}
