"""The part of Bedrock's control plane that hosts custom models, for tests: deployments and provisioned throughput.

Every request is held against botocore's shapes. As strict as AWS may be: a name is there once, a token that was used
leads to what it made and to nothing new, what is being made can't be deleted.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
from typing import Any
from urllib.parse import unquote

import botocore.session
from botocore.validate import ParamValidator

Response = tuple[int, dict[str, Any], str]
KINDS = {
    "/model-customization/custom-model-deployments": (
        "CustomModelDeployment", "customModelDeploymentIdentifier", "modelDeploymentName", "customModelDeploymentArn",
        "modelArn", "custom-model-deployment", "Active",
    ),
    "/provisioned-model-throughput": (
        "ProvisionedModelThroughput", "provisionedModelId", "provisionedModelName", "provisionedModelArn", "modelId",
        "provisioned-model", "InService",
    ),
}  # fmt: skip


@functools.cache
def input_shape(service: str, operation: str) -> Any:
    """What botocore says of an operation's request."""
    return botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape


class Desk:
    """What hosts models by ARN; `looks` says how often it is seen as being made; `log` holds what was done."""

    PATHS = tuple(KINDS)

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.hosts: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, str] = {}
        self.tags: list[dict[str, str]] = []
        self.log: list[str] = []
        self.wrong: list[str] = []
        self.looks, self.fails = 2, ""

    def serves(self, arn: str) -> bool:
        return arn in self.hosts and self.hosts[arn]["status"] in ("Active", "InService")

    def post(self, path: str, body: dict[str, Any]) -> Response:
        operation, _, name, arn_name, model, noun, _ = KINDS[path]
        self._check(f"Create{operation}", body)
        with self.lock:
            token = body["clientRequestToken"]
            if token in self.tokens:
                self.log.append(f"repeated {body[name]}")
                return 202, {arn_name: self.tokens[token]}, ""
            if any(host[name] == body[name] for host in self.hosts.values() if name in host):
                return 400, {"message": f"{body[name]} is there already"}, "ValidationException"
            digest = hashlib.sha256(f"{len(self.tokens)}".encode()).hexdigest()[:12]
            arn = f"arn:aws:bedrock:us-east-1:111122223333:{noun}/{digest}"
            self.tokens[token] = arn
            self.tags.append({tag["key"]: tag["value"] for tag in body["tags"]})
            self.hosts[arn] = {arn_name: arn, name: body[name], model: body[model], "status": "Creating",
                               "looks": self.looks}  # fmt: skip
            self.log.append(f"made {body[name]}")
            return 202, {arn_name: arn}, ""

    def get(self, path: str) -> Response:
        with self.lock:
            host, ready = self._find("Get", path)
            if host is None:
                return 404, {"message": "not found"}, "ResourceNotFoundException"
            host["looks"] -= 1
            if host["looks"] < 0 and host["status"] == "Creating":
                host["status"] = "Failed" if self.fails else ready
                host |= {"failureMessage": self.fails} if self.fails else {}
            return 200, {name: value for name, value in host.items() if name != "looks"}, ""

    def delete(self, path: str) -> Response:
        with self.lock:
            host, _ = self._find("Delete", path)
            if host is None:
                return 404, {"message": "not found"}, "ResourceNotFoundException"
            if host["status"] == "Creating":
                return 400, {"message": "it is being made"}, "ConflictException"
            [arn] = [arn for arn, other in self.hosts.items() if other is host]
            del self.hosts[arn]
            self.log.append(f"deleted {arn}")
            return 200, {}, ""

    def _find(self, verb: str, path: str) -> tuple[dict[str, Any] | None, str]:
        [(kind, known)] = [(kind, known) for kind, known in KINDS.items() if path.startswith(f"{kind}/")]
        identifier = unquote(path.removeprefix(f"{kind}/"))
        self._check(f"{verb}{known[0]}", {known[1]: identifier})
        found = [host for arn, host in self.hosts.items() if identifier in (arn, host.get(known[2]))]
        return (found[0] if found else None), known[6]

    def _check(self, operation: str, members: dict[str, Any]) -> None:
        shape = input_shape("bedrock", operation)
        shapes = shape.members
        unknown = {
            name for name, value in members.items()
            if name not in shapes
            or (isinstance(value, str) and not re.fullmatch(shapes[name].metadata.get("pattern", ".*"), value))
        }  # fmt: skip
        report = ParamValidator().validate(members, shape)
        if report.has_errors() or unknown:
            self.wrong.append(f"{operation} {json.dumps(members)}: {report.generate_report()} {unknown or ''}")
