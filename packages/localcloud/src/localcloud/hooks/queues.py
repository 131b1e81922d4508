"""SQS; in the scope of the caller."""

from __future__ import annotations

from localcloud.errors import AwsError


def send(queue_url: str, body: str) -> None:
    """Send a message to a queue; AwsError as SQS refuses, e.g. when there is no such queue."""
    from ministack.services import sqs

    try:
        sqs._act_send_message({"QueueUrl": queue_url, "MessageBody": body}, queue_url)
    except sqs._Err as error:
        raise AwsError(error.code, error.message, error.status) from None
