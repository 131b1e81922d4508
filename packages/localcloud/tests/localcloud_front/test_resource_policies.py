"""Policies of resources: what is none is refused by each service in its own code, in requests and in stacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud_front.conftest import ACCOUNT, REGION, Clients
from localcloud_front.test_cloudformation import bucket, deploy, reasons

STATEMENT = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sns:Publish", "Resource": "*"}
NONE = [
    "x",
    "[]",
    '{"Version": "2012-10-17", "Statement": "x"}',
    *(
        json.dumps({"Version": "2012-10-17", "Statement": [{key: STATEMENT[key] for key in STATEMENT if key != left}]})
        for left in STATEMENT
    ),
]
ONE = json.dumps({"Version": "2012-10-17", "Statement": STATEMENT})


@pytest.fixture(scope="module")
def calls(running: Any) -> Iterator[dict[str, tuple[Callable[[str], Any], str]]]:
    """How each service is given a policy, and the code of its refusal."""
    aws = Clients(running)
    kms, sns, sqs, s3, events, logs = map(aws, ("kms", "sns", "sqs", "s3", "events", "logs"))
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    topic = sns.create_topic(Name="policies")["TopicArn"]
    queue = sqs.create_queue(QueueName="policies")["QueueUrl"]
    s3.create_bucket(Bucket="policies-of-a-bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    yield {
        "key": (lambda text: kms.create_key(Policy=text), "MalformedPolicyDocumentException"),
        "key policy": (
            lambda text: kms.put_key_policy(KeyId=key, PolicyName="default", Policy=text),
            "MalformedPolicyDocumentException",
        ),
        "topic": (lambda text: sns.create_topic(Name="with", Attributes={"Policy": text}), "InvalidParameter"),
        "topic policy": (
            lambda text: sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=text),
            "InvalidParameter",
        ),
        "queue": (
            lambda text: sqs.create_queue(QueueName="with", Attributes={"Policy": text}),
            "InvalidAttributeValue",
        ),
        "queue policy": (
            lambda text: sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": text}),
            "InvalidAttributeValue",
        ),
        "bucket": (lambda text: s3.put_bucket_policy(Bucket="policies-of-a-bucket", Policy=text), "MalformedPolicy"),
        "bus": (lambda text: events.put_permission(Policy=text), "ValidationException"),
        "log groups": (
            lambda text: logs.put_resource_policy(policyName="p", policyDocument=text),
            "InvalidParameterException",
        ),
    }
    aws.close()


@pytest.mark.parametrize(
    "kind", ["key", "key policy", "topic", "topic policy", "queue", "queue policy", "bucket", "bus", "log groups"]
)
def test_what_is_no_policy_is_refused(calls: dict[str, tuple[Callable[[str], Any], str]], kind: str) -> None:
    call, code = calls[kind]
    for text in NONE:
        with pytest.raises(ClientError) as error:
            call(text)
        assert (text, error.value.response["Error"]["Code"]) == (text, code)
    call(ONE)


def test_a_stack_with_a_policy_that_is_none_fails(aws: Clients) -> None:
    policy = {
        "Bucket": "stacked-policy",
        "PolicyDocument": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow"}]},
    }
    stack = deploy(
        aws,
        "stacked-policy",
        {
            "Bucket": bucket("stacked-policy"),
            "Policy": {"Type": "AWS::S3::BucketPolicy", "DependsOn": "Bucket", "Properties": policy},
        },
    )
    assert stack["StackStatus"].startswith("ROLLBACK")
    assert "Invalid policy: Missing required field Principal (MalformedPolicy)" in reasons(aws, stack)
