"""Policies of buckets, keys, topics, queues, buses and log groups: MiniStack keeps whatever text it is given.

Each service refuses what is no policy in its own code, by botocore's models and its API reference.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from localcloud.delegate.policy_grammar import check_resource
from localcloud.errors import AwsError

Members = dict[str, Any]
Check = Callable[[Members], None]
_CODES = {
    "events": "ValidationException",
    "kms": "MalformedPolicyDocumentException",
    "logs": "InvalidParameterException",
    "s3": "MalformedPolicy",
    "sns": "InvalidParameter",
    "sqs": "InvalidAttributeValue",
}


def check(service: str, text: str) -> None:
    """AwsError in the service's code when a text is no policy of a resource; an empty one takes the policy away."""
    if not text:
        return
    try:
        check_resource(text)
    except AwsError as error:
        raise AwsError(_CODES[service], f"Invalid policy: {error.message}") from None


def _member(service: str, name: str) -> Check:
    return lambda request: check(service, str(request.get(name) or ""))


def _attributes(service: str) -> Check:
    return lambda request: check(service, str((request.get("Attributes") or {}).get("Policy") or ""))


def _topic(request: Members) -> None:
    if request.get("AttributeName") == "Policy":
        check("sns", str(request.get("AttributeValue") or ""))


def of_stack(service: str, name: str) -> Check:
    """Of a resource in a template, whose policy is an object."""

    def checked(properties: Members) -> None:
        document = properties.get(name)
        if document is not None:
            check(service, document if isinstance(document, str) else json.dumps(document, default=str))

    return checked


REQUESTS: dict[tuple[str, str], Check] = {
    ("events", "PutPermission"): _member("events", "Policy"),
    ("kms", "CreateKey"): _member("kms", "Policy"),
    ("kms", "PutKeyPolicy"): _member("kms", "Policy"),
    ("logs", "PutResourcePolicy"): _member("logs", "policyDocument"),
    ("sns", "CreateTopic"): _attributes("sns"),
    ("sns", "SetTopicAttributes"): _topic,
    ("sqs", "CreateQueue"): _attributes("sqs"),
    ("sqs", "SetQueueAttributes"): _attributes("sqs"),
}
STACKS: dict[str, Check] = {
    "AWS::KMS::Key": of_stack("kms", "KeyPolicy"),
    "AWS::S3::BucketPolicy": of_stack("s3", "PolicyDocument"),
    "AWS::SNS::TopicPolicy": of_stack("sns", "PolicyDocument"),
    "AWS::SQS::QueuePolicy": of_stack("sqs", "PolicyDocument"),
}
"""What is looked at before it goes to the delegate, by operation and by resource type."""
