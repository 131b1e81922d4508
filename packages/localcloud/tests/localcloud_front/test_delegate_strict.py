"""What botocore's model demands of a request is demanded of the delegate's services too, each in its own code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from localcloud import control
from localcloud.errors import AwsError
from localcloud.forms import members
from localcloud.protocol import operation_model
from localcloud_front.conftest import ACCOUNT, REGION, TRUST, Clients, zipped

ROLE = f"arn:aws:iam::{ACCOUNT}:role/any"


class Unchecked(Clients):
    """Clients that send what they are told to, as other SDKs do."""

    def __call__(self, service: str) -> Any:
        if service not in self._open:
            self._open[service] = boto3.client(
                service,
                endpoint_url=self.url,
                region_name=self.region,
                aws_access_key_id=self.key[0],
                aws_secret_access_key=self.key[1],
                config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
            )
        return self._open[service]


@pytest.fixture
def unchecked(running: control.Info) -> Iterator[Clients]:
    clients = Unchecked(running)
    yield clients
    clients.close()


FUNCTION = {
    **{"FunctionName": "f", "Runtime": "python3.12", "Handler": "app.handler", "Role": ROLE},
    "Code": {"ZipFile": b"zip"},
}
SCHEDULE = {
    **{"Name": "s", "ScheduleExpression": "rate(1 hour)", "FlexibleTimeWindow": {"Mode": "OFF"}},
    "Target": {"Arn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f", "RoleArn": ROLE},
}
BROKEN: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("logs", "create_log_group", {"logGroupName": "a group"}, "InvalidParameterException", "logGroupName"),
    ("logs", "describe_log_groups", {"limit": 51}, "InvalidParameterException", "'limit'"),
    ("logs", "put_log_events", {"logGroupName": "g", "logStreamName": "s"}, "InvalidParameterException", "logEvents"),
    ("kms", "create_alias", {"AliasName": "alias/a b", "TargetKeyId": "k"}, "ValidationException", "aliasName"),
    ("kms", "list_keys", {"Limit": 0}, "ValidationException", "limit"),
    ("kms", "describe_key", {}, "ValidationException", "keyId"),
    ("events", "put_rule", {"Name": "a b", "EventPattern": '{"a": ["b"]}'}, "ValidationException", "name"),
    ("events", "put_rule", {"Name": "a", "State": "ON", "EventPattern": "{}"}, "ValidationException", "state"),
    ("events", "put_targets", {"Rule": "r", "Targets": [{"Id": "t"}]}, "ValidationException", "targets.1.member.arn"),
    ("events", "put_events", {"Entries": []}, "ValidationException", "entries"),
    ("scheduler", "create_schedule", {**SCHEDULE, "State": "ON"}, "ValidationException", "state"),
    ("scheduler", "create_schedule", {**SCHEDULE, "Target": {"Arn": "a"}}, "ValidationException", "target.roleArn"),
    ("scheduler", "list_schedules", {"MaxResults": 101}, "ValidationException", "maxResults"),
    ("lambda", "create_function", {**FUNCTION, "Runtime": "cobol"}, "ValidationException", "runtime"),
    ("lambda", "create_function", {**FUNCTION, "Role": "any"}, "ValidationException", "role"),
    ("lambda", "create_function", {**FUNCTION, "MemorySize": 1}, "ValidationException", "memorySize"),
    ("lambda", "get_function", {"FunctionName": "a b"}, "ValidationException", "functionName"),
    ("iam", "create_role", {"RoleName": "a b", "AssumeRolePolicyDocument": TRUST}, "ValidationError", "roleName"),
    ("iam", "create_role", {"RoleName": "a"}, "ValidationError", "assumeRolePolicyDocument"),
    ("iam", "list_roles", {"MaxItems": 1001}, "ValidationError", "maxItems"),
    ("sts", "assume_role", {"RoleArn": ROLE, "RoleSessionName": "a b"}, "ValidationError", "roleSessionName"),
    (
        "sts",
        "assume_role",
        {"RoleArn": ROLE, "RoleSessionName": "s", "Tags": [{"Key": "k"}]},
        "ValidationError",
        "value",
    ),
    ("cloudformation", "create_stack", {"StackName": "s", "OnFailure": "WAIT"}, "ValidationError", "onFailure"),
    ("sns", "subscribe", {"TopicArn": "t"}, "ValidationError", "protocol"),
    ("resourcegroupstaggingapi", "tag_resources", {"ResourceARNList": []}, "InvalidParameterException", "tags"),
]


@pytest.mark.parametrize(
    ("service", "method", "request_", "code", "said"), BROKEN, ids=[f"{s}-{m}-{w}" for s, m, _, _, w in BROKEN]
)
def test_what_breaks_the_model_is_refused_in_the_services_own_code(
    unchecked: Clients, service: str, method: str, request_: dict[str, Any], code: str, said: str
) -> None:
    with pytest.raises(ClientError) as refused:
        getattr(unchecked(service), method)(**request_)
    error = refused.value.response["Error"]
    assert error["Code"] == code
    assert "validation error" in error["Message"]
    assert said in error["Message"]


def test_members_that_the_model_does_not_have_are_let_be(unchecked: Clients) -> None:
    logs = unchecked("logs")
    change = "before-call.logs.DescribeLogGroups"
    logs.meta.events.register(change, lambda params, **_: params.update(body=b'{"later": 1}'))
    assert "logGroups" in logs.describe_log_groups()


def test_what_the_delegate_names_may_be_named_to_it(aws: Clients) -> None:
    """Its ARNs aren't all as the model wants them, and numbers in a path are numbers."""
    events, functions = aws("events"), aws("lambda")
    parameters = {"BasicAuthParameters": {"Username": "u", "Password": "p"}}
    arn = events.create_connection(Name="named", AuthorizationType="BASIC", AuthParameters=parameters)["ConnectionArn"]
    there = {"Name": "named", "InvocationEndpoint": "https://example.com", "HttpMethod": "POST"}
    assert events.create_api_destination(**there, ConnectionArn=arn)["ApiDestinationState"] == "ACTIVE"
    layer = functions.publish_layer_version(LayerName="named", Content={"ZipFile": zipped("")})
    found = functions.get_layer_version(LayerName=layer["LayerArn"], VersionNumber=1)
    assert functions.get_layer_version_by_arn(Arn=found["LayerVersionArn"])["Version"] == 1


def test_a_form_is_read_as_the_model_says() -> None:
    pairs = [
        *(("RoleName", "r"), ("MaxSessionDuration", "3600"), ("Tags.member.2.Key", "b"), ("Tags.member.2.Value", "2")),
        *(("Tags.member.1.Key", "a"), ("Tags.member.1.Value", ""), ("Action", "CreateRole")),
    ]
    assert members(operation_model("iam", "CreateRole").input_shape, pairs) == {
        "RoleName": "r",
        "MaxSessionDuration": 3600,
        "Tags": [{"Key": "a", "Value": ""}, {"Key": "b", "Value": "2"}],
    }
    shape = operation_model("sns", "CreateTopic").input_shape
    pairs = [("Name", "t"), ("Attributes.entry.1.key", "DisplayName"), ("Attributes.entry.1.value", "d"), ("Tags", "")]
    assert members(shape, pairs) == {"Name": "t", "Attributes": {"DisplayName": "d"}, "Tags": []}
    for odd in (
        [("Name.a", "t")],
        [("Name", "t"), ("Name.a", "t")],
        [("Tags.member.x.Key", "k")],
        [(f"Tags.member.{'9' * 5000}.Key", "k")],
        [("Tags", "k")],
    ):
        with pytest.raises(AwsError, match="MalformedInput"):
            members(shape, odd)
