"""Lambda refuses code that isn't there and roles that it can't assume; what isn't there is told by all services."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud_front.conftest import ACCOUNT, CODE, REGION, TRUST, Clients, function, zipped

NO_OBJECT = "Error occurred while GetObject. S3 Error Code: {}. S3 Error Message: The specified {} does not exist"


def refused(call: Any, **members: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        call(**members)
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"].rstrip(".")


def test_code_has_to_be_in_s3(aws: Clients, bucket: str) -> None:
    absent = [
        ({"S3Bucket": "there-is-no-such", "S3Key": "k"}, NO_OBJECT.format("NoSuchBucket", "bucket")),
        ({"S3Bucket": bucket, "S3Key": "k"}, NO_OBJECT.format("NoSuchKey", "key")),
    ]
    role = aws("iam").create_role(RoleName="code-role", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    settings = {"FunctionName": "nowhere", "Runtime": "python3.12", "Handler": "app.handler", "Role": role}
    function(aws, CODE, FunctionName="somewhere")
    for code, message in absent:
        wanted = ("InvalidParameterValueException", message)
        assert refused(aws("lambda").create_function, **settings, Code=code) == wanted
        assert refused(aws("lambda").update_function_code, FunctionName="somewhere", **code) == wanted
        assert refused(aws("lambda").publish_layer_version, LayerName="l", Content=code) == wanted
    assert refused(aws("lambda").create_function, **settings, Code={})[0] == "InvalidParameterValueException"
    assert refused(aws("lambda").get_function, FunctionName="nowhere")[0] == "ResourceNotFoundException"
    aws("s3").put_object(Bucket=bucket, Key="k", Body=zipped(CODE))
    aws("lambda").create_function(**settings, Code={"S3Bucket": bucket, "S3Key": "k"})
    aws("s3").delete_object(Bucket=bucket, Key="k")
    assert refused(aws("lambda").update_function_code, FunctionName="nowhere", S3Bucket=bucket, S3Key="k") == (
        "InvalidParameterValueException",
        NO_OBJECT.format("NoSuchKey", "key"),
    )


def test_the_role_lets_lambda_assume_it(aws: Clients) -> None:
    iam = aws("iam")
    statement = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    other = json.dumps({"Version": "2012-10-17", "Statement": statement})
    theirs = iam.create_role(RoleName="of-sagemaker", AssumeRolePolicyDocument=other)["Role"]["Arn"]
    both = {**statement, "Principal": {"Service": ["sagemaker.amazonaws.com", "lambda.amazonaws.com"]}}
    shared = json.dumps({"Version": "2012-10-17", "Statement": [both]})
    ours = iam.create_role(RoleName="of-both", AssumeRolePolicyDocument=shared)["Role"]["Arn"]
    unassumable = ("InvalidParameterValueException", "The role defined for the function cannot be assumed by Lambda")
    for role in (theirs, f"arn:aws:iam::{ACCOUNT}:role/absent"):
        with pytest.raises(ClientError) as error:
            function(aws, FunctionName="unassumed", Role=role)
        found = error.value.response["Error"]
        assert (found["Code"], found["Message"].rstrip(".")) == unassumable
    with pytest.raises(ClientError, match="Cross-account pass role is not allowed"):
        function(aws, FunctionName="unassumed", Role="arn:aws:iam::999999999999:role/theirs")
    function(aws, FunctionName="assumed", Role=ours)
    call = aws("lambda").update_function_configuration
    assert refused(call, FunctionName="assumed", Role=theirs) == unassumable


SIGNED = f"arn:aws:lambda:{REGION}:{ACCOUNT}:code-signing-config:csc-0123456789abcdef0"
ABSENT: list[tuple[str, str, dict[str, Any], str]] = [
    ("lambda", "list_function_url_configs", {"FunctionName": "absent"}, "ResourceNotFoundException"),
    ("lambda", "get_function_code_signing_config", {"FunctionName": "absent"}, "ResourceNotFoundException"),
    ("lambda", "delete_function_code_signing_config", {"FunctionName": "absent"}, "ResourceNotFoundException"),
    (
        *("lambda", "put_function_code_signing_config"),
        *({"FunctionName": "absent", "CodeSigningConfigArn": SIGNED}, "ResourceNotFoundException"),
    ),
    (
        *("events", "create_archive"),
        {"ArchiveName": "a", "EventSourceArn": f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/absent"},
        "ResourceNotFoundException",
    ),
    (
        *("events", "create_api_destination"),
        {
            **{"Name": "d", "ConnectionArn": f"arn:aws:events:{REGION}:{ACCOUNT}:connection/absent/1"},
            **{"InvocationEndpoint": "https://example.com", "HttpMethod": "POST"},
        },
        "ResourceNotFoundException",
    ),
    ("events", "put_permission", {"EventBusName": "absent", "StatementId": "s"}, "ResourceNotFoundException"),
    ("events", "remove_permission", {"StatementId": "absent"}, "ResourceNotFoundException"),
    ("scheduler", "list_schedules", {"GroupName": "absent"}, "ResourceNotFoundException"),
    ("logs", "stop_query", {"queryId": "absent"}, "ResourceNotFoundException"),
    ("sqs", "create_queue", {"QueueName": "a b"}, "InvalidParameterValue"),
    ("sqs", "create_queue", {"QueueName": "q", "Attributes": {"Colour": "1"}}, "InvalidAttributeName"),
]


@pytest.mark.parametrize(("service", "operation", "members", "code"), ABSENT, ids=[f"{s}-{o}" for s, o, _, _ in ABSENT])
def test_what_is_not_there_is_said_so(
    aws: Clients, service: str, operation: str, members: dict[str, Any], code: str
) -> None:
    assert refused(getattr(aws(service), operation), **members)[0] == code


def test_a_statement_that_is_there_is_removed(aws: Clients) -> None:
    aws("events").put_permission(Action="events:PutEvents", Principal=ACCOUNT, StatementId="there")
    aws("events").remove_permission(StatementId="there")
    assert refused(aws("events").remove_permission, StatementId="there")[0] == "ResourceNotFoundException"
