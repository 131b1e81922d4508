"""Lineage that SageMaker records by itself, from the state changes that it also tells EventBridge.

Jobs            image, inputs -> trial component -> outputs, model
Model packages  image, model -> package -> group (a context) and, for each decision, an Approval action
Models          image, package or model data -> model
Endpoints       models, the package's approval -> ModelDeployment action -> endpoint (a context), once it is in service

What is recorded twice is the same: an artifact by its source URI, everything else by its name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from localcloud.context import Context
from localcloud.jobs.states import PROCESSING, TRAINING, Kind
from localcloud.sagemaker import lineage_components
from localcloud.sagemaker.lineage_associations import link
from localcloud.sagemaker.lineage_entities import ACTION, ARTIFACT, CONTEXT, artifact_key, change, edges, ensure
from localcloud.store import Document

_log = logging.getLogger("localcloud")


def observe(ctx: Context, event: str, detail: dict[str, Any]) -> None:
    """Record what an event of SageMaker tells; never raises: what happened has happened."""
    record = _RECORDS.get(event)
    if record is None:
        return
    try:
        with ctx.cloud.store.transaction():
            record(ctx, detail)
    except Exception:
        _log.exception("lineage of %s was not recorded", event)


def _stored(ctx: Context, kind: str, name: str) -> Document | None:
    return ctx.cloud.store.get(kind, ctx.account, ctx.region, name)


def _artifact(ctx: Context, uri: str, kind: str, name: str | None = None) -> str:
    members: Document = {"Source": {"SourceUri": uri}, "ArtifactType": kind, "Properties": {}}
    return ensure(ctx, ARTIFACT, {**members, "ArtifactName": name} if name else members)


def _job(kind: Kind) -> Callable[[Context, dict[str, Any]], None]:
    def record(ctx: Context, detail: dict[str, Any]) -> None:
        job = _stored(ctx, kind.kind, detail[f"{kind.noun}Name"])
        if job is None:
            return
        inputs, outputs, image = _training(job) if kind is TRAINING else _processing(job)
        component = lineage_components.keep(ctx, kind, job, inputs, outputs)
        if image:
            link(ctx, _artifact(ctx, image, "Image"), component, "ContributedTo")
        for uri in inputs.values():
            link(ctx, _artifact(ctx, uri, "DataSet"), component, "ContributedTo")
        for name, uri in outputs.items():
            made = "Model" if name == _MODEL else "Checkpoint" if name == _CHECKPOINT else "DataSet"
            link(ctx, component, _artifact(ctx, uri, made), "Produced")

    return record


_MODEL, _CHECKPOINT = "SageMaker.ModelArtifact", "SageMaker.Checkpoint"
_Data = tuple[dict[str, str], dict[str, str], str]
"""Inputs and outputs (URI by name) and the image; outputs only once there are such."""


def _training(job: Document) -> _Data:
    inputs = {}
    for channel in job.get("InputDataConfig") or []:
        source = channel["DataSource"].get("S3DataSource")
        if source:
            inputs[channel["ChannelName"]] = source["S3Uri"]
    outputs = {}
    model = (job.get("ModelArtifacts") or {}).get("S3ModelArtifacts")
    if model and job["TrainingJobStatus"] in ("Completed", "Stopped"):
        outputs[_MODEL] = model
    if job.get("CheckpointConfig"):
        outputs[_CHECKPOINT] = job["CheckpointConfig"]["S3Uri"]
    return inputs, outputs, job["AlgorithmSpecification"].get("TrainingImage", "")


def _processing(job: Document) -> _Data:
    inputs = {
        item["InputName"]: item["S3Input"]["S3Uri"] for item in job.get("ProcessingInputs") or [] if item.get("S3Input")
    }
    outputs = {}
    if job["ProcessingJobStatus"] == "Completed":
        found = (job.get("ProcessingOutputConfig") or {}).get("Outputs") or []
        outputs = {item["OutputName"]: item["S3Output"]["S3Uri"] for item in found if item.get("S3Output")}
    return inputs, outputs, job["AppSpecification"].get("ImageUri", "")


def _parts(ctx: Context, container: dict[str, Any], whole: str) -> None:
    """The image and the model data of a container."""
    source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
    data = container.get("ModelDataUrl") or source.get("S3Uri")
    if container.get("Image"):
        link(ctx, _artifact(ctx, container["Image"], "Image"), whole, "ContributedTo")
    if data:
        link(ctx, _artifact(ctx, data, "Model"), whole, "ContributedTo")


def _package(ctx: Context, detail: dict[str, Any]) -> None:
    arn = detail["ModelPackageArn"]
    package = _stored(ctx, "model-package", arn.split("/", 1)[1])
    if package is None:
        return
    group, version = package.get("ModelPackageGroupName"), package.get("ModelPackageVersion")
    name = f"{group}-{version}" if group else package["ModelPackageName"]
    artifact = _artifact(ctx, arn, "Model", f"{name}-aws-model-package")
    for container in (package.get("InferenceSpecification") or {}).get("Containers") or []:
        _parts(ctx, container, artifact)
    for algorithm in (package.get("SourceAlgorithmSpecification") or {}).get("SourceAlgorithms") or []:
        if algorithm.get("ModelDataUrl"):
            link(ctx, _artifact(ctx, algorithm["ModelDataUrl"], "Model"), artifact, "ContributedTo")
    if not group:
        return
    context = {
        "ContextName": f"{group}-aws-model-package-group",
        "Source": {"SourceUri": ctx.arn(f"model-package-group/{group}"), "SourceType": "ARN"},
        "ContextType": "ModelGroup",
        "Properties": {},
    }
    link(ctx, artifact, ensure(ctx, CONTEXT, context), "AssociatedWith")
    if "ModelApprovalStatus" not in detail.get("UpdatedModelPackageFields", ["ModelApprovalStatus"]):
        return
    status = package["ModelApprovalStatus"]
    action = {
        "ActionName": f"{name}-{status}-{round(package['LastModifiedTime'] * 1000)}-aws-model-package",
        "Source": {"SourceUri": arn, "SourceType": "ARN"},
        "ActionType": "Approval",
        "Status": "Completed",
        "Properties": {"ModelApprovalStatus": status},
    }
    if package.get("ApprovalDescription"):
        action["Description"] = package["ApprovalDescription"]
    link(ctx, artifact, ensure(ctx, ACTION, action), "ContributedTo")


def _model(ctx: Context, detail: dict[str, Any]) -> None:
    model = _stored(ctx, "model", detail["ModelName"])
    if model is not None:
        _model_artifact(ctx, model)


def _model_artifact(ctx: Context, model: Document) -> str:
    artifact = _artifact(ctx, model["ModelArn"], "Model", model["ModelName"])
    for container in model.get("Containers") or [model.get("PrimaryContainer") or {}]:
        package = container.get("ModelPackageName", "")
        if package.startswith("arn:"):
            link(ctx, _artifact(ctx, package, "Model"), artifact, "ContributedTo")
        _parts(ctx, container, artifact)
    return artifact


def _endpoint(ctx: Context, detail: dict[str, Any]) -> None:
    endpoint = _stored(ctx, "endpoint", detail["EndpointName"])
    if endpoint is None:
        return
    name, status = endpoint["EndpointName"], endpoint["EndpointStatus"]
    context = {
        "ContextName": f"{name}-aws-endpoint",
        "Source": {"SourceUri": endpoint["EndpointArn"], "SourceType": "ARN"},
        "ContextType": "Endpoint",
        "Properties": {},
    }
    arn = ensure(ctx, CONTEXT, context)

    def shown(doc: Document) -> None:
        doc["Properties"]["EndpointStatus"] = status

    change(ctx, CONTEXT, f"{name}-aws-endpoint", shown)
    current = endpoint.get("_next") or endpoint["_fleet"]
    deployment = _deployment(ctx, endpoint, current)
    if status == "InService":
        link(ctx, deployment, arn, "AssociatedWith")
        _settle(ctx, endpoint["EndpointArn"], deployment, "Completed")
    elif status in ("Failed", "Deleting"):
        _settle(ctx, endpoint["EndpointArn"], deployment, "Failed" if status == "Failed" else "Stopped")


def _deployment(ctx: Context, endpoint: Document, spec: Document) -> str:
    """The ModelDeployment action of a configuration that an endpoint gets, with the models that go into it."""
    action = {
        "ActionName": f"{endpoint['EndpointName']}-{spec['Id']}-aws-endpoint-deployment",
        "Source": {"SourceUri": endpoint["EndpointArn"], "SourceType": "ARN"},
        "ActionType": "ModelDeployment",
        "Status": "InProgress",
        "Properties": {"EndpointConfigName": spec["EndpointConfigName"]},
    }
    arn = ensure(ctx, ACTION, action)
    for item in spec["Variants"]:
        if item.get("Model"):
            link(ctx, _model_artifact(ctx, item["Model"]), arn, "ContributedTo")
            for approval in _approvals(ctx, item["Model"]):
                link(ctx, approval, arn, "ContributedTo")
    return arn


def _approvals(ctx: Context, model: Document) -> list[str]:
    """The last Approval action of each package that the model is made of, if it approved."""
    found = []
    for container in model.get("Containers") or [model.get("PrimaryContainer") or {}]:
        package = container.get("ModelPackageName", "")
        source = ctx.arn(f"artifact/{artifact_key({'SourceUri': package})}")
        decided = [edge["DestinationArn"] for edge in edges(ctx) if package and edge["SourceArn"] == source]
        actions = [_stored(ctx, "action", arn.partition("/")[2]) for arn in decided if ":action/" in arn]
        last = max((one for one in actions if one), key=lambda one: one["CreationTime"], default=None)
        if last and last["Properties"].get("ModelApprovalStatus") == "Approved":
            found.append(str(last["ActionArn"]))
    return found


def _settle(ctx: Context, endpoint: str, deployment: str, status: str) -> None:
    """End a deployment; others that were under way came to nothing."""
    for doc in ctx.cloud.store.list(ACTION.kind, ctx.account, ctx.region):
        if doc["ActionType"] == "ModelDeployment" and doc["Source"]["SourceUri"] == endpoint:
            ended = status if doc["ActionArn"] == deployment else "Failed"
            if doc["Status"] == "InProgress":
                change(ctx, ACTION, doc["ActionArn"].partition("/")[2], _status(ended))


def _status(ended: str) -> Callable[[Document], None]:
    def apply(doc: Document) -> None:
        doc["Status"] = ended
        doc["Properties"]["EndTime"] = str(round(time.time()))

    return apply


_RECORDS: dict[str, Callable[[Context, dict[str, Any]], None]] = {
    "SageMaker Training Job State Change": _job(TRAINING),
    "SageMaker Processing Job State Change": _job(PROCESSING),
    "SageMaker Model Package State Change": _package,
    "SageMaker Model State Change": _model,
    "SageMaker Endpoint State Change": _endpoint,
}
