"""EventBridge and its Scheduler refuse what AWS refuses; events reach every target that is taken."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud.delegate.timetables import is_at, is_cron, is_rate
from localcloud_front.conftest import ACCOUNT, REGION, Clients, Inside, free_port

ROLE = f"arn:aws:iam::{ACCOUNT}:role/any"
PATTERN = json.dumps({"source": ["mine"]})
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f"


def refused(call: Callable[..., Any], **members: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        call(**members)
    found = error.value.response["Error"]
    return found["Code"], found["Message"]


@pytest.fixture
def rule(aws: Clients) -> str:
    name = f"r{free_port()}"
    aws("events").put_rule(Name=name, EventPattern=PATTERN)
    return name


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("describe_rule", {"Name": "absent"}),
        ("enable_rule", {"Name": "absent"}),
        ("disable_rule", {"Name": "absent"}),
        ("list_targets_by_rule", {"Rule": "absent"}),
        ("remove_targets", {"Rule": "absent", "Ids": ["t"]}),
        ("put_targets", {"Rule": "absent", "Targets": [{"Id": "t", "Arn": FUNCTION}]}),
    ],
)
def test_a_rule_and_a_bus_have_to_be_there(aws: Clients, operation: str, members: dict[str, Any]) -> None:
    call = getattr(aws("events"), operation)
    wanted = ("ResourceNotFoundException", "Rule absent does not exist on EventBus default.")
    assert refused(call, **members) == wanted
    wanted = ("ResourceNotFoundException", "Event bus none does not exist.")
    assert refused(call, **members, EventBusName="none") == wanted


def test_a_bus_may_be_named_by_its_arn(aws: Clients) -> None:
    events = aws("events")
    arn = events.create_event_bus(Name="by-arn")["EventBusArn"]
    events.put_rule(Name="on-it", EventPattern=PATTERN, EventBusName="by-arn")
    events.disable_rule(Name="on-it", EventBusName=arn)
    assert events.describe_rule(Name="on-it", EventBusName=arn)["State"] == "DISABLED"


def test_a_rule_with_targets_stays(aws: Clients, rule: str) -> None:
    events = aws("events")
    events.put_targets(Rule=rule, Targets=[{"Id": "t", "Arn": FUNCTION}])
    wanted = ("ValidationException", "Rule can't be deleted since it has targets.")
    assert refused(events.delete_rule, Name=rule) == wanted
    events.remove_targets(Rule=rule, Ids=["t"])
    events.delete_rule(Name=rule)
    events.delete_rule(Name=rule)  # gone already: AWS says nothing
    assert refused(events.describe_rule, Name=rule)[0] == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("members", "code", "said"),
    [
        ({}, "ValidationException", "Parameter(s) EventPattern or ScheduleExpression must be specified."),
        ({"EventPattern": "{"}, "InvalidEventPatternException", "Event pattern is not valid."),
        ({"EventPattern": '{"source": "mine"}'}, "InvalidEventPatternException", "Event pattern is not valid."),
        ({"ScheduleExpression": "rate(1 hours)"}, "ValidationException", "Parameter ScheduleExpression is not valid."),
        ({"ScheduleExpression": "rate(0 minutes)"}, "ValidationException", "Parameter ScheduleExpression is not"),
        ({"ScheduleExpression": "cron(0 25 * * ? *)"}, "ValidationException", "Parameter ScheduleExpression is not"),
        (
            {"ScheduleExpression": "at(2030-01-01T00:00:00)"},
            "ValidationException",
            "Parameter ScheduleExpression is not",
        ),
        (
            {"ScheduleExpression": "rate(1 hour)", "EventBusName": "timeless"},
            "ValidationException",
            "ScheduleExpression is supported only on the default event bus.",
        ),
    ],
)
def test_a_rule_says_when(aws: Clients, members: dict[str, Any], code: str, said: str) -> None:
    if "EventBusName" in members:
        aws("events").create_event_bus(Name=members["EventBusName"])
    found = refused(aws("events").put_rule, Name="never", **members)
    assert (found[0], found[1].startswith(said)) == (code, True), found
    assert not aws("events").list_rules(NamePrefix="never")["Rules"]


@pytest.mark.parametrize(
    ("expression", "right"),
    [
        *(("cron(0 12 * * ? *)", True), ("cron(0/15 8-17 ? * MON-FRI *)", True), ("cron(0 8 L * ? 2030)", True)),
        *(("cron(0 8 ? * 2#1 *)", True), ("cron(0 8 15W JAN,jul ? 2030-2040)", True), ("cron(0 8 ? * 6L *)", True)),
        *(("cron(0 12 * * * *)", False), ("cron(0 12 ? * ? *)", False), ("cron(60 12 * * ? *)", False)),
        *(("cron(0 12 32 * ? *)", False), ("cron(0 12 * 13 ? *)", False), ("cron(0 12 ? * 8 *)", False)),
        *(("cron(0 12 * * ?)", False), ("cron(0/0 12 * * ? *)", False), ("cron(0 12 * * ? 1969)", False)),
    ],
)
def test_a_cron_expression_has_six_fields_in_their_ranges(expression: str, right: bool) -> None:
    assert is_cron(expression) is right


def test_rates_and_moments() -> None:
    assert [is_rate(text) for text in ("rate(1 day)", "rate(2 days)", "rate(2 day)", "rate(-1 days)")] == [
        *(True, True, False, False)
    ]
    assert is_rate("rate(1 hours)", strict=False)
    assert [is_at(text) for text in ("at(2030-02-28T01:02:03)", "at(2030-02-30T01:02:03)", "at(tomorrow)")] == [
        *(True, False, False)
    ]


QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:q.fifo"
PIPELINE = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/p"
GROUP = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/g"


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        ({"Arn": "nowhere"}, "ValidationException", "Parameter nowhere is not valid."),
        ({"Arn": PIPELINE}, "ValidationException", f"RoleArn is required for target {PIPELINE}."),
        ({"Arn": QUEUE}, "ValidationException", "Parameter(s) SqsParameters must be specified for target: t."),
        ({"Arn": FUNCTION, "Input": "{"}, "ValidationException", "JSON syntax error in input for target t"),
        ({"Arn": FUNCTION, "Input": "{}", "InputPath": "$"}, "ValidationException", "Only one of Input, InputPath, or"),
        (
            {"Arn": FUNCTION, "DeadLetterConfig": {"Arn": QUEUE}},
            *("NotImplemented", "localcloud does not implement events:PutTargets with DeadLetterConfig"),
        ),
        ({"Arn": GROUP, "Input": "{}"}, "NotImplemented", "localcloud does not implement events:PutTargets with Input"),
        *(
            ({"Arn": f"arn:aws:{arn}"}, "NotImplemented", f"localcloud does not implement events:PutTargets with {why}")
            for arn, why in (
                (f"kinesis:{REGION}:{ACCOUNT}:stream/s", "the target"),
                (f"firehose:{REGION}:{ACCOUNT}:deliverystream/s", "the target"),
                (f"ecs:{REGION}:{ACCOUNT}:cluster/c", "the target"),
                (f"batch:{REGION}:{ACCOUNT}:job-queue/q", "the target"),
                (f"codebuild:{REGION}:{ACCOUNT}:project/p", "the target"),
                (f"codepipeline:{REGION}:{ACCOUNT}:p", "the target"),
                (f"execute-api:{REGION}:{ACCOUNT}:a/prod/POST/x", "the target"),
                (f"ssm:{REGION}:{ACCOUNT}:document/d", "the target"),
                (f"redshift:{REGION}:{ACCOUNT}:cluster:c", "the target"),
                (f"glue:{REGION}:{ACCOUNT}:workflow/w", "the target"),
                (f"appsync:{REGION}:{ACCOUNT}:apis/a", "the target"),
                (f"sagemaker:{REGION}:{ACCOUNT}:endpoint/e", "the target"),
                (f"lambda:us-west-2:{ACCOUNT}:function:f", "a target of another account or region"),
                (f"sns:{REGION}:999999999999:t", "a target of another account or region"),
                (f"events:us-west-2:{ACCOUNT}:event-bus/b", "a target of another account or region"),
            )
        ),
    ],
)
def test_a_target_is_reached_or_refused(aws: Clients, rule: str, target: dict[str, Any], code: str, said: str) -> None:
    found = refused(aws("events").put_targets, Rule=rule, Targets=[{"Id": "t", **target}])
    assert (found[0], found[1].startswith(said)) == (code, True), found
    assert not aws("events").list_targets_by_rule(Rule=rule)["Targets"]


def test_a_rule_has_five_targets_at_most(aws: Clients, rule: str) -> None:
    targets = [{"Id": f"t{number}", "Arn": FUNCTION} for number in range(6)]
    aws("events").put_targets(Rule=rule, Targets=targets[:5])
    aws("events").put_targets(Rule=rule, Targets=targets[:5])
    assert refused(aws("events").put_targets, Rule=rule, Targets=targets[5:])[0] == "LimitExceededException"


def test_a_stacks_rule_is_held_to_the_same(aws: Clients) -> None:
    target = {"Id": "t", "Arn": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/s"}
    rule = {"Type": "AWS::Events::Rule", "Properties": {"EventPattern": {"source": ["mine"]}, "Targets": [target]}}
    cloudformation = aws("cloudformation")
    cloudformation.create_stack(StackName="to-kinesis", TemplateBody=json.dumps({"Resources": {"Rule": rule}}))
    found = eventually(lambda: _failed(cloudformation, "to-kinesis"))
    assert "localcloud does not implement events:PutTargets with the target" in found


def _failed(cloudformation: Any, name: str) -> str:
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    return next((event["ResourceStatusReason"] for event in events if event["ResourceStatus"] == "CREATE_FAILED"), "")


def eventually(probe: Callable[[], Any]) -> Any:
    for _ in range(200):
        if found := probe():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def test_entries_are_judged_one_by_one(aws: Clients) -> None:
    right = {"Source": "mine", "DetailType": "x", "Detail": "{}"}
    entries = [{}, {"Source": "mine"}, {"Source": "mine", "DetailType": "x"}, right, {**right, "Detail": "[]"}]
    entries += [{**right, "Detail": "{"}, {**right, "Source": "aws.s3"}, right]
    answer = aws("events").put_events(Entries=entries)
    required = "Parameter {0} is not valid. Reason: {0} is a required argument."
    assert [(entry.get("ErrorCode"), entry.get("ErrorMessage")) for entry in answer["Entries"]] == [
        *(("InvalidArgument", required.format(name)) for name in ("Source", "DetailType", "Detail")),
        (None, None),
        *[("MalformedDetail", "Detail is malformed.")] * 2,
        ("NotAuthorizedForSourceException", "Not authorized for the source."),
        (None, None),
    ]
    assert [bool(entry.get("EventId")) for entry in answer["Entries"]].count(True) == 2
    assert answer["FailedEntryCount"] == 6


def test_an_event_is_a_line_of_a_log_group(inside: Inside) -> None:
    cloud, aws = inside
    events, logs = aws("events"), aws("logs")
    for name in ("/aws/events/kept", "/aws/events/other"):
        logs.create_log_group(logGroupName=name)
    events.put_rule(Name="to-logs", EventPattern=PATTERN)
    group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/events/"
    targets = [{"Id": "kept", "Arn": f"{group}kept"}, {"Id": "absent", "Arn": f"{group}absent:*"}]
    events.put_targets(Rule="to-logs", Targets=targets)
    entry = {"Source": "mine", "DetailType": "told", "Detail": '{"a": 1}'}
    events.put_events(Entries=[entry])
    log = cloud.home / "localcloud.log"
    eventually(lambda: "no resource policy of the logs lets events.amazonaws.com" in log.read_text())
    statement = {"Effect": "Allow", "Principal": {"Service": ["events.amazonaws.com"]}, "Resource": f"{group}*"}
    policy = {"Version": "2012-10-17", "Statement": [{**statement, "Action": ["logs:PutLogEvents"]}]}
    logs.put_resource_policy(policyName="events", policyDocument=json.dumps(policy))
    for _ in range(2):
        events.put_events(Entries=[entry])
    found = logs.filter_log_events(logGroupName="/aws/events/kept")["events"]
    assert len({event["logStreamName"] for event in found}) == 2
    document = json.loads(found[0]["message"])
    assert (document["source"], document["detail-type"], document["detail"]) == ("mine", "told", {"a": 1})
    assert "there is no such log group" in log.read_text()


SCHEDULE = {
    **{"Name": "s", "ScheduleExpression": "rate(1 hours)", "FlexibleTimeWindow": {"Mode": "OFF"}},
    "Target": {"Arn": FUNCTION, "RoleArn": ROLE},
}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"ScheduleExpression": "every day"}, "ValidationException"),
        ({"ScheduleExpression": "cron(0 12 * * * *)"}, "ValidationException"),
        ({"ScheduleExpression": "at(2030-02-30T00:00:00)"}, "ValidationException"),
        ({"GroupName": "none"}, "ResourceNotFoundException"),
        ({"FlexibleTimeWindow": {"Mode": "FLEXIBLE"}}, "ValidationException"),
        ({"Target": {"Arn": FUNCTION, "RoleArn": ROLE, "DeadLetterConfig": {"Arn": QUEUE[:-5]}}}, "NotImplemented"),
        ({"Target": {"Arn": "arn:aws:scheduler:::aws-sdk:s3:putObject", "RoleArn": ROLE}}, "NotImplemented"),
        ({"ScheduleExpression": "cron(0 8 * * ? *)", "ScheduleExpressionTimezone": "Europe/Berlin"}, "NotImplemented"),
    ],
)
def test_a_schedule_is_kept_to_or_refused(aws: Clients, changed: dict[str, Any], code: str) -> None:
    assert refused(aws("scheduler").create_schedule, **{**SCHEDULE, **changed})[0] == code
    assert not aws("scheduler").list_schedules(NamePrefix="s")["Schedules"]


def test_a_schedule_is_made_and_changed(aws: Clients) -> None:
    scheduler = aws("scheduler")
    changed = {**SCHEDULE, "Name": "right", "ScheduleExpressionTimezone": "Europe/Berlin"}
    scheduler.create_schedule(**changed)
    scheduler.update_schedule(
        **{**changed, "ScheduleExpression": "at(2090-01-01T00:00:00)", "ScheduleExpressionTimezone": "UTC"}
    )
    assert refused(scheduler.update_schedule, **{**changed, "ScheduleExpression": "never"})[0] == "ValidationException"
    scheduler.delete_schedule(Name="right")
