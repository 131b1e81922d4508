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
    """Approve a version; its approval deploys it."""
    from pipelines import registry
    from pipelines.names import endpoint_name, model_package_group

    group = model_package_group(target.config)
    package = registry.find_version(target.session, group, version)
    registry.set_status(target.session, package["ModelPackageArn"], "Approved", comment)
    endpoint = package.get("CustomerMetadataProperties", {}).get("endpoint_name", endpoint_name(target.config))
    click.echo(f"Approved version {version} of {group}; its approval deploys it to {endpoint}.")
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
    """Reject a version; what is deployed stays."""
    from pipelines import registry
    from pipelines.names import model_package_group

    group = model_package_group(target.config)
    package = registry.find_version(target.session, group, version)
    registry.set_status(target.session, package["ModelPackageArn"], "Rejected", comment)
    click.echo(f"Rejected version {version} of {group}.")


@click.command()
@click.argument("text")
@click.option("--endpoint", "name", help="The endpoint [default: as in pipeline.yaml].")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="How long the answer may become, in tokens.")
@target_options
def invoke(target: Target, text: str, name: str | None, max_new_tokens: int | None) -> None:
    """Send one prompt to the endpoint and print its answer."""
    from pipelines import endpoint
    from pipelines.names import endpoint_name

    click.echo(endpoint.invoke(target.session, name or endpoint_name(target.config), text, max_new_tokens))
