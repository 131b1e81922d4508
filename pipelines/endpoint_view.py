"""Words an endpoint for people: what `fmops endpoint` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from configuration.errors import UserError
from pipelines import bedrock_endpoint, deployments, endpoint
from pipelines.prices import hourly

if TYPE_CHECKING:
    import boto3

    from configuration.config import Config

HOURS_A_MONTH = 730
SHOWN = 8
"""Deployments listed, newest first."""


def summary(config: Config, session: boto3.Session, name: str, local: bool) -> list[str]:
    """Status, variants, components, alarms, cost, and the deployment log's latest entries.

    Raises UserError where there is neither an endpoint nor a log.
    """
    lines: list[str] = []
    door = name if bedrock_endpoint.is_front_door(name) else f"{name}{bedrock_endpoint.SUFFIX}"
    if door != name:
        found, log = endpoint.describe(session, name), deployments.log(config, session, name)
        if found is not None:
            lines += _living(config, session, name, found, log, local)
        elif log:
            lines.append(f"{name}   not deployed")
        lines += _listed(log)
    if beside := deployments.log(config, session, door):
        lines += [*bedrock_endpoint.lines(door, beside), *_listed(beside)]
    if not lines:
        raise UserError(f"There is no endpoint {name}. {bedrock_endpoint.UNTIL_DEPLOYED}")
    return lines


def _listed(log: list[dict[str, Any]]) -> list[str]:
    """The latest deployments."""
    lines = []
    if log:
        lines.append("  deployments")
    for item in reversed(log[-SHOWN:]):
        when = item["changed"][:16].replace("T", " ")
        reason = f"  {item['reason']}" if item["reason"] else ""
        lines.append(
            f"    version {deployments.version_of(item)}  {deployments.WORDS[item['state']]:<12} {when}{reason}"
        )
    return lines


def _living(
    config: Config, session: boto3.Session, name: str, found: dict[str, Any], log: list[dict[str, Any]], local: bool
) -> Iterator[str]:
    serving = [item for item in log if item["state"] == "in_service"]
    what = f"   version {deployments.version_of(serving[-1])}" if serving else ""
    yield f"{name}   {endpoint.stage(found)}{what}"
    if found.get("FailureReason"):
        yield f"  reason     {found['FailureReason']}"
    configuration = endpoint.configuration(session, found)
    if configuration is None:
        gone, again = found["EndpointConfigName"], deployments.version_of(serving[-1]) if serving else "N"
        yield f"  missing    {gone} was deleted by hand; requests are answered. Repair it: fmops deploy {again}"
        return
    kinds = {item["VariantName"]: item for item in configuration["ProductionVariants"]}
    weights = sum(item.get("CurrentWeight") or 0 for item in found.get("ProductionVariants") or []) or 1
    for variant in found.get("ProductionVariants") or []:
        share = (variant.get("CurrentWeight") or 0) / weights
        kind = kinds.get(variant["VariantName"], {})
        running = endpoint.machines(variant, kind)
        machine = (
            ", ".join(f"{name} x {count}" for name, count in running.items())
            if running
            else f"serverless, {kind.get('ServerlessConfig', {}).get('MemorySizeInMB')} MB"
        )
        yield f"  traffic    {variant['VariantName']} {share:.0%}   {machine}{_scaling(serving)}"
    if "ModelName" not in configuration["ProductionVariants"][0]:
        for part in endpoint.components(session, name):
            copies = part.get("RuntimeConfig", {}).get("CurrentCopyCount")
            shown = f"   {copies} copies" if copies is not None else ""
            yield f"  component  {part['InferenceComponentName']}   {part['InferenceComponentStatus']}{shown}"
    names = [f"{name}-errors", f"{name}-latency", *config.endpoint.alarms.names]
    states = endpoint.alarm_states(session, names)
    if states:
        yield "  alarms     " + "   ".join(f"{alarm} {state}" for alarm, state in states.items())
    yield f"  cost       {_cost(config, session, endpoint.instances(found, configuration), local)}"


def _scaling(serving: list[dict[str, Any]]) -> str:
    settings = serving[-1]["settings"] if serving else {}
    low, high = settings.get("endpoint_instance_count"), settings.get("endpoint_maximum_instance_count")
    if low == high or settings.get("endpoint_mode") == "serverless":
        return ""
    return f"   scales {low} to {high}, {settings['endpoint_concurrent_requests']:g} requests each"


def _cost(config: Config, session: boto3.Session, running: dict[str, int], local: bool) -> str:
    """What the instances that run now cost an hour on AWS, by the list price."""
    if not running:
        return "by the request; nothing while idle"
    total = 0.0
    for kind, count in running.items():
        price = hourly(session, config.aws.region, kind, local=local)
        if price is None:
            return f"the price of {kind} is not known here"
        total += price * count
    where = " on AWS; here it is free" if local else ""
    return f"${total:.2f} per hour, ${total * HOURS_A_MONTH:,.0f} a month if it stays{where}"
