"""Artifacts, contexts and actions: the vertices of the lineage graph that the API creates, beside trial components.

Document kinds "artifact" (name = a hash of its source), "context" and "action" (name = its name), doc =
the Describe answer. `Entity` is what all four kinds have in common, as associations and QueryLineage show them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from localcloud import paging, tags
from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import not_found, validation
from localcloud.store import Document

TRIAL_COMPONENT, ASSOCIATION = "experiment-trial-component", "association"
"""Further document kinds of the graph: its jobs, its edges."""


@dataclass(frozen=True)
class Kind:
    """What differs between artifacts, contexts and actions."""

    kind: str
    noun: str
    summary: tuple[str, ...]
    changeable: tuple[str, ...]

    @property
    def arn(self) -> str:
        return f"{self.noun}Arn"

    @property
    def name(self) -> str:
        return f"{self.noun}Name"

    @property
    def type(self) -> str:
        return f"{self.noun}Type"


_SHOWN = ("Source", "CreationTime", "LastModifiedTime")
ARTIFACT = Kind("artifact", "Artifact", ("ArtifactArn", "ArtifactName", "ArtifactType", *_SHOWN), ("ArtifactName",))
CONTEXT = Kind("context", "Context", ("ContextArn", "ContextName", "ContextType", *_SHOWN), ("Description",))
ACTION = Kind(
    "action", "Action", ("ActionArn", "ActionName", "ActionType", "Status", *_SHOWN), ("Description", "Status")
)
KINDS = (ARTIFACT, CONTEXT, ACTION)


@dataclass(frozen=True)
class Entity:
    """A vertex: `type` is DataSet, Model, Endpoint, ..., `lineage` one of TrialComponent, Artifact, Context, Action."""

    arn: str
    type: str
    lineage: str
    name: str
    created: float
    modified: float
    properties: dict[str, str]


def entity(kind: Kind, doc: Document) -> Entity:
    return Entity(
        doc[kind.arn],
        doc[kind.type],
        kind.noun,
        doc.get(kind.name, ""),
        doc["CreationTime"],
        doc["LastModifiedTime"],
        doc.get("Properties", {}),
    )


def component_entity(doc: Document) -> Entity:
    """A trial component's type is the kind of job that it stands for."""
    kind = str(doc.get("Source", {}).get("SourceType", "")).removeprefix("SageMaker")
    name = doc["TrialComponentName"]
    times = doc["CreationTime"], doc["LastModifiedTime"]
    return Entity(doc["TrialComponentArn"], kind, "TrialComponent", name, *times, {})


def by_arn(ctx: Context, arn: str) -> Entity:
    """The entity that has an ARN; AwsError ResourceNotFound."""
    prefix, _, name = arn.partition("/")
    kind = prefix.rpartition(":")[2]
    if prefix == ctx.arn(kind):
        doc = ctx.cloud.store.get(kind, ctx.account, ctx.region, name)
        if doc is not None and kind == TRIAL_COMPONENT:
            return component_entity(doc)
        for found in KINDS:
            if doc is not None and kind == found.kind:
                return entity(found, doc)
    raise not_found(f"Lineage entity {arn} does not exist.")


def everything(ctx: Context) -> dict[str, Entity]:
    """Every entity of the caller by its ARN."""
    store = ctx.cloud.store
    found = [entity(kind, doc) for kind in KINDS for doc in store.list(kind.kind, ctx.account, ctx.region)]
    found += [component_entity(doc) for doc in store.list(TRIAL_COMPONENT, ctx.account, ctx.region)]
    return {one.arn: one for one in found}


def edges(ctx: Context) -> list[Document]:
    """All associations of the caller, oldest first: SourceArn, DestinationArn, AssociationType?, CreationTime."""
    return ctx.cloud.store.list(ASSOCIATION, ctx.account, ctx.region)


def artifact_key(source: Document) -> str:
    """An artifact's id: there is one for a source URI (with its source types, where it has such)."""
    text = json.dumps([source["SourceUri"], source.get("SourceTypes") or []], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def ensure(ctx: Context, kind: Kind, members: Document) -> str:
    """Make an entity unless it is there; its ARN. `members` are those of its Create request."""
    key = _key(kind, members)
    ctx.cloud.store.create(kind.kind, ctx.account, ctx.region, key, _document(ctx, kind, key, members))
    return ctx.arn(f"{kind.kind}/{key}")


def change(ctx: Context, kind: Kind, key: str, apply: Callable[[Document], None]) -> Document | None:
    """Change an entity and the time of that; None when it isn't there."""

    def update(doc: Document) -> None:
        apply(doc)
        doc["LastModifiedTime"] = time.time()

    return ctx.cloud.store.update(kind.kind, ctx.account, ctx.region, key, update)


def _key(kind: Kind, members: Document) -> str:
    return artifact_key(members["Source"]) if kind is ARTIFACT else str(members[kind.name])


def _document(ctx: Context, kind: Kind, key: str, members: Document) -> Document:
    now = time.time()
    kept = {name: value for name, value in members.items() if name != "Tags"}
    times = {"CreationTime": now, "LastModifiedTime": now}
    return {**kept, kind.arn: ctx.arn(f"{kind.kind}/{key}"), **times, "CreatedBy": {}, "LastModifiedBy": {}}


def _create(kind: Kind) -> Handler:
    def create(ctx: Context, request: Request) -> Response:
        key = _key(kind, request)
        doc = _document(ctx, kind, key, request)
        with ctx.cloud.store.transaction():
            if not ctx.cloud.store.create(kind.kind, ctx.account, ctx.region, key, doc, any_case=True):
                raise validation(f"{kind.noun} already exists: {doc[kind.arn]}")
            tags.keep(ctx, doc[kind.arn], request.get("Tags"))
        return {kind.arn: doc[kind.arn]}

    return create


def _asked(ctx: Context, kind: Kind, request: Request) -> str:
    """The key of the entity that a request names by ARN, name or source; AwsError ResourceNotFound."""
    if kind is ARTIFACT and not request.get(kind.arn):
        if not request.get("Source"):
            raise validation("ArtifactArn or Source must be given.")
        key = artifact_key(request["Source"])
    else:
        named = str(request[kind.arn if kind is ARTIFACT else kind.name])
        key = by_arn(ctx, named).arn.partition("/")[2] if named.startswith("arn:") else named
    if ctx.cloud.store.get(kind.kind, ctx.account, ctx.region, key) is None:
        raise not_found(f"{kind.noun} {ctx.arn(f'{kind.kind}/{key}')} does not exist.")
    return key


def _describe(kind: Kind) -> Handler:
    def describe(ctx: Context, request: Request) -> Response:
        found = ctx.cloud.store.get(kind.kind, ctx.account, ctx.region, _asked(ctx, kind, request))
        return paging.public(found or {})

    return describe


def _update(kind: Kind) -> Handler:
    def update(ctx: Context, request: Request) -> Response:
        def apply(doc: Document) -> None:
            doc.update({name: request[name] for name in kind.changeable if name in request})
            properties = {**doc.get("Properties", {}), **request.get("Properties", {})}
            gone = request.get("PropertiesToRemove", [])
            doc["Properties"] = {name: value for name, value in properties.items() if name not in gone}

        key = _asked(ctx, kind, request)
        change(ctx, kind, key, apply)
        return {kind.arn: ctx.arn(f"{kind.kind}/{key}")}

    return update


def _delete(kind: Kind) -> Handler:
    def delete(ctx: Context, request: Request) -> Response:
        key = _asked(ctx, kind, request)
        arn = ctx.arn(f"{kind.kind}/{key}")
        with ctx.cloud.store.transaction():
            if any(arn in (edge["SourceArn"], edge["DestinationArn"]) for edge in edges(ctx)):
                raise validation(f"{arn} has associations: delete them first.")
            ctx.cloud.store.delete(kind.kind, ctx.account, ctx.region, key)
            tags.drop(ctx, arn)
        return {kind.arn: arn}

    return delete


def _list(kind: Kind) -> Handler:
    shown = paging.summary(*kind.summary)

    def list_entities(ctx: Context, request: Request) -> Response:
        docs = ctx.cloud.store.list(kind.kind, ctx.account, ctx.region)
        uri, of_type = request.get("SourceUri"), request.get(kind.type)
        docs = [doc for doc in docs if uri in (None, doc["Source"]["SourceUri"]) and of_type in (None, doc[kind.type])]
        docs = paging.within(docs, request, "Created")
        docs = paging.ordered(docs, request, {"CreationTime": "CreationTime", "Name": kind.name})
        return paging.page([shown(doc) for doc in docs], request, f"{kind.noun}Summaries", 10)

    return list_entities


def _operations() -> dict[str, Handler]:
    found: dict[str, Handler] = {}
    for kind in KINDS:
        found[f"Create{kind.noun}"] = _create(kind)
        found[f"Describe{kind.noun}"] = _describe(kind)
        found[f"Update{kind.noun}"] = _update(kind)
        found[f"Delete{kind.noun}"] = _delete(kind)
        found[f"List{kind.noun}s"] = _list(kind)
    return found


OPERATIONS: dict[str, Handler] = _operations()
