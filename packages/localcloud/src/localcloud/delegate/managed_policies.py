"""AWS's own managed policies: MiniStack knows a few, the rest comes from the moto package where that is installed.

moto ships a copy of all of them. Only that file is read, as text: moto itself is not imported. Without it the policies
of this field are known by name, and what they allow is not guessed: simulation and GetPolicyVersion refuse.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

from localcloud.errors import AwsError
from localcloud.hooks import identities

_log = logging.getLogger("localcloud")
PREFIX = "arn:aws:iam::aws:policy/"
_NAMES = (
    *("AmazonSageMakerFullAccess", "AmazonSageMakerReadOnly", "AmazonSageMakerPipelinesIntegrations"),
    *("AmazonSageMakerModelRegistryFullAccess", "AmazonSageMakerModelGovernanceUseAccess"),
    *("AmazonSageMakerFeatureStoreAccess", "AmazonSageMakerCanvasFullAccess", "AmazonSageMakerMechanicalTurkAccess"),
    *("AmazonSageMakerClusterInstanceRolePolicy", "AmazonSageMakerGroundTruthExecution"),
    *("AmazonBedrockFullAccess", "AmazonBedrockReadOnly", "AmazonBedrockLimitedAccess"),
    *("AmazonEC2ContainerRegistryFullAccess", "AmazonEC2ContainerRegistryPowerUser"),
    *("AmazonEC2ContainerRegistryReadOnly", "AmazonElasticContainerRegistryPublicFullAccess"),
    *("CloudWatchFullAccess", "CloudWatchFullAccessV2", "CloudWatchReadOnlyAccess", "CloudWatchLogsReadOnlyAccess"),
    *("AWSLambda_FullAccess", "AWSLambda_ReadOnlyAccess", "AWSStepFunctionsFullAccess", "AmazonEventBridgeFullAccess"),
    *("AmazonAthenaFullAccess", "AWSGlueConsoleFullAccess", "service-role/AWSGlueServiceRole"),
    *("SecretsManagerReadWrite", "AWSKeyManagementServicePowerUser", "AmazonSSMReadOnlyAccess", "ReadOnlyAccess"),
    *("SecurityAudit", "job-function/ViewOnlyAccess", "job-function/DataScientist"),
)
"""https://docs.aws.amazon.com/aws-managed-policy/latest/reference/policy-list.html; paths as there."""


class ManagedPolicies:
    """AWS's managed policies, put beside MiniStack's at the first use. On the event loop."""

    def __init__(self) -> None:
        self._loaded = False

    def load(self) -> None:
        """Let MiniStack know them."""
        if self._loaded:
            return
        self._loaded = True
        for resource, record in _shipped().items():
            document = json.dumps(record["Document"])
            kept = {name: record[name] for name in ("DefaultVersionId", "CreateDate", "UpdateDate")}
            identities.add_managed_policy(resource, document, **kept)
        for resource in _NAMES:
            if identities.policy(PREFIX + resource) is None:
                identities.add_managed_policy(resource, "")

    def document(self, arn: str) -> str:
        """What a policy allows; AwsError NoSuchEntity, NotImplemented when only its name is known."""
        self.load()
        record = identities.policy(arn)
        if record is None:
            raise AwsError("NoSuchEntity", f"Policy {arn} was not found.", 404)
        found = record["Versions"][record["DefaultVersionId"]]["Document"]
        if not found:
            raise unknown(arn)
        return found if isinstance(found, str) else json.dumps(found)


def unknown(arn: str) -> AwsError:
    """The refusal to say what a policy allows that is known by name alone."""
    name = arn.rpartition("/")[2]
    reason = (
        f"localcloud does not know what AWS's managed policy {name} allows: it knows its name alone. "
        'pip install "fmops-localcloud[policies]" brings the documents of all of them'
    )
    return AwsError("NotImplemented", reason, 501)


def _shipped() -> dict[str, dict[str, Any]]:
    """moto's copy, by path and name; empty where there is no moto, or one that keeps it in another way."""
    found = importlib.util.find_spec("moto")
    if found is None or not found.submodule_search_locations:
        return {}
    path = Path(found.submodule_search_locations[0]) / "iam" / "aws_managed_policies.py"
    try:
        texts = [
            node.value.value
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        ]
        policies: dict[str, dict[str, Any]] = json.loads(str(texts[0]))
        return {f"{record['Path'].lstrip('/')}{name}": record for name, record in policies.items()}
    except (OSError, SyntaxError, ValueError, LookupError, AttributeError) as error:
        _log.warning("AWS's managed policies can't be read from %s: %s", path, error)
        return {}
