"""The endpoint: ask it, see what it serves, roll it back, delete it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmops.pipeline import Pipeline
    from fmops.version import Version
    from pipelines.deployments import Patience


@dataclass(frozen=True)
class Endpoint:
    """An endpoint by its name; it need not exist yet. Printed, it shows what `fmops endpoint` shows."""

    pipeline: Pipeline
    name: str

    def invoke(self, text: str, max_new_tokens: int | None = None) -> str:
        """One prompt in, the generated text out (at most `max_new_tokens` tokens).

        Raises UserError with the model's own reason where it refuses the request.
        """
        from pipelines import bedrock_endpoint, endpoint

        config, session, door = self.pipeline.config, self.pipeline.session, self._door()
        if bedrock_endpoint.is_front_door(door):
            return bedrock_endpoint.invoke(config, session, door, text, max_new_tokens)
        return endpoint.invoke(session, door, text, max_new_tokens)

    def stream(self, text: str, max_new_tokens: int | None = None) -> Iterator[str]:
        """The generated text piece by piece, as the model writes it."""
        from pipelines import bedrock_endpoint, endpoint

        config, session, door = self.pipeline.config, self.pipeline.session, self._door()
        if bedrock_endpoint.is_front_door(door):
            return bedrock_endpoint.stream(config, session, door, text, max_new_tokens)
        return endpoint.stream(session, door, text, max_new_tokens)

    def _door(self) -> str:
        """Whichever serves what was decided last: the endpoint, or its sibling on Bedrock."""
        from pipelines.bedrock_endpoint import chosen_door

        return chosen_door(self.pipeline.config, self.pipeline.session, self.name)

    def deployments(self) -> list[dict[str, Any]]:
        """The deployment log, oldest first (docs/contracts.md has an entry's shape)."""
        from pipelines import deployments

        return deployments.log(self.pipeline.config, self.pipeline.session, self.name)

    def serving_arn(self) -> str | None:
        """The ARN of the version that it serves or is rolling out."""
        from pipelines.deployments import UNDER_WAY

        serving = [item for item in self.deployments() if item["state"] in ("in_service", *UNDER_WAY)]
        return str(serving[-1]["model_package_arn"]) if serving else None

    def wait_for(self, version: Version) -> None:
        """Block until it serves the version; statuses are told. Raises UserError where it was rolled back or failed."""
        from pipelines import deployments

        deployments.wait(self.pipeline.config, self.pipeline.session, self.name, version.arn, self._patience())

    def rollback(self, version: int | None = None, reason: str | None = None, wait: bool = True) -> None:
        """Go back to the previous version, or to a given one, all traffic at once; stops a running deployment."""
        from pipelines import deployments

        config, session, door = self.pipeline.config, self.pipeline.session, self._door()
        event = {"command": "rollback", "endpoint_name": door, "reason": reason or "", "version": version}
        answer = deployments.ask(config, session, **{key: value for key, value in event.items() if value})
        self.pipeline.say(f"{door}: {answer['action']} ({answer['reason']})")
        if wait:
            serving = deployments.wait_at_rest(config, session, door, self._patience())
            self.pipeline.say(f"{door} serves version {deployments.version_of(serving)}.")

    def leave(self, reason: str, rollback: bool) -> None:
        """Name the way from the version that it serves to the previous one, or take it."""
        from pipelines import deployments

        flag, log = self.pipeline.flag, self.deployments()
        if log and log[-1]["state"] in deployments.UNDER_WAY:
            self.pipeline.say(f"{self.name} was rolling it out; the rollout is taken back.")
            return
        kept = [item for item in log if item["state"] == "replaced" and not item.get("pruned")]
        back = [item for item in kept if self._is_approved(item["model_package_arn"])]
        if not back:
            lost = "no earlier version is kept" if not kept else "no earlier version that is kept is still approved"
            self.pipeline.say(f"{self.name} serves it, and {lost}. Delete the endpoint: fmops undeploy{flag}")
            return
        previous = deployments.version_of(back[-1])
        if not rollback:
            self.pipeline.say(f"{self.name} still serves it. Back to version {previous}: fmops rollback{flag}")
            return
        event = {"command": "rollback", "endpoint_name": self.name, "reason": reason}
        answer = deployments.ask(self.pipeline.config, self.pipeline.session, **event)
        self.pipeline.say(f"{self.name} goes back to version {previous}: {answer['action']}.")

    def _is_approved(self, arn: str) -> bool:
        from pipelines import registry

        return bool(registry.describe(self.pipeline.session, arn)["ModelApprovalStatus"] == "Approved")

    def undeploy(self, wait: bool = True) -> None:
        """Delete the endpoint, its models, alarms and scaling, and its sibling on Bedrock; registered versions stay."""
        from pipelines import bedrock_endpoint, deployments

        config, session = self.pipeline.config, self.pipeline.session
        sibling = self.pipeline.endpoint_named(f"{self.name}{bedrock_endpoint.SUFFIX}")
        if not bedrock_endpoint.is_front_door(self.name) and sibling.serving_arn():
            sibling.undeploy(wait)
        answer = deployments.ask(config, session, command="undeploy", endpoint_name=self.name)
        reason = f" ({answer['reason']})" if answer["reason"] else ""
        self.pipeline.say(f"{self.name}: {answer['action']}{reason}")
        if wait and answer["action"] != "undeployed":
            deployments.wait_until_gone(config, session, self.name, self._patience())
            self.pipeline.say(f"{self.name}: gone")

    def set_traffic(self, shares: Mapping[str, float]) -> None:
        """Give each variant its share of the traffic (0 to 1), at once."""
        from pipelines import endpoint

        endpoint.set_traffic(self.pipeline.session, self.name, dict(shares))

    def summary(self) -> list[str]:
        """Status, traffic, alarms, cost and the latest deployments, in lines. Raises UserError where nothing exists."""
        from pipelines.endpoint_view import summary

        return summary(self.pipeline.config, self.pipeline.session, self.name, self.pipeline.local)

    def _patience(self) -> Patience:
        from pipelines.deployments import patience

        say = self.pipeline.say
        return patience(self.pipeline.config, self.pipeline.local, lambda status: say(f"{self.name}: {status}"))

    def __str__(self) -> str:
        return "\n".join(self.summary())

    def _repr_html_(self) -> str:
        import html

        return f"<pre>{html.escape(str(self))}</pre>"
