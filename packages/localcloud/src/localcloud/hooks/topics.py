"""SNS; in the scope of the caller."""

from __future__ import annotations

from localcloud.errors import AwsError


def publish(topic_arn: str, message: str) -> None:
    """Send a message to a topic; AwsError, NotFound when there is none."""
    from ministack.services import sns

    try:
        sent = sns.publish_internal(topic_arn, message)
    except sns.SnsPublishError as error:
        raise AwsError(error.code, str(error)) from None
    if sent is None:
        raise AwsError("NotFound", f"Topic {topic_arn} does not exist", 404)
