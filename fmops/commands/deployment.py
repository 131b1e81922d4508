"""`fmops deploy | rollback | endpoint | undeploy | invoke`: a version's life behind an endpoint."""

from __future__ import annotations

import click

from configuration.errors import UsageProblem
from fmops.commands.options import GROUP, parse_pairs, target_options
from fmops.pipeline import Pipeline
from pipelines.terminal import say

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
@GROUP
@target_options
def deploy(
    pipeline: Pipeline,
    version: int,
    name: str | None,
    beside: float | None,
    changes: tuple[str, ...],
    wait: bool,
    group: str | None,
) -> None:
    """Deploy an approved version, again if need be.

    Also one that was rolled back or replaced.
    """
    settings = parse_pairs("-s", changes, "endpoint_traffic=all-at-once")
    pipeline.version(version, group).deploy(settings, name, beside, wait)


@click.command()
@click.argument("version", type=click.IntRange(min=1), required=False)
@NAME
@click.option("--comment", help="Why; kept in the deployment log.")
@WAIT
@target_options
def rollback(pipeline: Pipeline, version: int | None, name: str | None, comment: str | None, wait: bool) -> None:
    """Go back to the previous version, or to VERSION.

    All traffic at once; a running deployment is stopped.
    """
    pipeline.endpoint_named(name).rollback(version, comment, wait)


@click.command()
@NAME
@click.option("--wait", is_flag=True, help="Wait until it is gone.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@target_options
def undeploy(pipeline: Pipeline, name: str | None, wait: bool, yes: bool) -> None:
    """Delete the endpoint; registered versions stay.

    Its models, alarms and scaling go with it.
    """
    endpoint = pipeline.endpoint_named(name)
    if not yes and not pipeline.local:
        click.confirm(f"Delete {endpoint.name}? Whoever calls it gets errors from then on.", abort=True)
    endpoint.undeploy(wait)


@click.command()
@NAME
@click.option("--traffic", multiple=True, metavar="VARIANT=SHARE", help="Share the traffic between variants (A/B).")
@target_options
def endpoint(pipeline: Pipeline, name: str | None, traffic: tuple[str, ...]) -> None:
    """Show status, traffic, alarms, cost, deployments."""
    chosen = pipeline.endpoint_named(name)
    if traffic:
        chosen.set_traffic(_shares(traffic))
    for line in chosen.summary():
        say(line)


def _shares(pairs: tuple[str, ...]) -> dict[str, float]:
    shares = {}
    for variant, text in parse_pairs("--traffic", pairs, "AllTraffic=0.9").items():
        try:
            shares[variant] = float(text)
        except ValueError:
            raise UsageProblem(f"--traffic {variant}={text}: a share is expected, for example AllTraffic=0.9") from None
        if not 0 <= shares[variant] <= 1:
            raise UsageProblem(f"--traffic {variant}={text}: allowed: a share from 0 to 1")
    return shares


@click.command()
@click.argument("text")
@NAME
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="How long the answer may become, in tokens.")
@click.option("--stream", is_flag=True, help="Print the answer while the model writes it.")
@target_options
def invoke(pipeline: Pipeline, text: str, name: str | None, max_new_tokens: int | None, stream: bool) -> None:
    """Send a prompt to the endpoint; print its answer."""
    chosen = pipeline.endpoint_named(name)
    if not stream:
        say(chosen.invoke(text, max_new_tokens))
        return
    for piece in chosen.stream(text, max_new_tokens):
        say(piece, nl=False)
    say()
