"""`fmops approve | reject | invoke`: a version's way to an endpoint, and the endpoint's answer."""

from __future__ import annotations

import click

from pipelines.commands.options import Target, target_options


@click.command()
@click.argument("version", type=click.IntRange(min=1))
@click.option("--comment", help="Why; kept with the version.")
@click.option("--wait", is_flag=True, help="Wait until the endpoint serves this version.")
@target_options
def approve(target: Target, version: int, comment: str | None, wait: bool) -> None:
    """Approve a version in the Model Registry; its approval deploys it."""
    from pipelines import registry

    package = registry.find_version(target.session, target.config.registry.group, version)
    registry.set_status(target.session, package["ModelPackageArn"], "Approved", comment)
    endpoint = package.get("CustomerMetadataProperties", {}).get("endpoint_name", target.config.endpoint.name)
    click.echo(f"Approved version {version} of {target.config.registry.group}; it is deployed to {endpoint}.")
    if wait:
        wait_for_endpoint(target, endpoint, package["ModelPackageArn"])
        click.echo(f'Next: fmops invoke "your text"{target.flag}')


def wait_for_endpoint(target: Target, name: str, package_arn: str) -> None:
    """Print the endpoint's way to InService."""
    from pipelines import endpoint

    endpoint.wait_in_service(
        target.session,
        name,
        package_arn,
        timeout_seconds=300 if target.local else 3600,
        poll_seconds=0.5 if target.local else 15,
        on_status=lambda status: click.echo(f"{name}: {status}"),
    )


@click.command()
@click.argument("version", type=click.IntRange(min=1))
@click.option("--comment", help="Why; kept with the version.")
@target_options
def reject(target: Target, version: int, comment: str | None) -> None:
    """Reject a version in the Model Registry; what is deployed stays as it is."""
    from pipelines import registry

    package = registry.find_version(target.session, target.config.registry.group, version)
    registry.set_status(target.session, package["ModelPackageArn"], "Rejected", comment)
    click.echo(f"Rejected version {version} of {target.config.registry.group}.")


@click.command()
@click.argument("text")
@click.option("--endpoint", "name", help="The endpoint [default: endpoint.name of pipeline.yaml].")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="How long the answer may become, in tokens.")
@target_options
def invoke(target: Target, text: str, name: str | None, max_new_tokens: int | None) -> None:
    """Send one prompt to the endpoint and print its answer."""
    from pipelines import endpoint

    click.echo(endpoint.invoke(target.session, name or target.config.endpoint.name, text, max_new_tokens))
