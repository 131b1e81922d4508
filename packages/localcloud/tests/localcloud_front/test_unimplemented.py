"""An operation that AWS has and nobody here does is a 501 by name; one that AWS doesn't have is AWS's own refusal."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlencode

import pytest
from botocore.exceptions import ClientError

from localcloud import control
from localcloud_front.conftest import Clients, signed

KEY = "0" * 8 + "-0000-0000-0000-" + "0" * 12
UNIMPLEMENTED = [
    ("logs", "describe_query_definitions", {}),
    ("kms", "rotate_key_on_demand", {"KeyId": KEY}),
    ("sns", "list_origination_numbers", {}),
    ("sqs", "list_message_move_tasks", {"SourceArn": "arn:aws:sqs:eu-west-1:123456789012:q"}),
    ("sts", "decode_authorization_message", {"EncodedMessage": "m"}),
    ("iam", "list_server_certificates", {}),
    ("cloudformation", "list_types", {}),
    ("resourcegroupstaggingapi", "get_compliance_summary", {}),
    ("cloudwatch", "list_metric_streams", {}),
    ("ssm", "list_documents", {}),
    ("lambda", "list_function_versions_by_capacity_provider", {"CapacityProviderName": "c"}),
]


@pytest.mark.parametrize(("service", "method", "members"), UNIMPLEMENTED, ids=[f"{s}-{m}" for s, m, _ in UNIMPLEMENTED])
def test_what_aws_has_and_nobody_here_does_is_refused_by_name(
    aws: Clients, service: str, method: str, members: dict[str, str]
) -> None:
    with pytest.raises(ClientError) as refused:
        getattr(aws(service), method)(**members)
    error, meta = refused.value.response["Error"], refused.value.response["ResponseMetadata"]
    signing = aws(service).meta.service_model.signing_name
    operation = aws(service).meta.method_to_api_mapping[method]
    assert (error["Code"], meta["HTTPStatusCode"]) == ("NotImplemented", 501)
    assert error["Message"] == f"localcloud does not implement {signing}:{operation}"


def ask(at: control.Info, service: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=300)
    try:
        connection.request("POST", "/", body, {**headers, **signed(at, service, "POST", "/", headers, body)})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("service", "prefix"),
    [
        ("logs", "Logs_20140328"),
        ("kms", "TrentService"),
        ("events", "AWSEvents"),
        ("tagging", "ResourceGroupsTaggingAPI_20170126"),
    ],
)
def test_what_aws_does_not_have_is_an_unknown_operation(running: control.Info, service: str, prefix: str) -> None:
    headers = {"X-Amz-Target": f"{prefix}.MakeCoffee", "Content-Type": "application/x-amz-json-1.1"}
    status, text = ask(running, service, headers, b"{}")
    assert (status, json.loads(text)["__type"]) == (400, "UnknownOperationException"), text


@pytest.mark.parametrize(("service", "version"), [("iam", "2010-05-08"), ("sns", "2010-03-31"), ("sts", "2011-06-15")])
def test_what_aws_does_not_have_is_an_invalid_action(running: control.Info, service: str, version: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    form = urlencode({"Action": "MakeCoffee", "Version": version}).encode()
    status, text = ask(running, service, headers, form)
    assert status == 400, text
    assert f"<Code>InvalidAction</Code><Message>Could not find operation MakeCoffee for version {version}<" in text
