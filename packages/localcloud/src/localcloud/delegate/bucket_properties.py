"""The properties of AWS::S3::Bucket as the documents that S3's own operations take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localcloud.hooks import buckets
from localcloud.hooks.stacks import Configuration
from localcloud.s3 import xml

Members = list[tuple[str, Any]]


def _encryption(value: dict[str, Any]) -> bytes:
    rules: Members = []
    for rule in value.get("ServerSideEncryptionConfiguration") or []:
        default = rule.get("ServerSideEncryptionByDefault") or {}
        applied = [("SSEAlgorithm", default.get("SSEAlgorithm")), ("KMSMasterKeyID", default.get("KMSMasterKeyID"))]
        key = rule.get("BucketKeyEnabled")
        rules.append(
            (
                "Rule",
                [
                    ("ApplyServerSideEncryptionByDefault", applied),
                    ("BucketKeyEnabled", None if key is None else _true(key)),
                ],
            )
        )
    return xml.document("ServerSideEncryptionConfiguration", rules)


def _lifecycle(value: dict[str, Any]) -> bytes:
    rules = [("Rule", _lifecycle_rule(rule)) for rule in value.get("Rules") or []]
    return xml.document("LifecycleConfiguration", rules)


def _lifecycle_rule(rule: dict[str, Any]) -> Members:
    known = {
        "Id",
        "Status",
        "Prefix",
        "TagFilters",
        "ExpirationInDays",
        "ExpirationDate",
        "ExpiredObjectDeleteMarker",
        "Transitions",
        "NoncurrentVersionExpiration",
        "NoncurrentVersionExpirationInDays",
        "NoncurrentVersionTransitions",
        "AbortIncompleteMultipartUpload",
        "ObjectSizeGreaterThan",
        "ObjectSizeLessThan",
    }
    _refuse("LifecycleConfiguration.Rules", rule, known)
    tags: Members = [("Tag", [("Key", tag["Key"]), ("Value", tag["Value"])]) for tag in rule.get("TagFilters") or []]
    filters: Members = [
        ("Prefix", rule.get("Prefix")),
        *tags,
        ("ObjectSizeGreaterThan", rule.get("ObjectSizeGreaterThan")),
        ("ObjectSizeLessThan", rule.get("ObjectSizeLessThan")),
    ]
    filters = [item for item in filters if item[1] is not None] or [("Prefix", "")]
    members: Members = [
        ("ID", rule.get("Id")),
        ("Filter", filters if len(filters) == 1 else [("And", filters)]),
        ("Status", rule.get("Status")),
    ]
    for transition in rule.get("Transitions") or []:
        members.append(
            (
                "Transition",
                [
                    ("Days", transition.get("TransitionInDays")),
                    ("Date", transition.get("TransitionDate")),
                    ("StorageClass", transition.get("StorageClass")),
                ],
            )
        )
    marker = rule.get("ExpiredObjectDeleteMarker")
    expiration = [
        ("Days", rule.get("ExpirationInDays")),
        ("Date", rule.get("ExpirationDate")),
        ("ExpiredObjectDeleteMarker", None if marker is None else _true(marker)),
    ]
    if any(value is not None for _, value in expiration):
        members.append(("Expiration", expiration))
    return [*members, *_noncurrent(rule)]


def _noncurrent(rule: dict[str, Any]) -> Members:
    members: Members = []
    for transition in rule.get("NoncurrentVersionTransitions") or []:
        members.append(
            (
                "NoncurrentVersionTransition",
                [
                    ("NoncurrentDays", transition.get("TransitionInDays")),
                    ("StorageClass", transition.get("StorageClass")),
                    ("NewerNoncurrentVersions", transition.get("NewerNoncurrentVersions")),
                ],
            )
        )
    old = rule.get("NoncurrentVersionExpirationInDays")
    expiration = rule.get("NoncurrentVersionExpiration") or ({"NoncurrentDays": old} if old is not None else None)
    if expiration:
        members.append(
            (
                "NoncurrentVersionExpiration",
                [
                    ("NoncurrentDays", expiration.get("NoncurrentDays")),
                    ("NewerNoncurrentVersions", expiration.get("NewerNoncurrentVersions")),
                ],
            )
        )
    if rule.get("AbortIncompleteMultipartUpload"):
        days = rule["AbortIncompleteMultipartUpload"].get("DaysAfterInitiation")
        members.append(("AbortIncompleteMultipartUpload", [("DaysAfterInitiation", days)]))
    return members


def _tags(value: list[dict[str, str]]) -> bytes:
    tags = [("Tag", [("Key", tag["Key"]), ("Value", tag["Value"])]) for tag in value]
    return xml.document("Tagging", [("TagSet", tags)])


def _ownership(value: dict[str, Any]) -> bytes:
    rules = [("Rule", [("ObjectOwnership", rule.get("ObjectOwnership"))]) for rule in value.get("Rules") or []]
    return xml.document("OwnershipControls", rules)


def _logging(value: dict[str, Any]) -> bytes:
    enabled = [("TargetBucket", value.get("DestinationBucketName")), ("TargetPrefix", value.get("LogFilePrefix", ""))]
    return xml.document("BucketLoggingStatus", [("LoggingEnabled", enabled)])


_APPLIED_BY_MINISTACK = frozenset(
    {
        "BucketName",
        "VersioningConfiguration",
        "NotificationConfiguration",
        "CorsConfiguration",
        "PublicAccessBlockConfiguration",
        "WebsiteConfiguration",
    }
)
_APPLIED_HERE = frozenset(
    {"BucketEncryption", "LifecycleConfiguration", "Tags", "OwnershipControls", "LoggingConfiguration"}
)


def check_properties(props: dict[str, Any]) -> None:
    """Refuse (ValueError) a bucket property that would be dropped in silence."""
    if props.get("AccessControl", "Private") != "Private":
        raise ValueError("AWS::S3::Bucket: localcloud does not implement AccessControl other than Private")
    _refuse("AWS::S3::Bucket", props, _APPLIED_BY_MINISTACK | _APPLIED_HERE | {"AccessControl"})


def _refuse(what: str, props: dict[str, Any], known: frozenset[str] | set[str]) -> None:
    unknown = sorted(props.keys() - known)
    if unknown:
        raise ValueError(f"{what}: localcloud does not implement {', '.join(unknown)}")


def apply_configuration(
    theirs: list[Configuration], name: str, props: dict[str, Any], old_props: dict[str, Any] | None
) -> None:
    """Set what a template says through S3's own operations, and undo what it no longer says.

    `theirs` are the properties that MiniStack can set by itself.
    """
    documents: dict[str, Callable[[Any], bytes]] = {
        "BucketEncryption": _encryption,
        "LifecycleConfiguration": _lifecycle,
        "Tags": _tags,
        "OwnershipControls": _ownership,
        "LoggingConfiguration": _logging,
    }
    settings = buckets.settings(no_logging=xml.document("BucketLoggingStatus", []))
    ours: list[Configuration] = [(prop, document, *settings[prop]) for prop, document in documents.items()]
    for prop, document, put, delete in (*theirs, *ours):
        if props.get(prop):
            status, _, body = put(name, document(props[prop]))
            if status >= 300:
                problem = xml.parse(body)
                raise ValueError(f"{prop}: {problem.findtext('Message')} (Service: S3, Status Code: {status})")
        elif old_props and old_props.get(prop):
            delete(name)


def _true(value: Any) -> bool:
    return str(value).lower() == "true"
