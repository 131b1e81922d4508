"""What `fmops endpoint` prints."""

from __future__ import annotations

from typing import Any

import click

from pipelines.commands.options import Target
from pipelines.errors import UserError

HOURS_A_MONTH = 730
SHOWN = 8
"""Deployments listed, newest first."""


def show(target: Target, name: str) -> None:
    """Status, variants, components, alarms, cost, and the deployment log's latest entries."""
    from pipelines import deployments, endpoint

    found = endpoint.describe(target.session, name)
    log = deployments.log(target.config, target.session, name)
    if found is None and not log:
        raise UserError(f"There is no endpoint {name}. Approve a version to deploy it: fmops approve N{target.flag}")
    if found is None:
        click.echo(f"{name}   not deployed")
    else:
        _living(target, name, found, log)
    if log:
        click.echo("  deployments")
    for item in reversed(log[-SHOWN:]):
        when = item["changed"][:16].replace("T", " ")
        reason = f"  {item['reason']}" if item["reason"] else ""
        click.echo(f"    version {deployments.version_of(item)}  {deployments.WORDS[item['state']]:<12} {when}{reason}")


def _living(target: Target, name: str, found: dict[str, Any], log: list[dict[str, Any]]) -> None:
    from pipelines import deployments, endpoint

    serving = [item for item in log if item["state"] == "in_service"]
    what = f"   version {deployments.version_of(serving[-1])}" if serving else ""
    click.echo(f"{name}   {endpoint.stage(found)}{what}")
    if found.get("FailureReason"):
        click.echo(f"  reason     {found['FailureReason']}")
    config = endpoint.configuration(target.session, found)
    kinds = {item["VariantName"]: item for item in config["ProductionVariants"]}
    weights = sum(item.get("CurrentWeight") or 0 for item in found.get("ProductionVariants") or []) or 1
    for variant in found.get("ProductionVariants") or []:
        share = (variant.get("CurrentWeight") or 0) / weights
        kind = kinds.get(variant["VariantName"], {})
        machine = (
            f"{kind['InstanceType']} x {variant.get('CurrentInstanceCount', 0)}"
            if kind.get("InstanceType")
            else f"serverless, {kind.get('ServerlessConfig', {}).get('MemorySizeInMB')} MB"
        )
        click.echo(f"  traffic    {variant['VariantName']} {share:.0%}   {machine}{_scaling(serving)}")
    if "ModelName" not in config["ProductionVariants"][0]:
        for part in endpoint.components(target.session, name):
            copies = part.get("RuntimeConfig", {}).get("CurrentCopyCount")
            shown = f"   {copies} copies" if copies is not None else ""
            click.echo(f"  component  {part['InferenceComponentName']}   {part['InferenceComponentStatus']}{shown}")
    names = [f"{name}-errors", f"{name}-latency", *target.config.endpoint.alarms.names]
    states = endpoint.alarm_states(target.session, names)
    if states:
        click.echo("  alarms     " + "   ".join(f"{alarm} {state}" for alarm, state in states.items()))
    click.echo(f"  cost       {_cost(target, endpoint.instances(found, config))}")


def _scaling(serving: list[dict[str, Any]]) -> str:
    settings = serving[-1]["settings"] if serving else {}
    low, high = settings.get("endpoint_instance_count"), settings.get("endpoint_maximum_instance_count")
    if low == high or settings.get("endpoint_mode") == "serverless":
        return ""
    return f"   scales {low} to {high}, {settings['endpoint_concurrent_requests']:g} requests each"


def _cost(target: Target, running: dict[str, int]) -> str:
    """What the instances that run now cost an hour on AWS, by the list price."""
    from pipelines.prices import hourly

    if not running:
        return "by the request; nothing while idle"
    total = 0.0
    for kind, count in running.items():
        price = hourly(target.session, target.config.aws.region, kind, local=target.local)
        if price is None:
            return f"the price of {kind} is not known here"
        total += price * count
    where = " on AWS; here it is free" if target.local else ""
    return f"${total:.2f} per hour, ${total * HOURS_A_MONTH:,.0f} a month if it stays{where}"
