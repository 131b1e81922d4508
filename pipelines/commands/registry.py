"""`fmops versions | approve | reject | lineage`: what was registered, and the reviewer's decision."""

from __future__ import annotations

from typing import Any

import click

from pipelines.commands.options import Target, target_options


@click.command()
@target_options
def versions(target: Target) -> None:
    """List the registered versions, their metrics and where they serve."""
    from rich.console import Console

    from pipelines import registry
    from pipelines.names import model_package_group

    group = model_package_group(target.config)
    found = registry.versions(target.session, group)
    if not found:
        click.echo(f"No version of {group} has been registered. Start a run: fmops start{target.flag}")
        return
    packages = [registry.describe(target.session, item["ModelPackageArn"]) for item in found]
    serving = _serving(target, packages)
    rows = [
        (package, registry.statistics(target.session, package), serving.get(package["ModelPackageArn"], ""))
        for package in packages
    ]
    console = Console()
    console.print(registry.versions_table(rows))
    for package in packages:
        if package.get("ApprovalDescription"):
            console.print(
                f"  {package['ModelPackageVersion']}: {package['ApprovalDescription']}", highlight=False, markup=False
            )


def _serving(target: Target, packages: list[dict[str, Any]]) -> dict[str, str]:
    """Package ARN -> the endpoints that serve it, by their deployment logs."""
    from pipelines import deployments
    from pipelines.names import endpoint_name

    names = {package.get("CustomerMetadataProperties", {}).get("endpoint_name") for package in packages}
    found: dict[str, str] = {}
    for name in sorted({*filter(None, names), endpoint_name(target.config)}):
        for item in deployments.log(target.config, target.session, name):
            if item["state"] in ("in_service", *deployments.UNDER_WAY):
                state = "" if item["state"] == "in_service" else f" ({deployments.WORDS[item['state']]})"
                found[item["model_package_arn"]] = f"{name}{state}"
    return found


@click.command()
@click.argument("version", type=click.IntRange(min=1))
@click.option("--comment", help="Why; kept with the version.")
@click.option("--wait", is_flag=True, help="Wait until the endpoint serves this version, or it was taken back.")
@target_options
def approve(target: Target, version: int, comment: str | None, wait: bool) -> None:
    """Approve a version; its approval deploys it."""
    from pipelines import registry
    from pipelines.commands.deployment import endpoint_of, wait_for_deployment
    from pipelines.names import model_package_group

    group = model_package_group(target.config)
    package = registry.find_version(target.session, group, version)
    registry.set_status(target.session, package["ModelPackageArn"], "Approved", comment)
    endpoint = endpoint_of(target, package)
    if package["ModelApprovalStatus"] == "Approved":
        click.echo(
            f"Version {version} of {group} was approved before; deploy it again: fmops deploy {version}{target.flag}"
        )
    else:
        click.echo(f"Approved version {version} of {group}; its approval deploys it to {endpoint}.")
    if wait:
        wait_for_deployment(target, endpoint, package["ModelPackageArn"])
        click.echo(f'Next: fmops invoke "your text"{target.flag}')


@click.command()
@click.argument("version", type=click.IntRange(min=1))
@click.option("--comment", help="Why; kept with the version.")
@click.option("--rollback", is_flag=True, help="If it serves, go back to the version before.")
@target_options
def reject(target: Target, version: int, comment: str | None, rollback: bool) -> None:
    """Reject a version; what is deployed stays, and the way back is named."""
    from pipelines import deployments, registry
    from pipelines.commands.deployment import endpoint_of
    from pipelines.names import model_package_group

    group = model_package_group(target.config)
    package = registry.find_version(target.session, group, version)
    registry.set_status(target.session, package["ModelPackageArn"], "Rejected", comment)
    click.echo(f"Rejected version {version} of {group}.")
    endpoint = endpoint_of(target, package)
    log = deployments.log(target.config, target.session, endpoint)
    serving = [item for item in log if item["state"] in ("in_service", *deployments.UNDER_WAY)]
    if not serving or serving[-1]["model_package_arn"] != package["ModelPackageArn"]:
        return
    back = [item for item in log if item["state"] == "replaced" and not item.get("pruned")]
    if not back:
        click.echo(f"{endpoint} serves it, and no earlier version is kept. Take it away: fmops undeploy{target.flag}")
    elif rollback:
        answer = deployments.ask(
            target.config, target.session, command="rollback", endpoint_name=endpoint, reason=comment or "rejected"
        )
        click.echo(f"{endpoint} goes back to version {deployments.version_of(back[-1])}: {answer['action']}.")
    else:
        way = f"Back to version {deployments.version_of(back[-1])}: fmops rollback{target.flag}"
        click.echo(f"{endpoint} still serves it. {way}")


@click.command()
@click.argument("version", type=click.IntRange(min=1))
@target_options
def lineage(target: Target, version: int) -> None:
    """Show what a version came from and what it led to, from the data to the endpoint."""
    from pipelines import registry
    from pipelines.names import model_package_group

    package = registry.find_version(target.session, model_package_group(target.config), version)
    for kind, where in registry.lineage(target.session, package["ModelPackageArn"]):
        click.echo(f"{kind:<26} {where}")
