"""UpdateEndpoint and UpdateEndpointWeightsAndCapacities, over the documents of localcloud.sagemaker.endpoints."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from localcloud.context import Context, Handler, Request, Response
from localcloud.errors import AwsError, validation
from localcloud.hosting import policy, record
from localcloud.hosting.fleet import Fleet, counts_of
from localcloud.hosting.host import Outcome, host
from localcloud.hosting.record import KIND, change
from localcloud.sagemaker import endpoint_configs
from localcloud.store import Document


def spec_of(ctx: Context, config_name: str) -> Document:
    """What a fleet needs of an endpoint configuration and its models."""
    config = endpoint_configs.find(ctx, config_name)
    spec: Document = {"Id": uuid.uuid4().hex[:12], "EndpointConfigName": config_name, "Variants": []}
    for variant in config["ProductionVariants"]:
        item: Document = {"Variant": variant}
        if variant.get("ModelName"):
            item["Model"] = endpoint_configs.model_of(ctx, variant["ModelName"])
        spec["Variants"].append(item)
    for member in ("DataCaptureConfig", "AsyncInferenceConfig"):
        if config.get(member):
            spec[member] = config[member]
    return spec


def check_limit(ctx: Context, current: int, wanted: int) -> None:
    """ResourceLimitExceeded when an endpoint would have more instances than this machine is to run."""
    limit = host(ctx.cloud).settings.endpoint_instances
    if wanted > max(limit, current):
        raise AwsError(
            "ResourceLimitExceeded",
            f"The account-level service limit 'Maximum number of instances per endpoint' is {limit} Instances, with "
            f"current utilization of {current} Instances and a request delta of {wanted - current} Instances. Please "
            "set LOCALCLOUD_ENDPOINT_INSTANCES to request an increase for this quota.",
        )


def find(ctx: Context, name: str) -> Document:
    """An endpoint's document; ValidationException as AWS when it is absent."""
    doc = ctx.cloud.store.get(KIND, ctx.account, ctx.region, name)
    if doc is None:
        raise absent(ctx, name)
    return doc


def absent(ctx: Context, name: str) -> Exception:
    """What AWS answers for an endpoint that isn't there."""
    return validation(f'Could not find endpoint "{ctx.arn(f"endpoint/{name}")}".')


def _update(ctx: Context, request: Request) -> Response:
    name = request["EndpointName"]
    spec = spec_of(ctx, request["EndpointConfigName"])
    found = find(ctx, name)
    _must_serve(found, "update")
    _retain(found, spec, request)
    counts, now = counts_of(spec), counts_of(found["_fleet"])
    deployment = request.get("DeploymentConfig")
    if not deployment and request.get("RetainDeploymentConfig"):
        deployment = found.get("LastDeploymentConfig")
    _check_hosting(found["_fleet"], spec, deployment)
    policy.check(ctx, deployment, now, counts)
    check_limit(ctx, sum(now.values()), sum(counts.values()))

    def apply(doc: Document) -> None:
        _must_serve(doc, "update")
        _retain(doc, spec, request)
        doc["EndpointStatus"] = "Updating"
        doc.pop("FailureReason", None)
        doc["_next"], doc["_deployment"] = spec, deployment
        doc["PendingDeploymentSummary"] = record.pending(spec)
        doc.pop("LastDeploymentConfig", None)
        if deployment:
            doc["LastDeploymentConfig"] = deployment

    doc = change(ctx, name, apply)
    if doc is None:
        raise absent(ctx, name)
    deploy(ctx, name, spec, deployment)
    return {"EndpointArn": doc["EndpointArn"]}


def _retain(doc: Document, spec: Document, request: Request) -> None:
    """RetainAllVariantProperties: weights, counts and capture stay as they are now, except those excluded."""
    if not request.get("RetainAllVariantProperties"):
        return
    excluded = {item["VariantPropertyType"] for item in request.get("ExcludeRetainedVariantProperties") or []}
    now = {item["Variant"]["VariantName"]: item["Variant"] for item in doc["_fleet"]["Variants"]}
    for item in spec["Variants"]:
        current = now.get(item["Variant"]["VariantName"])
        if current and "DesiredWeight" not in excluded:
            item["Variant"]["InitialVariantWeight"] = current["InitialVariantWeight"]
        if (
            current
            and "DesiredInstanceCount" not in excluded
            and "InitialInstanceCount" in current.keys() & item["Variant"].keys()
        ):
            item["Variant"]["InitialInstanceCount"] = current["InitialInstanceCount"]
    if "DataCaptureConfig" not in excluded and doc["_fleet"].get("DataCaptureConfig"):
        spec["DataCaptureConfig"] = doc["_fleet"]["DataCaptureConfig"]


def hosts_components(spec: Document) -> bool:
    """Whether an endpoint's variants have no model of their own."""
    return any("Model" not in item for item in spec["Variants"])


def _check_hosting(old: Document, new: Document, deployment: dict[str, Any] | None) -> None:
    """Inference components stay where they are: only what surrounds them can be updated."""
    if hosts_components(old) != hosts_components(new):
        raise validation("An endpoint can't be updated between variants with ModelName and inference components.")
    if not hosts_components(old):
        return
    if deployment:
        raise validation(
            "DeploymentConfig is not supported by localcloud for endpoints with inference components; deploy with "
            "UpdateInferenceComponent"
        )
    names = [[item["Variant"]["VariantName"] for item in spec["Variants"]] for spec in (old, new)]
    if set(names[0]) != set(names[1]):
        raise validation(f"The variants of an endpoint with inference components must stay {sorted(names[0])}.")


def deploy(ctx: Context, name: str, spec: Document, deployment: dict[str, Any] | None) -> None:
    """Replace what is in service. Whatever goes wrong, the old fleet takes over again and FailureReason says why."""

    def committed() -> None:
        def apply(doc: Document) -> None:
            doc["_leaving"], doc["_fleet"] = doc["_fleet"], spec
            doc.pop("_next", None)

        change(ctx, name, apply)

    def rolling_back(reason: str) -> None:
        def apply(doc: Document) -> None:
            if doc["EndpointStatus"] == "Updating":
                doc["EndpointStatus"], doc["FailureReason"] = "RollingBack", reason
                doc["_leaving"] = doc.pop("_next")

        change(ctx, name, apply)

    def ended(reason: str | None, trouble: str | None) -> None:
        def apply(doc: Document) -> None:
            forget_update(doc)
            if doc["EndpointStatus"] == "Deleting":
                return
            record.show(doc, doc["_fleet"])
            doc["EndpointStatus"] = "InService"
            if reason and trouble:
                doc["EndpointStatus"] = "UpdateRollbackFailed"
                doc["FailureReason"] = f"{reason} Going back failed: {trouble}"

        change(ctx, name, apply)

    def stage(where: str, status: str, text: Mapping[str, str], active: Mapping[str, int]) -> None:
        record.stage(ctx, name, where, status, text, active)

    host(ctx.cloud).update(ctx, name, spec, policy.read(deployment), Outcome(committed, rolling_back, ended, stage))


def forget_update(doc: Document) -> None:
    """No update is under way any more."""
    for member in ("_next", "_leaving", "_deployment", "PendingDeploymentSummary"):
        doc.pop(member, None)


def _update_weights(ctx: Context, request: Request) -> Response:
    """New weights count at once; with new instance counts the endpoint is Updating until so many run."""
    name = request["EndpointName"]
    wanted = {item["VariantName"]: item for item in request["DesiredWeightsAndCapacities"]}
    counts: dict[str, int] = {}

    def apply(doc: Document) -> None:
        _must_serve(doc, "update")
        counts.update(_new_counts(ctx, doc, wanted))
        for item in doc["_fleet"]["Variants"]:
            variant = item["Variant"]
            asked = wanted.get(variant["VariantName"], {})
            if "DesiredWeight" in asked:
                variant["InitialVariantWeight"] = asked["DesiredWeight"]
            if variant["VariantName"] in counts:
                variant["InitialInstanceCount"] = counts[variant["VariantName"]]
        for shown in doc["ProductionVariants"]:
            asked = wanted.get(shown["VariantName"], {})
            if "DesiredWeight" in asked:
                shown["CurrentWeight"] = shown["DesiredWeight"] = asked["DesiredWeight"]
            if shown["VariantName"] in counts:
                shown["DesiredInstanceCount"] = counts[shown["VariantName"]]
        if counts:
            doc["EndpointStatus"] = "Updating"
            doc.pop("FailureReason", None)

    doc = change(ctx, name, apply)
    if doc is None:
        raise absent(ctx, name)
    fleet = host(ctx.cloud).serving(ctx, name)
    if fleet is not None:
        fleet.set_weights({key: item["DesiredWeight"] for key, item in wanted.items() if "DesiredWeight" in item})
    if counts:
        _scale(ctx, name, doc, counts)
    return {"EndpointArn": doc["EndpointArn"]}


def _new_counts(ctx: Context, doc: Document, wanted: dict[str, Any]) -> dict[str, int]:
    """The variants whose number of instances is to change."""
    now = counts_of(doc["_fleet"])
    variants = {item["Variant"]["VariantName"]: item["Variant"] for item in doc["_fleet"]["Variants"]}
    unknown = wanted.keys() - variants.keys()
    if unknown:
        raise validation(f"Endpoint {doc['EndpointName']} has no variant {sorted(unknown)[0]}.")
    for variant, item in wanted.items():
        if variants[variant].get("ServerlessConfig"):
            for member in ("ServerlessUpdateConfig", "DesiredInstanceCount"):
                if member in item:
                    raise validation(f"Variant {variant}: {member} is not supported by localcloud when serverless")
        if item.get("ServerlessUpdateConfig"):
            raise validation(f"Variant {variant}: ServerlessUpdateConfig is only for serverless variants.")
        if "DesiredInstanceCount" in item and variant not in now:
            raise validation(
                f"Variant {variant}: instances are not scaled by localcloud where inference components are hosted; "
                "scale their copies with UpdateInferenceComponentRuntimeConfig"
            )
        if item.get("DesiredInstanceCount") == 0 and not doc["_fleet"].get("AsyncInferenceConfig"):
            raise validation(
                f"Variant {variant}: DesiredInstanceCount must be at least 1 for an endpoint without "
                "AsyncInferenceConfig."
            )
    asked = {
        variant: item["DesiredInstanceCount"] for variant, item in wanted.items() if "DesiredInstanceCount" in item
    }
    check_limit(ctx, sum(now.values()), sum((now | asked).values()))
    return {variant: count for variant, count in asked.items() if count != now[variant]}


def _scale(ctx: Context, name: str, doc: Document, counts: dict[str, int]) -> None:
    current = {item["VariantName"]: item["CurrentInstanceCount"] for item in doc["ProductionVariants"]}
    text = {
        variant: f"Scaling {'out' if count > current[variant] else 'in'} desired instance count to {count}."
        for variant, count in counts.items()
    }

    def done(reason: str | None, fleet: Fleet) -> None:
        running = {variant: pool.size for variant, pool in fleet.pools.items()}

        def apply(doc: Document) -> None:
            if doc["EndpointStatus"] == "Deleting":
                return
            for item in doc["_fleet"]["Variants"]:
                item["Variant"]["InitialInstanceCount"] = running[item["Variant"]["VariantName"]]
            fleet.spec = doc["_fleet"]
            record.show(doc, doc["_fleet"])
            doc["EndpointStatus"] = "InService"
            if reason:
                doc["FailureReason"] = reason

        change(ctx, name, apply)

    record.stage(ctx, name, "ProductionVariants", "Updating", text, {})
    host(ctx.cloud).scale(ctx, name, counts, done)


def _must_serve(doc: Document, verb: str) -> None:
    status = doc["EndpointStatus"]
    if status in ("Failed", "UpdateRollbackFailed"):
        raise validation(
            f'Cannot {verb} endpoint "{doc["EndpointArn"]}": it is {status}. Delete it and create it again.'
        )
    if status != "InService":
        raise validation(f'Cannot {verb} in-progress endpoint "{doc["EndpointArn"]}" (it is {status}).')


OPERATIONS: dict[str, Handler] = {
    "UpdateEndpoint": _update,
    "UpdateEndpointWeightsAndCapacities": _update_weights,
}
