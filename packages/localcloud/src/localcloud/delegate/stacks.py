"""CloudFormation resource types that MiniStack lacks or does by half.

AWS::SageMaker::ModelPackageGroup   through protocol.call, on a worker thread (the event loop must not wait on it)
AWS::S3::Bucket                     every property is applied or refused by name; a bucket with objects stays
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from localcloud.context import Cloud, Context
from localcloud.delegate.bucket_properties import apply_configuration, check_properties
from localcloud.errors import AwsError
from localcloud.hooks import buckets, scope, stacks
from localcloud.hooks.patches import Patches
from localcloud.protocol import call
from localcloud.s3.objects import ObjectStore

Properties = dict[str, Any]
Resource = tuple[str, dict[str, Any]]
_GROUP, _BUCKET = "AWS::SageMaker::ModelPackageGroup", "AWS::S3::Bucket"


def install(cloud: Cloud, objects: ObjectStore, patches: Patches) -> None:
    """Register the types with MiniStack's stack engine."""
    stacks.put_type(patches, _GROUP, _model_package_group(cloud))
    stacks.put_type(patches, _BUCKET, _bucket(stacks.type_of(_BUCKET), objects))
    stacks.configure_buckets_with(patches, apply_configuration)
    stacks.run_on_threads(patches, "AWS::SageMaker::")


def _context(cloud: Cloud) -> Context:
    return Context(*scope.here(), cloud)


def _model_package_group(cloud: Cloud) -> dict[str, Callable[..., Any]]:
    named = ("ModelPackageGroupName", "ModelPackageGroupDescription")
    known = {*named, "Tags", "ModelPackageGroupPolicy"}

    def create(logical_id: str, props: Properties, stack: str) -> Resource:
        unknown = sorted(props.keys() - known)
        if unknown:
            raise ValueError(f"{_GROUP}: unknown property {', '.join(unknown)}")
        ctx = _context(cloud)
        request = {name: props[name] for name in (*named, "Tags") if name in props}
        arn = call(ctx, "sagemaker", "CreateModelPackageGroup", request)["ModelPackageGroupArn"]
        if "ModelPackageGroupPolicy" in props:
            _put_policy(ctx, props)
        return arn, {"ModelPackageGroupArn": arn, "ModelPackageGroupStatus": "Completed"}

    def update(physical_id: str, old: Properties, new: Properties, stack: str) -> Resource:
        if any(old.get(name) != new.get(name) for name in named):
            if old.get("ModelPackageGroupName") == new.get("ModelPackageGroupName"):
                raise ValueError(f"{_GROUP}: changing the description replaces the group, which needs another name")
            return create("", new, stack)  # the old one is deleted after the update, unless the template keeps it
        ctx = _context(cloud)
        kept = {tag["Key"] for tag in new.get("Tags", [])}
        gone = [tag["Key"] for tag in old.get("Tags", []) if tag["Key"] not in kept]
        if gone:
            call(ctx, "sagemaker", "DeleteTags", {"ResourceArn": physical_id, "TagKeys": gone})
        if new.get("Tags") and new.get("Tags") != old.get("Tags"):
            call(ctx, "sagemaker", "AddTags", {"ResourceArn": physical_id, "Tags": new["Tags"]})
        if new.get("ModelPackageGroupPolicy") != old.get("ModelPackageGroupPolicy"):
            _put_policy(ctx, new)
        return physical_id, {"ModelPackageGroupArn": physical_id, "ModelPackageGroupStatus": "Completed"}

    def delete(physical_id: str, props: Properties) -> None:
        name = physical_id.rpartition("/")[2]
        try:
            call(_context(cloud), "sagemaker", "DescribeModelPackageGroup", {"ModelPackageGroupName": name})
        except AwsError:
            return  # gone already, as CloudFormation sees it
        call(_context(cloud), "sagemaker", "DeleteModelPackageGroup", {"ModelPackageGroupName": name})

    return {"create": create, "update": update, "delete": delete}


def _put_policy(ctx: Context, props: Properties) -> None:
    policy = props.get("ModelPackageGroupPolicy")
    request = {"ModelPackageGroupName": props["ModelPackageGroupName"]}
    if policy is None:
        call(ctx, "sagemaker", "DeleteModelPackageGroupPolicy", request)
        return
    text = policy if isinstance(policy, str) else json.dumps(policy)
    call(ctx, "sagemaker", "PutModelPackageGroupPolicy", {**request, "ResourcePolicy": text})


def _bucket(original: dict[str, Any], objects: ObjectStore) -> dict[str, Any]:
    def create(logical_id: str, props: Properties, stack: str) -> Resource:
        check_properties(props)
        created: Resource = original["create"](logical_id, props, stack)
        _set_versioning(created[0], props)
        return created

    def update(physical_id: str, old: Properties, new: Properties, stack: str) -> Resource:
        check_properties(new)
        updated: Resource = original["update"](physical_id, old, new, stack)
        _set_versioning(updated[0], new, old)
        return updated

    def delete(physical_id: str, props: Properties) -> None:
        if not objects.is_empty(physical_id):
            raise ValueError(
                f"The bucket you tried to delete is not empty (Service: S3, Status Code: 409): {physical_id}"
            )
        objects.forget_bucket(physical_id)
        original["delete"](physical_id, props)

    return {**original, "create": create, "update": update, "delete": delete}


def _set_versioning(name: str, props: Properties, old: Properties | None = None) -> None:
    wanted = (props.get("VersioningConfiguration") or {}).get("Status")
    if wanted is None and old and old.get("VersioningConfiguration"):
        wanted = "Suspended"  # versioning can't be undone, only suspended
    if wanted not in (None, "Enabled", "Suspended"):
        raise ValueError(f"AWS::S3::Bucket VersioningConfiguration.Status {wanted!r} is not Enabled or Suspended")
    if wanted:
        buckets.set_versioning(name, wanted)
