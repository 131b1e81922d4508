"""`fmops deploy | rollback | endpoint | undeploy | invoke`: a version's life behind an endpoint."""

from __future__ import annotations

from typing import Any

import click

from pipelines.commands.options import Target, target_options
from pipelines.errors import UsageProblem

NAME = click.option("--endpoint", "name", help="The endpoint [default: as in pipeline.yaml].")
WAIT = click.option("--wait", is_flag=True, help="Wait for the end.")


@click.command()
@click.argument("version", type=click.IntRange(min=1))
@NAME
@click.option("--beside", type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="SHARE",
              help="Keep what serves and give this version a share of the traffic (A/B), for example 0.1.")  # fmt: skip
@click.option("-s", "--set", "changes", multiple=True, metavar="NAME=VALUE",
              help="Change a setting of this deployment, for example endpoint_traffic=all-at-once.")  # fmt: skip
@WAIT
@target_options
def deploy(
    target: Target, version: int, name: str | None, beside: float | None, changes: tuple[str, ...], wait: bool
) -> None:
    """Deploy an approved version, also one that was taken back or replaced."""
    from pipelines import deployments, registry
    from pipelines.names import model_package_group

    package = registry.find_version(target.session, model_package_group(target.config), version)
    event: dict[str, Any] = {**_settings(changes), "model_package_arn": package["ModelPackageArn"], "by": "command"}
    if name:
        event["endpoint_name"] = name
    if beside:
        event["weight"] = beside
    answer = deployments.ask(target.config, target.session, **event)
    reason = f" ({answer['reason']})" if answer["reason"] else ""
    click.echo(f"{answer['endpoint_name']}: {answer['action']}{reason}")
    if wait:
        wait_for_deployment(target, answer["endpoint_name"], package["ModelPackageArn"])


def _settings(pairs: tuple[str, ...]) -> dict[str, str]:
    from pipelines.endpoint_settings import endpoint_settings_names

    changes: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or key not in endpoint_settings_names():
            raise UsageProblem(f"-s {pair!r}: Name=Value is expected. Names: {', '.join(endpoint_settings_names())}")
        changes[key] = value
    return changes


@click.command()
@click.argument("version", type=click.IntRange(min=1), required=False)
@NAME
@click.option("--comment", help="Why; kept in the deployment log.")
@WAIT
@target_options
def rollback(target: Target, version: int | None, name: str | None, comment: str | None, wait: bool) -> None:
    """Go back to the version before, or to VERSION; stops a deployment that runs."""
    from pipelines import deployments

    endpoint = name or _configured(target)
    event = {"command": "rollback", "endpoint_name": endpoint, "reason": comment or "", "version": version}
    answer = deployments.ask(target.config, target.session, **{key: value for key, value in event.items() if value})
    click.echo(f"{endpoint}: {answer['action']} ({answer['reason']})")
    if wait:
        serving = deployments.wait_at_rest(target.config, target.session, endpoint, _patience(target, endpoint))
        click.echo(f"{endpoint} serves version {deployments.version_of(serving)}.")


@click.command()
@NAME
@click.option("--wait", is_flag=True, help="Wait until it is gone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@target_options
def undeploy(target: Target, name: str | None, wait: bool, yes: bool) -> None:
    """Delete the endpoint and all that belongs to it; registered versions stay."""
    from pipelines import deployments

    endpoint = name or _configured(target)
    if not yes and not target.local:
        click.confirm(f"Delete {endpoint}? Whoever calls it gets errors from then on.", abort=True)
    answer = deployments.ask(target.config, target.session, command="undeploy", endpoint_name=endpoint)
    click.echo(f"{endpoint}: {answer['action']}" + (f" ({answer['reason']})" if answer["reason"] else ""))
    if wait and answer["action"] != "undeployed":
        deployments.wait_until_gone(target.config, target.session, endpoint, _patience(target, endpoint))
        click.echo(f"{endpoint}: gone")


@click.command()
@NAME
@click.option("--traffic", multiple=True, metavar="VARIANT=SHARE", help="Share the traffic between variants (A/B).")
@target_options
def endpoint(target: Target, name: str | None, traffic: tuple[str, ...]) -> None:
    """Show what serves: status, traffic, alarms, cost and the latest deployments."""
    from pipelines import endpoint as endpoints
    from pipelines.commands.endpoint_view import show

    chosen = name or _configured(target)
    if traffic:
        endpoints.set_traffic(target.session, chosen, _weights(traffic))
    show(target, chosen)


def _weights(pairs: tuple[str, ...]) -> dict[str, float]:
    weights = {}
    for pair in pairs:
        variant, _, share = pair.partition("=")
        try:
            weights[variant] = float(share)
        except ValueError:
            raise UsageProblem(f"--traffic {pair!r}: VARIANT=SHARE is expected, for example AllTraffic=0.9") from None
        if not 0 <= weights[variant] <= 1:
            raise UsageProblem(f"--traffic {pair!r}: a share from 0 to 1 is allowed")
    return weights


@click.command()
@click.argument("text")
@NAME
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="How long the answer may become, in tokens.")
@click.option("--stream", is_flag=True, help="Print the answer while the model writes it.")
@target_options
def invoke(target: Target, text: str, name: str | None, max_new_tokens: int | None, stream: bool) -> None:
    """Send one prompt to the endpoint and print its answer."""
    from pipelines import endpoint as endpoints

    chosen = name or _configured(target)
    if not stream:
        click.echo(endpoints.invoke(target.session, chosen, text, max_new_tokens))
        return
    for piece in endpoints.stream(target.session, chosen, text, max_new_tokens):
        click.echo(piece, nl=False)
    click.echo()


def endpoint_of(target: Target, package: dict[str, Any]) -> str:
    """The endpoint that a package's run asked for, else the configured one."""
    return str(package.get("CustomerMetadataProperties", {}).get("endpoint_name") or _configured(target))


def _configured(target: Target) -> str:
    from pipelines.names import endpoint_name

    return endpoint_name(target.config)


def wait_for_deployment(target: Target, name: str, package_arn: str) -> None:
    """Print a deployment's way to its end; UserError when it was taken back."""
    from pipelines import deployments

    deployments.wait(target.config, target.session, name, package_arn, _patience(target, name))


def _patience(target: Target, name: str) -> Any:
    """The rollout's own waits, and time for machines to start; statuses are printed."""
    from pipelines.deployments import Patience

    rollout = target.config.endpoint.rollout
    steps = -(-100 // rollout.step_percent) if rollout.traffic in ("linear", "rolling") else 1
    shift = steps * rollout.wait_seconds + rollout.keep_seconds
    timeout, poll = (shift + 300.0, 0.5) if target.local else (shift + 3600.0, 15.0)
    return Patience(timeout, poll, lambda status: click.echo(f"{name}: {status}"))
