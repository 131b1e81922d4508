"""The names of MiniStack that localcloud reads, calls or replaces, and what each looks like in the pinned version.

A function's entry is its parameters, a trailing `=` marks one with a default; everything else has its type. `missing`
compares them with the MiniStack that is installed: at every start, and name by name in the tests.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

PRIVATES: dict[str, dict[str, str]] = {
    "app": {
        "app": "(scope, receive, send)",
        "SERVICE_REGISTRY": "dict",
        "SERVICE_NAME_ALIASES": "dict",
        "detect_service": "(method, path, headers, query_params)",
        "_extract_s3_vhost_bucket": "(host)",
        "_run_init_scripts": "()",
        "_run_ready_scripts": "()",
        "_reset_all_state": "()",
        "_state_map": "dict",
        "_loaded_modules": "dict",
    },
    "core.persistence": {
        "STATE_DIR": "str",
        "PERSIST_STATE": "bool",
        "_state_format_version": "(service)",
        "_json_default": "(obj)",
        "load_state": "(service)",
    },
    "core.responses": {
        "request_scope": "(account_id, region)",
        "set_request_account_id": "(access_key_id)",
        "get_account_id": "()",
        "get_region": "()",
        "_account_from_sts_session": "(access_key_id)",
        "AccountRegionScopedDict": "class",
        "AccountRegionScopedDict._data": "member_descriptor",
        "AccountRegionScopedDict.get_scoped": "(self, account_id, region, key, default=)",
    },
    "core.lambda_runtime": {
        "Worker": "class",
        "Worker._spawn": "(self)",
        "Worker.invoke": "(self, event, request_id, *, trace_id=, depth=, durable=, invoked_function_arn=)",
        "subprocess": "module",
        "reset": "()",
    },
    "services.s3": {
        "_get_object_data": "(bucket_name, key, version_id=)",
        "_merge_hoisted_amz_headers": "(headers, query_params)",
        "_bucket_owner_account": "(name)",
        "_apply_bucket_scope": "(method, bucket, key, headers, query_params, body=, internal=)",
        "_bucket_versioning": "AccountScopedDict",
        "_bucket_default_sse_headers": "(bucket_name)",
        "_bucket_notifications": "AccountScopedDict",
        "_buckets": "AccountScopedDict",
        "_fire_s3_event_async": (
            "(bucket_name, key, event_name, size=, etag=, deletion_type=, version_id=, object_extra=, record_extra=)"
        ),
        "_put_bucket_encryption": "(name, body)",
        "_delete_bucket_encryption": "(name)",
        "_put_bucket_lifecycle": "(name, body)",
        "_delete_bucket_lifecycle": "(name)",
        "_put_bucket_tagging": "(name, body)",
        "_delete_bucket_tagging": "(name)",
        "_put_bucket_ownership_controls": "(name, body)",
        "_delete_bucket_ownership_controls": "(name)",
        "_put_bucket_logging": "(name, body)",
    },
    "services.cloudwatch_logs": {
        "_log_groups": "AccountRegionScopedDict",
        "_create_log_group": "(data)",
        "_create_log_stream": "(data)",
        "_put_log_events": "(data)",
        "_filter_log_events": "(data)",
        "_resolve_log_group_name": "(data)",
        "_log_events_lock": "lock",
        "get_state": "()",
        "_destinations": "AccountRegionScopedDict",
        "_resource_policies": "AccountRegionScopedDict",
        "_log_group_policies": "AccountRegionScopedDict",
        "_metric_filters": "AccountRegionScopedDict",
        "_queries": "AccountRegionScopedDict",
        "_delivery_sources": "AccountRegionScopedDict",
        "_delivery_destinations": "AccountRegionScopedDict",
        "_deliveries": "AccountRegionScopedDict",
    },
    "services.cloudwatch": {
        "_alarms": "AccountRegionScopedDict",
        "_composite_alarms": "AccountRegionScopedDict",
        "_metrics": "AccountRegionScopedDict",
        "_dims_key": "(dims)",
        "record_metric": "(namespace, metric_name, value, unit=, dimensions=)",
        "handle_request": "(method, path, headers, body, query_params)",
        "_p": "(params, key, default=)",
        "_record_history": "(alarm_name, old_state, new_state, reason, alarm_type=, reason_data=)",
        "_evaluate_parent_alarms": "(child, seen=)",
        "_error": "(code, message, status, use_json=, use_cbor=)",
        "_json_ok": "(data)",
        "_xml": "(status, root_tag, inner)",
        "_evaluate_alarm": "(alarm)",
        "_evaluate_all_alarms": "()",
        "_evict_old_metrics": "()",
        "_put_metric_alarm": "(params, cbor_data, is_cbor, is_json=)",
        "_set_alarm_state": "(params, cbor_data, is_cbor, is_json=)",
        "_dispatch_alarm_actions": "(alarm, old_state, new_state, reason)",
        "_get_metric_statistics": "(params, cbor_data, is_cbor, is_json=)",
        "_get_metric_data": "(params, cbor_data, is_cbor, is_json=)",
    },
    "services.sqs": {
        "_act_send_message": "(data, qurl)",
        "_Err": "class",
    },
    "services.sns": {
        "publish_internal": (
            "(topic_arn, message, subject=, *, "
            "message_structure=, message_attributes=, message_group_id=, message_deduplication_id=)"
        ),
        "SnsPublishError": "class",
        "_deliver_to_lambda": "(endpoint, envelope, topic_arn, sub_arn, msg_id, raw_message, message_attributes)",
    },
    "services.lambda_svc": {
        "_presigned_code_url": "(func_name)",
        "_layer_content_url": "(layer_name, version)",
        "_invoke": "(name, event, headers, path_qualifier=, query_params=)",
        "_get_func_record_for_ref": "(function_ref)",
        "_execute_function_warm": "(func, event, request_id)",
        "_execute_function_docker": "(func, event, request_id)",
        "_execute_function": "(func, event)",
        "_execution_record_for_config": "(func, config)",
        "_run_with_function_config_scope": "(func_or_config, callback, args, kwargs)",
        "_route_async_failure": "(target_arn, func_name, event, result)",
        "invoke_async_with_retry": "(func, event)",
    },
    "services.eventbridge": {
        "_put_events": "(data, allow_aws_source=)",
        "_invoke_target": "(target, event, rule, view=)",
        "_dispatch_to_lambda": "(arn, payload)",
        "_pattern_event_view": "(event)",
        "_event_buses": "AccountRegionScopedDict",
        "_event_bus_policies": "AccountRegionScopedDict",
        "_connections": "AccountRegionScopedDict",
        "_rules": "AccountRegionScopedDict",
        "_targets": "AccountRegionScopedDict",
        "_rule_key": "(rule_name, bus_name)",
        "_event_pattern_error": "(pattern_str)",
    },
    "services.tagging": {
        "_COLLECTORS": "dict",
        "_WRITERS": "dict",
        "_REMOVERS": "dict",
        "_ResourceNotFound": "class",
    },
    "services.scheduler": {
        "_schedule_groups": "AccountRegionScopedDict",
    },
    "services.iam": {
        "handle_request": "(method, path, headers, body, query_params)",
        "_users": "AccountScopedDict",
        "_roles": "AccountScopedDict",
        "_groups": "AccountScopedDict",
        "_policies": "AccountScopedDict",
        "_instance_profiles": "AccountScopedDict",
        "_access_keys": "AccountScopedDict",
        "_login_profiles": "AccountScopedDict",
        "_mfa_devices": "AccountScopedDict",
        "_user_inline_policies": "AccountScopedDict",
        "_group_inline_policies": "AccountScopedDict",
        "_aws_managed_policies": "dict",
        "_make_aws_managed_record": "(name, document, description=)",
        "_lookup_policy": "(arn)",
        "_boundary_usage_counts": "()",
        "_error": "(status, code, message, ns=)",
        "_xml": "(status, root_tag, inner, ns=)",
    },
    "services.sts": {
        "handle_request": "(method, path, headers, body, query_params)",
        "_caller_identity": "(headers, query_params=)",
        "is_root_access_key": "(access_key_id)",
        "_sessions": "dict",
        "register_session": "(access_key, session)",
    },
    "core.iam_evaluator": {
        "find_iam_access_key_account": "(access_key_id)",
        "is_root_access_key": "(access_key_id)",
        "EvalContext": "class",
        "evaluate": "(ctx, policies, limits)",
        "parse_policy_document": "(doc)",
        "_conditions_met": "(conditions, ctx)",
        "fnmatch_iam": "(value, pattern)",
    },
    "services.cloudformation.provisioners": {
        "_RESOURCE_HANDLERS": "dict",
        "_s3_apply_configurations": "(name, props, old_props=)",
        "_S3_BUCKET_CONFIGURATIONS": "tuple",
        "_cw_metric_alarm_record": "(name, props)",
    },
    "services.cloudformation.engine": {
        "_evaluate_conditions": "(template, params)",
        "_resolve_refs": "(value, resources, params, conditions, mappings, stack_name, stack_id)",
    },
    "services.cloudformation.changesets": {
        "_evaluate_conditions": "(template, params)",
    },
    "services.cloudformation.handlers": {
        "_evaluate_conditions": "(template, params)",
    },
    "services.cloudformation.stacks": {
        "_evaluate_conditions": "(template, params)",
        "_runs_on_worker_thread": "(resource_type)",
    },
}


def missing() -> list[str]:
    """What is gone or changed, in words; empty when all is as expected. MiniStack must have been imported."""
    return [
        problem
        for module, names in PRIVATES.items()
        for name, expected in names.items()
        if (problem := difference(module, name, expected))
    ]


def difference(module: str, name: str, expected: str) -> str:
    """How one name differs from what is expected of it; empty when it doesn't."""
    found: Any = importlib.import_module(f"ministack.{module}")
    for part in name.split("."):
        if not hasattr(found, part):
            return f"ministack.{module}.{name} is gone"
        found = getattr(found, part)
    shape = shape_of(found)
    return "" if shape == expected else f"ministack.{module}.{name} is {shape}, not {expected}"


def shape_of(found: Any) -> str:
    """`(a, b=, *, c=)` for a function, "class" for a class, else the name of its type."""
    if isinstance(found, type):
        return "class"
    if not callable(found):
        return type(found).__name__
    parameters, shown = inspect.signature(found).parameters.values(), []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        shown.append(parameter.name + ("" if parameter.default is parameter.empty else "="))
    return f"({', '.join(shown)})"
