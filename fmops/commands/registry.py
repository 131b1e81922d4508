"""`fmops versions | approve | reject | lineage`: what was registered, and the reviewer's decision."""

from __future__ import annotations

import click

from fmops.commands.options import GROUP, target_options
from fmops.pipeline import Pipeline
from pipelines.terminal import say

VERSION = click.argument("version", type=click.IntRange(min=1))


@click.command()
@GROUP
@target_options
def versions(pipeline: Pipeline, group: str | None) -> None:
    """List versions, their metrics, digests and endpoints."""
    from configuration.names import model_package_group
    from pipelines import registry
    from pipelines.terminal import console as new_console

    shown = group or model_package_group(pipeline.config)
    found = pipeline.versions(group)
    others = registry.other_groups(pipeline.session, pipeline.config.aws.resource_prefix, shown)
    if not found:
        say(f"No version of {shown} has been registered. Start a run: fmops start{pipeline.flag}")
        _name_others(others, pipeline.flag)
        return
    serving = _serving(pipeline, {version.endpoint_name for version in found})
    console = new_console()
    console.print(
        registry.versions_table(
            [(version.package, version.evaluation(), serving.get(version.arn, "")) for version in found]
        )
    )
    for version in found:
        comment = version.package.get("ApprovalDescription")
        for line in filter(None, [registry.pinned(version.package), comment]):
            console.print(f"  {version.number}: {line}", highlight=False, markup=False)
    _name_others(others, pipeline.flag)


def _name_others(groups: list[str], flag: str) -> None:
    for group in groups:
        say(f"Another group of this prefix: fmops versions --group {group}{flag}")


def _serving(pipeline: Pipeline, names: set[str]) -> dict[str, str]:
    """Package ARN -> the endpoints that serve it, by their deployment logs."""
    from pipelines.deployments import UNDER_WAY, WORDS

    found: dict[str, str] = {}
    for name in sorted({*names, pipeline.endpoint.name}):
        for item in pipeline.endpoint_named(name).deployments():
            if item["state"] in ("in_service", *UNDER_WAY):
                state = "" if item["state"] == "in_service" else f" ({WORDS[item['state']]})"
                found[item["model_package_arn"]] = f"{name}{state}"
    return found


@click.command()
@VERSION
@click.option("--comment", help="Why; kept with the version.")
@click.option("--wait", is_flag=True, help="Wait until the endpoint serves this version, or it was rolled back.")
@GROUP
@target_options
def approve(pipeline: Pipeline, version: int, comment: str | None, wait: bool, group: str | None) -> None:
    """Approve a version, which deploys it."""
    pipeline.version(version, group).approve(comment, wait)
    if wait:
        say(f'Next: fmops invoke "your text"{pipeline.flag}')


@click.command()
@VERSION
@click.option("--comment", help="Why; kept with the version.")
@click.option("--rollback", is_flag=True, help="If it serves, go back to the previous version.")
@GROUP
@target_options
def reject(pipeline: Pipeline, version: int, comment: str | None, rollback: bool, group: str | None) -> None:
    """Reject a version; say how to roll it back.

    A rollout of it is taken back; what is in service stays, unless --rollback is given.
    """
    pipeline.version(version, group).reject(comment, rollback)


@click.command()
@VERSION
@GROUP
@target_options
def lineage(pipeline: Pipeline, version: int, group: str | None) -> None:
    """Show a version's way from data to endpoint."""
    for kind, where in pipeline.version(version, group).lineage():
        say(f"{kind:<26} {where}")
