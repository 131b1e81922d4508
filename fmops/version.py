"""One registered version: the reviewer's decision, its deployments, where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmops.pipeline import Pipeline

SHOWN_METRICS = ("preference_accuracy", "exact_match", "token_f1", "validation_loss")


@dataclass(frozen=True)
class Version:
    """A model package of the pipeline's group, as it was when it was looked up."""

    pipeline: Pipeline
    package: dict[str, Any]
    """DescribeModelPackage's answer."""

    @property
    def number(self) -> int:
        return int(self.package["ModelPackageVersion"])

    @property
    def arn(self) -> str:
        return str(self.package["ModelPackageArn"])

    @property
    def group(self) -> str:
        return str(self.package["ModelPackageGroupName"])

    @property
    def status(self) -> str:
        """PendingManualApproval, Approved or Rejected, asked for now."""
        from pipelines import registry

        return str(registry.describe(self.pipeline.session, self.arn)["ModelApprovalStatus"])

    @property
    def endpoint_name(self) -> str:
        """The endpoint that its run asked for, else the configured one; of a model on Bedrock its front door."""
        from configuration.names import endpoint_name
        from pipelines import bedrock_endpoint

        asked = self.package.get("CustomerMetadataProperties", {}).get("endpoint_name")
        name = str(asked or endpoint_name(self.pipeline.config))
        return f"{name}{bedrock_endpoint.SUFFIX}" if bedrock_endpoint.keeps(self.package) else name

    def evaluation(self) -> dict[str, Any]:
        """Its evaluation.json; empty when the file is not there any more."""
        from pipelines import registry

        return registry.statistics(self.pipeline.session, self.package)

    def deployments(self) -> list[dict[str, Any]]:
        """Its entries in the deployment log of its endpoint, oldest first."""
        from pipelines import deployments

        log = deployments.log(self.pipeline.config, self.pipeline.session, self.endpoint_name)
        return [item for item in log if item["model_package_arn"] == self.arn]

    def lineage(self) -> list[tuple[str, str]]:
        """(what, where) of everything that it came from and led to, from the data to the endpoint."""
        from pipelines import registry

        return registry.lineage(self.pipeline.session, self.arn)

    def approve(self, comment: str | None = None, wait: bool = True) -> None:
        """Approve it, which deploys it; with `wait` until its endpoint serves it.

        Raises UserError with the reason where the deployment fails or is rolled back.
        """
        from pipelines import registry

        before = self.status
        registry.set_status(self.pipeline.session, self.arn, "Approved", comment)
        if before == "Approved":
            again = f"fmops deploy {self.number}{self.pipeline.flag}"
            self.pipeline.say(f"Version {self.number} of {self.group} was approved before; deploy it again: {again}")
        else:
            deploys = f"its approval deploys it to {self.endpoint_name}"
            self.pipeline.say(f"Approved version {self.number} of {self.group}; {deploys}.")
        if wait:
            self.pipeline.endpoint_named(self.endpoint_name).wait_for(self)

    def reject(self, comment: str | None = None, rollback: bool = False) -> None:
        """Reject it; what is deployed stays unless `rollback` is given, and the way back is named."""
        from pipelines import registry

        registry.set_status(self.pipeline.session, self.arn, "Rejected", comment)
        self.pipeline.say(f"Rejected version {self.number} of {self.group}.")
        endpoint = self.pipeline.endpoint_named(self.endpoint_name)
        if endpoint.serving_arn() == self.arn:
            endpoint.leave(comment or "rejected", rollback)

    def deploy(
        self,
        settings: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
        beside: float | None = None,
        wait: bool = True,
    ) -> None:
        """Deploy it (it must be approved), also one that was rolled back or replaced.

        `settings` change how (`{"endpoint_traffic": "all-at-once"}`, see docs/dials.md); `beside` keeps what serves and
        gives this version a share of the traffic, 0 to 1.
        """
        from pipelines import deployments
        from pipelines.endpoint_settings import check_settings

        event: dict[str, Any] = {**check_settings(settings or {}), "model_package_arn": self.arn, "by": "command"}
        if endpoint:
            event["endpoint_name"] = endpoint
        if beside:
            event["weight"] = beside
        answer = deployments.ask(self.pipeline.config, self.pipeline.session, **event)
        reason = f" ({answer['reason']})" if answer["reason"] else ""
        self.pipeline.say(f"{answer['endpoint_name']}: {answer['action']}{reason}")
        if wait:
            self.pipeline.endpoint_named(answer["endpoint_name"]).wait_for(self)

    def __repr__(self) -> str:
        return f"Version({self.number} of {self.group}, {self.status})"

    def _repr_html_(self) -> str:
        from fmops.notebook import table

        metrics = self.evaluation().get("metrics", {})
        rows = [
            ("version", f"{self.number} of {self.group}"),
            ("status", self.status),
            ("endpoint", self.endpoint_name),
        ]
        for name in SHOWN_METRICS:
            value = metrics.get(name, {}).get("candidate")
            if value:
                rows.append((name, f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"))
        return table([*rows, *self.lineage()], ("", ""))
