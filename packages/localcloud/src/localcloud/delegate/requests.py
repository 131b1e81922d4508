"""Requests that AWS refuses for what they ask for, and the delegate takes: refused before it sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from localcloud.delegate import existing, function_requests, resource_policies, rules, tagged
from localcloud.errors import AwsError
from localcloud.hooks import bus, stacks
from localcloud.hooks.patches import Patches
from localcloud.s3.objects import ObjectStore

Members = dict[str, Any]
Check = Callable[[Members], None]


class Requests:
    """The checks of requests, and of the same resources in stacks. In the scope of the caller, on the event loop."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._checks: dict[tuple[str, str], Check] = {
            **rules.REQUESTS,
            **existing.REQUESTS,
            ("resourcegroupstaggingapi", "GetResources"): tagged.get_resources,
            ("lambda", "CreateFunction"): self._create_function,
            ("lambda", "UpdateFunctionCode"): self._update_code,
            ("lambda", "UpdateFunctionConfiguration"): self._update_configuration,
            ("lambda", "PublishLayerVersion"): lambda request: self._code(request["Content"]),
        }

    def check(self, service: str, operation: str, members: Members) -> None:
        """AwsError when AWS refuses it."""
        for checks in (self._checks, resource_policies.REQUESTS):
            found = checks.get((service, operation))
            if found is not None:
                found(members)

    def install(self, patches: Patches) -> None:
        """Have entries of PutEvents looked at, and the resources of stacks."""
        bus.name_buses(patches)
        bus.judge_entries(patches, rules.check_entry)
        for name, check in (
            ("AWS::Events::Rule", _stack_rule),
            ("AWS::Scheduler::Schedule", rules.put_schedule),
            ("AWS::Lambda::Function", self._create_function),
            *resource_policies.STACKS.items(),
        ):
            stacks.put_type(patches, name, _checked(stacks.type_of(name), check))

    def _create_function(self, request: Members) -> None:
        function_requests.check_role(str(request["Role"]))
        self._code(request["Code"])

    def _update_configuration(self, request: Members) -> None:
        if request.get("Role"):
            function_requests.check_role(request["Role"])

    def _update_code(self, request: Members) -> None:
        self._code(request)

    def _code(self, code: Members) -> None:
        function_requests.check_code(code, self._objects)


def _stack_rule(properties: Members) -> None:
    pattern = properties.get("EventPattern")
    rules.put_rule({**properties, "EventPattern": json.dumps(pattern) if isinstance(pattern, dict) else pattern})
    rules.check_targets(properties.get("Targets") or [])


def _checked(original: dict[str, Any], check: Check) -> dict[str, Any]:
    """A resource type whose properties are looked at before it is made or changed."""

    def judged(properties: Members) -> None:
        try:
            check(properties)
        except AwsError as error:
            raise ValueError(f"{error.message} ({error.code})") from None
        except KeyError as error:
            raise ValueError(f"The property {error} is required") from None

    def create(logical_id: str, properties: Members, stack: str) -> Any:
        judged(properties)
        return original["create"](logical_id, properties, stack)

    def update(physical_id: str, old: Members, new: Members, *rest: Any, **extra: Any) -> Any:
        judged(new)
        return original["update"](physical_id, old, new, *rest, **extra)

    return {**original, "create": create, "update": update}
