"""CloudFormation: the table of resource types, and the places where a stack's resources are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localcloud.hooks.patches import Patches

Properties = dict[str, Any]
Type = dict[str, Any]
"""`create`, `update` and `delete` of a resource type."""
Configuration = tuple[str, Callable[[Any], bytes], Callable[[str, bytes], Any], Callable[[str], Any]]
"""(property of a bucket, its document, put, delete)"""


def type_of(name: str) -> Type:
    """MiniStack's own handlers of a resource type."""
    from ministack.services.cloudformation import provisioners

    found: Type = provisioners._RESOURCE_HANDLERS[name]
    return found


def put_type(patches: Patches, name: str, handlers: Type) -> None:
    """Add a resource type, or replace MiniStack's."""
    from ministack.services.cloudformation import provisioners

    patches.put_item(provisioners._RESOURCE_HANDLERS, name, handlers)


def run_on_threads(patches: Patches, prefix: str) -> None:
    """Let types that begin so run on worker threads: the event loop must not wait for them."""
    from ministack.services.cloudformation import stacks

    original = stacks._runs_on_worker_thread
    patches.put(
        stacks,
        "_runs_on_worker_thread",
        lambda resource_type: resource_type.startswith(prefix) or original(resource_type),
    )


def configure_buckets_with(
    patches: Patches, apply: Callable[[list[Configuration], str, Properties, Properties | None], None]
) -> None:
    """Have `apply(what MiniStack can set, bucket, properties, old properties)` configure a template's buckets."""
    from ministack.services.cloudformation import provisioners

    def configure(name: str, props: Properties, old_props: Properties | None = None) -> None:
        apply(list(provisioners._S3_BUCKET_CONFIGURATIONS), name, props, old_props)

    patches.put(provisioners, "_s3_apply_configurations", configure)


def make_alarms_with(patches: Patches, make: Callable[[str, Properties], Properties]) -> None:
    """Have `make(name, properties)` make the alarm of an AWS::CloudWatch::Alarm."""
    from ministack.services.cloudformation import provisioners

    patches.put(provisioners, "_cw_metric_alarm_record", lambda name, props: make(name, props))


def resolve_conditions(patches: Patches) -> None:
    """Have a template's Conditions see what Join, Sub, FindInMap ... and AWS::Region, AWS::AccountId stand for.

    MiniStack compares the functions themselves there, so that a condition on an empty list is true.
    """
    from ministack.services.cloudformation import changesets, engine, handlers, stacks

    original = engine._evaluate_conditions

    def evaluated(template: dict[str, Any], params: dict[str, Any]) -> dict[str, bool]:
        def resolved(value: Any) -> Any:
            if isinstance(value, list):
                return [resolved(item) for item in value]
            if not isinstance(value, dict):
                return value
            name = next(iter(value), "")
            if name in _VALUES or str(value.get("Ref", "")).startswith("AWS::"):
                _refuse_own_name(value)
                return engine._resolve_refs(value, {}, params, {}, template.get("Mappings", {}), "", "")
            return {key: resolved(item) for key, item in value.items()}

        found: dict[str, bool] = original({**template, "Conditions": resolved(template.get("Conditions", {}))}, params)
        return found

    for module in (engine, changesets, handlers, stacks):
        patches.put(module, "_evaluate_conditions", evaluated)


_VALUES = frozenset({"Fn::Join", "Fn::Sub", "Fn::Select", "Fn::Split", "Fn::FindInMap"})


def _refuse_own_name(value: Any) -> None:
    for name in ("AWS::StackName", "AWS::StackId"):
        if name in str(value):
            raise ValueError(f"localcloud does not know {name} in Conditions")


def set_boundary(role: str, boundary: str | None) -> None:
    """Set a role's permissions boundary."""
    from ministack.services import iam

    iam._roles[role]["PermissionsBoundary"] = boundary
