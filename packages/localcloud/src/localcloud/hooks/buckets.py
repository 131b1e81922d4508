"""S3's buckets and their configuration, which MiniStack keeps; their objects are in localcloud.s3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localcloud.hooks.patches import Patches

Refusal = tuple[int, dict[str, str], bytes]
"""(status, headers, XML) as MiniStack answers."""
Setting = tuple[Callable[[str, bytes], Refusal], Callable[[str], Any]]
"""How a part of a bucket's configuration is put and deleted."""


def read_objects_with(patches: Patches, read: Callable[[str, str, str | None], bytes | None]) -> None:
    """Let MiniStack's other services (Lambda code, templates) read objects through `read(bucket, key, version)`."""
    from ministack.services import s3

    def get(bucket_name: str, key: str, version_id: str | None = None) -> bytes | None:
        return read(bucket_name, key, version_id)

    patches.put(s3, "_get_object_data", get)


def owner_of(bucket: str) -> str | None:
    """The account that owns a bucket; None when there is none."""
    from ministack.services import s3

    found: str | None = s3._bucket_owner_account(bucket)
    return found


def unhoisted(headers: dict[str, str], query: dict[str, list[str]]) -> dict[str, str]:
    """The headers with those that a presigned URL carries in its query."""
    from ministack.services import s3

    found: dict[str, str] = s3._merge_hoisted_amz_headers(headers, query)
    return found


def enter(method: str, bucket: str, key: str, headers: dict[str, str], query: dict[str, list[str]]) -> Refusal | None:
    """Go into the scope of the bucket's owner, if the caller's may; the refusal otherwise."""
    from ministack.services import s3

    found: Refusal | None = s3._apply_bucket_scope(method, bucket, key, headers, query)
    return found


def versioning(account: str, bucket: str) -> str | None:
    """ "Enabled", "Suspended", or None when it was never on."""
    from ministack.services import s3

    found: str | None = s3._bucket_versioning.get_scoped(account, None, bucket)
    return found or None


def set_versioning(bucket: str, status: str) -> None:
    from ministack.services import s3

    s3._bucket_versioning[bucket] = status


def default_encryption(bucket: str) -> dict[str, str]:
    """The encryption headers that the bucket's default adds to an object; in the scope of its owner."""
    from ministack.services import s3

    return dict(s3._bucket_default_sse_headers(bucket))


def notified_in(account: str, bucket: str) -> str | None:
    """The region of a bucket that has notifications; None when it has none."""
    from ministack.services import s3

    if s3._bucket_notifications.get_scoped(account, None, bucket) is None:
        return None
    region: str = (s3._buckets.get_scoped(account, None, bucket) or {}).get("region") or "us-east-1"
    return region


def notify(bucket: str, key: str, event: str, size: int, etag: str, version: str | None) -> None:
    """Send a bucket's notifications; in the scope of its owner."""
    from ministack.services import s3

    s3._fire_s3_event_async(bucket, key, event, size, etag, None, version)


def settings(no_logging: bytes) -> dict[str, Setting]:
    """Parts of a bucket's configuration by the property of AWS::S3::Bucket; `no_logging` is the document of none."""
    from ministack.services import s3

    return {
        "BucketEncryption": (s3._put_bucket_encryption, s3._delete_bucket_encryption),
        "LifecycleConfiguration": (s3._put_bucket_lifecycle, s3._delete_bucket_lifecycle),
        "Tags": (s3._put_bucket_tagging, s3._delete_bucket_tagging),
        "OwnershipControls": (s3._put_bucket_ownership_controls, s3._delete_bucket_ownership_controls),
        "LoggingConfiguration": (s3._put_bucket_logging, lambda name: s3._put_bucket_logging(name, no_logging)),
    }
