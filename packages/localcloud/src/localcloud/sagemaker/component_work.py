"""What starts, replaces, scales and ends the copies of inference components, step by step with their adapters.

An adapter has one server while its base has copies: whatever changes the base goes on to its adapters, one after the
other, and the base is Updating until the last has followed. Meanwhile none of them takes another change.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from typing import Any

from localcloud import tags
from localcloud.context import Cloud, Context
from localcloud.errors import AwsError
from localcloud.hosting import policy
from localcloud.hosting.component import component_key
from localcloud.hosting.fleet import Fleet
from localcloud.hosting.host import Outcome, host
from localcloud.sagemaker import component_documents as documents
from localcloud.store import Document


def start(ctx: Context, name: str, spec: Document, then: Callable[[str | None], None] = lambda _: None) -> None:
    """Bring up a component from nothing: InService, or Failed with the reason."""

    def done(reason: str | None) -> None:
        def apply(doc: Document) -> None:
            doc["InferenceComponentStatus"] = "Failed" if reason else "InService"
            if reason:
                doc["FailureReason"] = reason
            documents.show(doc, spec, 0 if reason else documents.copies_of(spec))

        documents.change(ctx, name, apply)
        then(reason)

    host(ctx.cloud).create(ctx, component_key(name), spec, done)


def scale(ctx: Context, name: str, spec: Document, count: int) -> None:
    """Bring a base component to so many copies, and its adapters after it."""

    def done(reason: str | None, fleet: Fleet) -> None:
        running = sum(pool.size for pool in fleet.pools.values())

        def apply(doc: Document) -> None:
            documents.set_copies(doc["_fleet"], running)
            fleet.spec = doc["_fleet"]
            documents.show(doc, doc["_fleet"], running)
            if reason:
                doc["FailureReason"] = reason

        documents.change(ctx, name, apply)
        _follow(ctx, _adapters(ctx, name), lambda doc, ready: _scale_adapter(ctx, doc, min(1, running), ready), settle)

    def settle() -> None:
        documents.change(ctx, name, lambda doc: doc.update(InferenceComponentStatus="InService"))

    variant = spec["Variants"][0]["Variant"]["VariantName"]
    host(ctx.cloud).scale(ctx, component_key(name), {variant: count}, done)


def update(ctx: Context, name: str, spec: Document, deployment: dict[str, Any] | None) -> None:
    """Replace a component's copies; the adapters of a base move over to the new files after it."""

    def committed() -> None:
        def apply(doc: Document) -> None:
            doc["_fleet"] = spec
            doc["_asked"] = doc.pop("_next_asked")
            doc.pop("_next", None)

        documents.change(ctx, name, apply)

    def rolling_back(reason: str) -> None:
        def apply(doc: Document) -> None:
            doc["FailureReason"] = reason
            for member in ("_next", "_next_asked"):
                doc.pop(member, None)

        documents.change(ctx, name, apply)

    def ended(reason: str | None, trouble: str | None) -> None:
        def apply(doc: Document) -> None:
            doc.pop("_deployment", None)
            documents.show(doc, doc["_fleet"], documents.copies_of(doc["_fleet"]))

        documents.change(ctx, name, apply)
        adapters = [] if reason else _adapters(ctx, name)
        copies = documents.copies_of(spec)
        lost = f"{reason} Going back failed: {trouble}" if reason and trouble else None
        _follow(ctx, adapters, lambda doc, ready: _move_adapter(ctx, doc, min(1, copies), ready), lambda: settle(lost))

    def settle(lost: str | None) -> None:
        """`lost`: copies of both kinds answer, until the component is deleted."""

        def apply(doc: Document) -> None:
            doc["InferenceComponentStatus"] = "Failed" if lost else "InService"
            if lost:
                doc["FailureReason"] = lost

        documents.change(ctx, name, apply)

    outcome = Outcome(committed, rolling_back, ended)
    host(ctx.cloud).update(ctx, component_key(name), spec, policy.read(in_instances(deployment)), outcome)


def in_instances(deployment: dict[str, Any] | None) -> dict[str, Any] | None:
    """An InferenceComponentDeploymentConfig as an endpoint's: copies are its instances."""
    if not deployment:
        return None
    rolling = dict(deployment["RollingUpdatePolicy"])
    for member in ("MaximumBatchSize", "RollbackMaximumBatchSize"):
        if rolling.get(member, {}).get("Type") == "COPY_COUNT":
            rolling[member] = rolling[member] | {"Type": "INSTANCE_COUNT"}
    return {**deployment, "RollingUpdatePolicy": rolling}


def remove(ctx: Context, name: str) -> None:
    """End a component's copies and forget it."""

    def done() -> None:
        with ctx.cloud.store.transaction():
            ctx.cloud.store.delete(documents.KIND, ctx.account, ctx.region, name)
            tags.drop(ctx, documents.arn_of(ctx, name))

    host(ctx.cloud).remove(ctx, component_key(name), done)


def resume(cloud: Cloud) -> None:
    """After a restart: the copies start again, bases before their adapters; an update begins anew, a deletion ends."""
    shutil.rmtree(cloud.home / "inference-components", ignore_errors=True)
    found = list(cloud.store.scan(documents.KIND))
    alive = {(account, region, name) for account, region, name, doc in found if _lives(doc)}
    for account, region, name, doc in found:
        base = doc["Specification"].get("BaseInferenceComponentName", name)
        if _lives(doc) and doc["InferenceComponentStatus"] != "Creating" and (account, region, base) in alive:
            # Adapters too, although they start only after their base: nothing answers for them until then.
            _updating(Context(account, region, cloud), name)
    for account, region, name, doc in found:
        ctx = Context(account, region, cloud)
        if doc["InferenceComponentStatus"] == "Deleting":
            remove(ctx, name)
        elif _lives(doc) and not doc["_fleet"].get("Base"):
            _come_back(ctx, name, doc)


def _lives(doc: Document) -> bool:
    return doc["InferenceComponentStatus"] not in ("Deleting", "Failed")


def _updating(ctx: Context, name: str) -> None:
    documents.change(ctx, name, lambda found: found.update(InferenceComponentStatus="Updating"))


def _come_back(ctx: Context, name: str, doc: Document, then: Callable[[], None] = lambda: None) -> None:
    if doc["InferenceComponentStatus"] != "Creating":
        _updating(ctx, name)

    def done(reason: str | None) -> None:
        adapters = [] if doc["_fleet"].get("Base") else documents.adapters_of(ctx, name)
        waiting = [item for item in adapters if _lives(item)]
        bring(waiting, reason)

    def bring(waiting: list[Document], reason: str | None) -> None:
        """The adapters one after the other, then the update that was under way."""
        if waiting:
            adapter = waiting[0]
            documents.set_copies(adapter["_fleet"], min(1, documents.copies_of(doc["_fleet"])))
            _come_back(ctx, adapter["InferenceComponentName"], adapter, lambda: bring(waiting[1:], reason))
            return
        if doc.get("_next") and not reason:
            _updating(ctx, name)
            update(ctx, name, doc["_next"], doc.get("_deployment"))
        then()

    start(ctx, name, doc["_fleet"], done)


def _adapters(ctx: Context, base: str) -> list[Document]:
    return [doc for doc in documents.adapters_of(ctx, base) if doc["InferenceComponentStatus"] == "InService"]


Follow = Callable[[Document, Callable[[], None]], None]


def _follow(ctx: Context, adapters: list[Document], one: Follow, then: Callable[[], None]) -> None:
    """`one` adapter after the other, `then` the rest."""
    if not adapters:
        then()
        return

    def mark(doc: Document) -> None:
        if doc["InferenceComponentStatus"] == "InService":
            doc["InferenceComponentStatus"] = "Updating"

    doc = None
    with contextlib.suppress(AwsError):
        doc = documents.change(ctx, adapters[0]["InferenceComponentName"], mark)
    if doc is None or doc["InferenceComponentStatus"] != "Updating":
        # It was deleted meanwhile.
        _follow(ctx, adapters[1:], one, then)
    else:
        one(doc, lambda: _follow(ctx, adapters[1:], one, then))


def _scale_adapter(ctx: Context, doc: Document, count: int, ready: Callable[[], None]) -> None:
    def done(reason: str | None, fleet: Fleet) -> None:
        def apply(found: Document) -> None:
            documents.set_copies(found["_fleet"], sum(pool.size for pool in fleet.pools.values()))
            fleet.spec = found["_fleet"]

        _settle_adapter(ctx, doc, reason, apply)
        ready()

    variant = doc["_fleet"]["Variants"][0]["Variant"]["VariantName"]
    host(ctx.cloud).scale(ctx, component_key(doc["InferenceComponentName"]), {variant: count}, done)


def _move_adapter(ctx: Context, doc: Document, count: int, ready: Callable[[], None]) -> None:
    """The adapter over the base's new files; when it doesn't start there, it stays over the old ones."""
    variant = doc["_fleet"]["Variants"][0]["Variant"]
    spec = documents.spec_of(ctx, doc["InferenceComponentName"], variant, doc["_asked"], count)

    def ended(reason: str | None, _: str | None) -> None:
        _settle_adapter(ctx, doc, reason, lambda found: None if reason else found.update(_fleet=spec))
        ready()

    outcome = Outcome(lambda: None, lambda _: None, ended)
    host(ctx.cloud).update(ctx, component_key(doc["InferenceComponentName"]), spec, policy.read(None), outcome)


def _settle_adapter(ctx: Context, doc: Document, reason: str | None, apply: Callable[[Document], None]) -> None:
    def settle(found: Document) -> None:
        apply(found)
        found["InferenceComponentStatus"] = "InService"
        found.pop("FailureReason", None)
        if reason:
            found["FailureReason"] = reason

    documents.change(ctx, doc["InferenceComponentName"], settle)
