"""EventBridge and its Scheduler: what they refuse of rules, targets, entries and schedules, and what localcloud does.

Each check is called in the scope of the caller, before the delegate sees the request or makes a stack's resource.
"""

from __future__ import annotations

import json
import re
from typing import Any

from localcloud.delegate import timetables
from localcloud.errors import AwsError
from localcloud.hooks import bus, scope

Members = dict[str, Any]
_MOST_TARGETS = 5
_DELIVERED = "Lambda, SQS, SNS, Step Functions, SageMaker pipelines, CloudWatch Logs, event buses, API destinations"
_KINDS = {
    "lambda": re.compile(r"function:.+"),
    "sqs": re.compile(r".+"),
    "sns": re.compile(r".+"),
    "states": re.compile(r"stateMachine:.+"),
    "sagemaker": re.compile(r"pipeline/.+", re.IGNORECASE),
    "logs": re.compile(r"log-group:[^:]+(:\*)?"),
    "events": re.compile(r"(event-bus|api-destination)/.+"),
}
"""The kinds of targets that events reach, by the service and the resource of their ARNs."""
_SCHEDULED = _KINDS.keys() - {"logs"}
_BY_A_ROLE = ("states", "sagemaker")
_INPUTS = ("Input", "InputPath", "InputTransformer")


def invalid(message: str) -> AwsError:
    return AwsError("ValidationException", message)


def put_rule(rule: Members) -> None:
    _bus(rule)
    schedule, pattern = rule.get("ScheduleExpression"), rule.get("EventPattern")
    if not schedule and not pattern:
        raise invalid("Parameter(s) EventPattern or ScheduleExpression must be specified.")
    if schedule and bus.bus_name(rule.get("EventBusName")) != "default":
        raise invalid("ScheduleExpression is supported only on the default event bus.")
    if schedule and not (timetables.is_rate(schedule) or timetables.is_cron(schedule)):
        raise invalid("Parameter ScheduleExpression is not valid.")
    problem = bus.pattern_error(pattern) if pattern else ""
    if problem:
        raise AwsError("InvalidEventPatternException", f"Event pattern is not valid. Reason: {problem}")


def existing_rule(request: Members) -> None:
    """Of operations that name the rule `Name` or `Rule`."""
    _bus(request)
    name = request.get("Rule") or request.get("Name") or ""
    if not bus.has_rule(name, request.get("EventBusName")):
        on = bus.bus_name(request.get("EventBusName"))
        raise AwsError("ResourceNotFoundException", f"Rule {name} does not exist on EventBus {on}.")


def delete_rule(request: Members) -> None:
    """A rule that isn't there is deleted already."""
    if bus.targets_of(request["Name"], request.get("EventBusName")):
        raise invalid("Rule can't be deleted since it has targets.")


def list_rules(request: Members) -> None:
    _bus(request)


def _bus(request: Members) -> None:
    reference = request.get("EventBusName")
    if not bus.has_bus(reference):
        raise AwsError("ResourceNotFoundException", f"Event bus {bus.bus_name(reference)} does not exist.")


def put_targets(request: Members) -> None:
    existing_rule(request)
    there = {target["Id"] for target in bus.targets_of(request["Rule"], request.get("EventBusName"))}
    if len(there | {target["Id"] for target in request["Targets"]}) > _MOST_TARGETS:
        raise AwsError("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
    check_targets(request["Targets"])


def check_targets(targets: list[Members]) -> None:
    """Of PutTargets and of a stack's rule."""
    for target in targets:
        name, arn = str(target.get("Id", "")), str(target.get("Arn", ""))
        service, resource = _target(arn, "events:PutTargets")
        _no_dead_letters(target, "events:PutTargets")
        if service in _BY_A_ROLE and not target.get("RoleArn"):
            raise invalid(f"RoleArn is required for target {arn}.")
        given = [member for member in _INPUTS if target.get(member) is not None]
        if len(given) > 1:
            raise invalid(f"Only one of Input, InputPath, or InputTransformer must be provided for target {name}.")
        if "Input" in given and not _is_json(target["Input"]):
            raise invalid(f"JSON syntax error in input for target {name}")
        if resource.endswith(".fifo") and service == "sqs" and not target.get("SqsParameters"):
            raise invalid(f"Parameter(s) SqsParameters must be specified for target: {name}.")
        if service == "logs" and given:
            raise _not_done("events:PutTargets", f"{given[0]} for the log group {arn}: it gets whole events")


def _target(arn: str, operation: str, kinds: Any = _KINDS) -> tuple[str, str]:
    """Service and resource of a target that is reached; AwsError NotImplemented, ValidationException."""
    parts = arn.split(":", 5)
    if len(parts) < 6 or parts[0] != "arn" or not parts[2] or not parts[5]:
        raise invalid(f"Parameter {arn} is not valid. Reason: Provided Arn is not in correct format.")
    _, _, service, region, account, resource = parts
    if service not in kinds or not _KINDS[service].fullmatch(resource):
        raise _not_done(operation, f"the target {arn}; it delivers to {_DELIVERED}")
    if (account, region) != scope.here():
        raise _not_done(operation, f"a target of another account or region: {arn}")
    return service, resource


def _no_dead_letters(target: Members, operation: str) -> None:
    if target.get("DeadLetterConfig"):
        raise _not_done(operation, "DeadLetterConfig: an event that can't be delivered is logged and lost")


def _not_done(operation: str, what: str) -> AwsError:
    return AwsError("NotImplemented", f"localcloud does not implement {operation} with {what}", 501)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def check_entry(entry: Members) -> tuple[str, str] | None:
    """Code and message of an entry of PutEvents that is refused."""
    for member in ("Source", "DetailType", "Detail"):
        if not entry.get(member):
            return "InvalidArgument", f"Parameter {member} is not valid. Reason: {member} is a required argument."
    try:
        detail = json.loads(entry["Detail"])
    except ValueError:
        detail = None
    return None if isinstance(detail, dict) else ("MalformedDetail", "Detail is malformed.")


def put_schedule(schedule: Members) -> None:
    """Of CreateSchedule, UpdateSchedule and of a stack's schedule."""
    expression, zone = str(schedule["ScheduleExpression"]), schedule.get("ScheduleExpressionTimezone") or "UTC"
    rate = timetables.is_rate(expression, strict=False)
    if not (rate or timetables.is_cron(expression) or timetables.is_at(expression)):
        raise invalid(f"Invalid Schedule Expression {expression}.")
    if zone != "UTC" and not rate:
        raise _not_done("scheduler:ScheduleExpressionTimezone", f"{zone}: its schedules keep to UTC")
    window = schedule.get("FlexibleTimeWindow") or {}
    if (window.get("Mode") == "FLEXIBLE") != (window.get("MaximumWindowInMinutes") is not None):
        raise invalid("MaximumWindowInMinutes is required in flexible mode, and not allowed when it is off.")
    group = schedule.get("GroupName") or "default"
    if not bus.has_schedule_group(group):
        raise AwsError("ResourceNotFoundException", f"Schedule group {group} does not exist.", 404)
    target = schedule["Target"]
    service, resource = _target(str(target.get("Arn", "")), "scheduler:Target", _SCHEDULED)
    _no_dead_letters(target, "scheduler:Target")
    if resource.endswith(".fifo") and service == "sqs" and not target.get("SqsParameters"):
        raise invalid("MessageGroupId is required for a FIFO queue.")


REQUESTS = {
    ("events", "PutRule"): put_rule,
    ("events", "DeleteRule"): delete_rule,
    ("events", "ListRules"): list_rules,
    ("events", "PutTargets"): put_targets,
    **{
        ("events", operation): existing_rule
        for operation in ("DescribeRule", "EnableRule", "DisableRule", "ListTargetsByRule", "RemoveTargets")
    },
    ("scheduler", "CreateSchedule"): put_schedule,
    ("scheduler", "UpdateSchedule"): put_schedule,
}
"""What is looked at before it goes to the delegate, by service and operation."""
