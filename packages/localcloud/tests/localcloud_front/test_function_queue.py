"""Lambda's queue of events: what a function fails on is tried again, and kept; what finds it busy waits."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from localcloud import control
from localcloud_front.conftest import Clients, free_port, function

# Each try leaves its event in a queue; a third of a second makes tries meet; "fails" says how many of them fail.
NOTED = """
import boto3, json, os, time

def handler(event, context):
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName=os.environ["TRIES"])["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(event))
    time.sleep(0.3)
    open("/tmp/tries", "a").write("x")
    if os.path.getsize("/tmp/tries") <= int(os.environ["FAILS"]):
        raise RuntimeError("not yet")
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Of a localcloud whose clock makes the pauses between two tries short."""
    home = tmp_path_factory.mktemp("home")
    clients = Clients(control.up(home, free_port(), parent=os.getpid(), clock_speed=20))
    yield clients
    clients.close()
    control.down(home)


def messages(aws: Clients, queue: str, count: int) -> list[Any]:
    """The bodies of `count` messages, however long they take; AssertionError when they never come."""
    url, found = aws("sqs").get_queue_url(QueueName=queue)["QueueUrl"], []
    deadline = time.monotonic() + 300
    while len(found) < count:
        assert time.monotonic() < deadline, found
        answer = aws("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in answer.get("Messages", []):
            found.append(json.loads(message["Body"]))
            aws("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def left(aws: Clients, queue: str) -> list[Any]:
    found = aws("sqs").receive_message(QueueUrl=aws("sqs").get_queue_url(QueueName=queue)["QueueUrl"])
    return list(found.get("Messages", []))


def arn_of(aws: Clients, queue: str) -> str:
    url = aws("sqs").create_queue(QueueName=queue)["QueueUrl"]
    return str(aws("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"])


def by_rule(aws: Clients, arn: str, count: int) -> None:
    name = arn.rsplit(":", 1)[1]
    aws("events").put_rule(Name=name, EventPattern=json.dumps({"source": [name]}))
    aws("events").put_targets(Rule=name, Targets=[{"Id": "t", "Arn": arn}])
    entries = [{"Source": name, "DetailType": "d", "Detail": json.dumps({"number": n})} for n in range(count)]
    assert aws("events").put_events(Entries=entries)["FailedEntryCount"] == 0


def by_topic(aws: Clients, arn: str, count: int) -> None:
    topic = aws("sns").create_topic(Name=arn.rsplit(":", 1)[1])["TopicArn"]
    aws("sns").subscribe(TopicArn=topic, Protocol="lambda", Endpoint=arn)
    for number in range(count):
        aws("sns").publish(TopicArn=topic, Message=str(number))


def by_invoke(aws: Clients, arn: str, count: int) -> None:
    for number in range(count):
        payload = json.dumps({"number": number}).encode()
        aws("lambda").invoke(FunctionName=arn, InvocationType="Event", Payload=payload)


WAYS: list[Callable[[Clients, str, int], None]] = [by_rule, by_topic, by_invoke]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[Clients, str, int], None]:
    found: Callable[[Clients, str, int], None] = request.param
    return found


def noted(aws: Clients, name: str, fails: int, **settings: Any) -> str:
    arn_of(aws, f"{name}-tries")
    variables = {"TRIES": f"{name}-tries", "FAILS": str(fails)}
    return function(aws, NOTED, FunctionName=name, Environment={"Variables": variables}, Timeout=60, **settings)


def test_an_event_that_fails_three_times_is_kept_in_the_dead_letter_queue(aws: Clients, way: Any) -> None:
    name = f"failing-{way.__name__}"
    arn = noted(aws, name, 99, DeadLetterConfig={"TargetArn": arn_of(aws, f"{name}-dead")})
    way(aws, arn, 1)
    tries = messages(aws, f"{name}-tries", 3)
    assert tries[0] == tries[1] == tries[2]
    assert messages(aws, f"{name}-dead", 1) == tries[:1], "the event itself, to be sent once more"


def test_as_often_as_the_function_says(aws: Clients) -> None:
    arn = noted(aws, "once", 99, DeadLetterConfig={"TargetArn": arn_of(aws, "once-dead")})
    aws("lambda").put_function_event_invoke_config(FunctionName="once", MaximumRetryAttempts=0)
    by_rule(aws, arn, 1)
    [kept] = messages(aws, "once-dead", 1)
    assert messages(aws, "once-tries", 1) == [kept]
    assert left(aws, "once-tries") == []


def test_events_that_find_the_function_busy_wait_for_it(aws: Clients, way: Any) -> None:
    name = f"busy-{way.__name__}"
    arn = noted(aws, name, 0, DeadLetterConfig={"TargetArn": arn_of(aws, f"{name}-dead")})
    aws("lambda").put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    way(aws, arn, 3)
    tries = messages(aws, f"{name}-tries", 3)
    assert len({json.dumps(event) for event in tries}) == 3, "each once"
    assert left(aws, f"{name}-dead") == []
