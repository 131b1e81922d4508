"""A list of the delegate's, read in pages of any size, loses nothing and has nothing twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import LocalCloud
from localcloud.delegate.log_filters import matcher
from localcloud.errors import AwsError
from localcloud_front.conftest import ACCOUNT, REGION, TRUST, Clients, zipped

N = 7
ROLE = f"arn:aws:iam::{ACCOUNT}:role/lister"
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f0"
PATTERN = json.dumps({"source": ["mine"]})


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """A cloud that has seven of everything."""
    with LocalCloud(tmp_path_factory.mktemp("home")) as cloud:
        clients = Clients(cloud)
        fill(clients)
        yield clients
        clients.close()


def fill(aws: Clients) -> None:
    logs, kms, events, scheduler, functions = map(aws, ("logs", "kms", "events", "scheduler", "lambda"))
    aws("iam").create_role(RoleName="lister", AssumeRolePolicyDocument=TRUST)
    logs.create_log_group(logGroupName="g")
    scheduler.create_schedule_group(Name="g")
    key = ""
    for number in range(N):
        name = f"f{number}"
        logs.create_log_group(logGroupName=f"many/{number}")
        logs.create_log_stream(logGroupName="g", logStreamName=name)
        # All at the same moments: a page has to know more than a time.
        lines = [{"timestamp": 1000 + at // 3, "message": f"{name} line {at}"} for at in range(N)]
        logs.put_log_events(logGroupName="g", logStreamName=name, logEvents=lines)
        logs.put_metric_filter(
            logGroupName="g",
            filterName=name,
            filterPattern="",
            metricTransformations=[{"metricName": "m", "metricNamespace": "n", "metricValue": "1"}],
        )
        key = kms.create_key()["KeyMetadata"]["KeyId"]
        kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key)
        events.put_rule(Name=name, EventPattern=PATTERN)
        events.create_event_bus(Name=name)
        scheduler.create_schedule(
            Name=name,
            GroupName="g",
            ScheduleExpression="rate(1 day)",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": FUNCTION, "RoleArn": ROLE},
        )
        scheduler.create_schedule_group(Name=f"more{number}")
        code = {"ZipFile": zipped("def handler(event, context): pass")}
        functions.create_function(FunctionName=name, Runtime="python3.12", Handler="app.handler", Role=ROLE, Code=code)
        functions.publish_layer_version(LayerName=name, Content=code)
        functions.create_alias(FunctionName="f0", Name=f"a{number}", FunctionVersion="$LATEST")
        aws("sqs").create_queue(QueueName=name, tags={name: "v"})
    for number in range(N):
        kms.create_grant(KeyId=key, GranteePrincipal=ROLE, Operations=["Encrypt"], Name=f"g{number}")
        kms.tag_resource(KeyId=key, Tags=[{"TagKey": f"k{number}", "TagValue": "v"}])
    for number in range(5):
        events.put_targets(Rule="f0", Targets=[{"Id": str(number), "Arn": FUNCTION}])
        events.put_targets(Rule=f"f{number + 1}", Targets=[{"Id": "same", "Arn": f"{FUNCTION}:a1"}])
    aws.last_key = key  # type: ignore[attr-defined]


LISTS: dict[str, tuple[str, dict[str, Any], Callable[[Any], str], int]] = {
    "logs DescribeLogGroups": ("logGroups", {"logGroupNamePrefix": "many/"}, lambda item: item["logGroupName"], N),
    "logs DescribeLogStreams": ("logStreams", {"logGroupName": "g"}, lambda item: item["logStreamName"], N),
    "logs DescribeMetricFilters": ("metricFilters", {"logGroupName": "g"}, lambda item: item["filterName"], N),
    "logs FilterLogEvents": ("events", {"logGroupName": "g"}, lambda item: item["message"], N * N),
    "kms ListKeys": ("Keys", {}, lambda item: item["KeyId"], N),
    "kms ListAliases": ("Aliases", {}, lambda item: item["AliasName"], N),
    "kms ListGrants": ("Grants", {"KeyId": "LAST"}, lambda item: item["GrantId"], N),
    "kms ListResourceTags": ("Tags", {"KeyId": "LAST"}, lambda item: item["TagKey"], N),
    "events ListRules": ("Rules", {}, lambda item: item["Name"], N),
    "events ListTargetsByRule": ("Targets", {"Rule": "f0"}, lambda item: item["Id"], 5),
    "events ListRuleNamesByTarget": ("RuleNames", {"TargetArn": f"{FUNCTION}:a1"}, str, 5),
    "events ListEventBuses": ("EventBuses", {}, lambda item: item["Name"], N + 1),
    "scheduler ListSchedules": ("Schedules", {"GroupName": "g"}, lambda item: item["Name"], N),
    "scheduler ListScheduleGroups": ("ScheduleGroups", {"NamePrefix": "more"}, lambda item: item["Name"], N),
    "lambda ListFunctions": ("Functions", {}, lambda item: item["FunctionName"], N),
    "lambda ListLayers": ("Layers", {}, lambda item: item["LayerName"], N),
    "lambda ListAliases": ("Aliases", {"FunctionName": "f0"}, lambda item: item["Name"], N),
    "sqs ListQueues": ("QueueUrls", {}, str, N),
    "resourcegroupstaggingapi GetResources": (
        *("ResourceTagMappingList", {"ResourceTypeFilters": ["sqs"]}, lambda item: item["ResourceARN"], N),
    ),
}
TOKENS = ("nextToken", "NextToken", "Marker", "PaginationToken")
LIMITS = ("limit", "Limit", "MaxResults", "MaxItems", "ResourcesPerPage")


def member(client: Any, operation: str, names: tuple[str, ...]) -> str:
    shape = client.meta.service_model.operation_model(operation).input_shape
    return next(name for name in names if name in shape.members)


@pytest.mark.parametrize("size", [1, 2, 3, N, 50])
@pytest.mark.parametrize("listed", LISTS)
def test_every_item_is_on_one_page(aws: Clients, listed: str, size: int) -> None:
    service, operation = listed.split()
    key, request, name, count = LISTS[listed]
    if "KeyId" in request:
        request = {"KeyId": aws.last_key}  # type: ignore[attr-defined]
    client = aws(service)
    token, limit = (member(client, operation, names) for names in (TOKENS, LIMITS))
    found: list[str] = []
    last, at = {}, ""
    while at or not last:
        last = client._make_api_call(operation, {**request, limit: size, **({token: at} if at else {})})
        assert len(last[key]) <= size
        found += map(name, last[key])
        at = last.get("NextMarker") or last.get(token) or ""
        assert last.get("Truncated", bool(at)) is bool(at)
    assert len(found) == len(set(found)) == count


@pytest.mark.parametrize(
    ("service", "operation", "request_", "code"),
    [
        ("logs", "describe_log_groups", {"nextToken": "made-up"}, "InvalidParameterException"),
        ("logs", "filter_log_events", {"logGroupName": "g", "nextToken": "made-up"}, "InvalidParameterException"),
        ("kms", "list_keys", {"Marker": "made-up"}, "InvalidMarkerException"),
        ("events", "list_rules", {"NextToken": "made-up"}, "ValidationException"),
        ("scheduler", "list_schedules", {"NextToken": "made-up"}, "ValidationException"),
        ("lambda", "list_functions", {"Marker": "made-up"}, "InvalidParameterValueException"),
    ],
)
def test_a_token_belongs_to_its_request(
    aws: Clients, service: str, operation: str, request_: dict[str, Any], code: str
) -> None:
    with pytest.raises(ClientError) as refused:
        getattr(aws(service), operation)(**request_)
    assert refused.value.response["Error"]["Code"] == code


def test_a_token_of_another_list_is_refused(aws: Clients) -> None:
    token = aws("events").list_rules(Limit=1)["NextToken"]
    with pytest.raises(ClientError, match="NextToken is not valid"):
        aws("events").list_event_buses(NextToken=token)


def test_a_page_without_a_limit_has_awss_size(aws: Clients) -> None:
    for number in range(60):
        aws("logs").create_log_group(logGroupName=f"sixty/{number}")
    answer = aws("logs").describe_log_groups(logGroupNamePrefix="sixty/")
    assert (len(answer["logGroups"]), "nextToken" in answer) == (50, True)


def test_events_are_filtered_by_stream_time_and_terms(aws: Clients) -> None:
    def found(**request: Any) -> list[str]:
        return [event["message"] for event in aws("logs").filter_log_events(logGroupName="g", **request)["events"]]

    assert len(found(logStreamNamePrefix="f1")) == N
    assert found(logStreamNames=["f2"], startTime=1001, endTime=1001) == [f"f2 line {at}" for at in (3, 4, 5)]
    assert found(filterPattern='"f3 line" -4', startTime=1001, endTime=1001) == ["f3 line 3", "f3 line 5"]
    for request, code in (
        ({"logStreamNames": ["f1"], "logStreamNamePrefix": "f"}, "InvalidParameterException"),
        ({"logStreamNames": ["absent"]}, "ResourceNotFoundException"),
        ({"filterPattern": "{ $.a = 1 }"}, "NotImplemented"),
    ):
        with pytest.raises(ClientError, match=code):
            found(**request)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("", ["", "all"], []),
        ("ERROR", ["an ERROR", "ERRORS"], ["error"]),
        ("ERROR disk", ["disk ERROR"], ["ERROR", "disk"]),
        ('"disk full" -test', ["the disk full"], ["full disk", "disk full in a test"]),
        ("?ERROR ?WARN", ["ERROR", "WARN"], ["INFO"]),
        ("?ERROR WARN", ["WARN"], ["ERROR"]),
        ('"say \\"no\\""', ['they say "no"'], ["they say no"]),
    ],
)
def test_terms(pattern: str, matching: list[str], other: list[str]) -> None:
    matches = matcher(pattern)
    assert [text for text in [*matching, *other] if matches(text)] == matching


@pytest.mark.parametrize("pattern", ["{ $.a = 1 }", "[a, b]", "%a%", 'an "open', "a:b"])
def test_patterns_of_other_kinds_are_refused(pattern: str) -> None:
    with pytest.raises(AwsError):
        matcher(pattern)
