"""Lambda: where a function's process is started, called, and its answer made."""

from __future__ import annotations

import contextlib
import contextvars
import json
import subprocess
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from localcloud.hooks.patches import Patches

Document = dict[str, Any]
Clean = Callable[[Document, dict[str, str]], dict[str, str]]
"""The environment of a function's process: of its configuration and what MiniStack proposes."""
Wrap = Callable[[Document, list[str]], list[str]]
"""The command of a function's process: of its configuration and what MiniStack proposes."""
Fail = Callable[[Document, Document | None, Document, str], Document]
"""What is answered for a failed function: of MiniStack's body, the failure, the configuration, the request id."""
Attempt = Callable[[], Document]
"""Runs a function once with its event: MiniStack's answer, with `throttle` or `error` where it did not end well."""
Queue = Callable[[Document, Attempt], Document | None]
"""Runs an attempt as often as an EventInvokeConfig lets an event be tried: None, or the last failure if all failed."""
_here = threading.local()
"""What the thread that runs a function knows: `config` while its process starts, `failure` after it failed."""


class _Process(subprocess.Popen[str]):
    """MiniStack forgets a killed process with its pipes open."""

    def __del__(self, *arguments: Any, **options: Any) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError, ValueError):
                    pipe.close()
        super().__del__(*arguments, **options)


async def invoke(name: str, event: Any, qualifier: str | None, headers: dict[str, str]) -> Any:
    """Run a function: (status, headers, body); in the scope of the caller."""
    from ministack.services import lambda_svc

    return await lambda_svc._invoke(name, event, headers, qualifier, {})


def queue_events(patches: Patches, queue: Queue) -> None:
    """Let `queue` decide how often a function is tried with an event of Invoke, S3, a rule, a schedule or a topic.

    MiniStack tries a function once with an event of EventBridge or SNS: when that fails, the event is gone. It sends
    a dead-letter queue the record that a destination gets; Lambda sends the event itself.
    """
    from ministack.services import eventbridge, lambda_svc, sns

    def take(func: Document, event: Any) -> None:
        config = func.get("config") or func
        settings = func.get("event_invoke_config") or (func.get("event_invoke_configs") or {}).get("$LATEST") or {}

        def run() -> None:
            # In the function's own account and region, wherever the event comes from.
            lambda_svc._run_with_function_config_scope(func, work)

        def work() -> None:
            failure = queue(settings, lambda: lambda_svc._execute_function(func, event))
            if failure is None:
                return
            destination = ((settings.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination")
            if destination:
                lambda_svc._route_async_failure(destination, config.get("FunctionName", ""), event, failure)
            letters = (config.get("DeadLetterConfig") or {}).get("TargetArn")
            if letters:
                eventbridge._invoke_target({"Arn": letters, "Input": json.dumps(event)}, {}, {})

        threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()

    def of_rule(arn: str, payload: str) -> None:
        func, config, _ = lambda_svc._get_func_record_for_ref(arn)
        if func and config:
            take(lambda_svc._execution_record_for_config(func, config), json.loads(payload))

    def of_topic(endpoint: str, envelope: str, topic_arn: str, sub_arn: str, *_: Any) -> None:
        record = {"EventVersion": "1.0", "EventSubscriptionArn": sub_arn, "EventSource": "aws:sns"}
        of_rule(endpoint, json.dumps({"Records": [{**record, "Sns": json.loads(envelope)}]}))

    patches.put(lambda_svc, "invoke_async_with_retry", take)
    patches.put(eventbridge, "_dispatch_to_lambda", of_rule)
    patches.put(sns, "_deliver_to_lambda", of_topic)


def start_with(patches: Patches, clean: Clean, wrap: Wrap) -> None:
    """Start functions' processes in an environment that `clean` makes, with the command that `wrap` makes."""
    from ministack.core import lambda_runtime

    worker = lambda_runtime.Worker
    original = worker._spawn

    def spawn(self: Any) -> None:
        _here.config = self.config
        try:
            original(self)
        finally:
            _here.config = None

    def popen(command: Any, *arguments: Any, env: dict[str, str] | None = None, **options: Any) -> Any:
        config = getattr(_here, "config", None)
        if config is not None and env is not None:
            command, env = wrap(config, command), clean(config, env)
        return _Process(command, *arguments, env=env, **options)  # type: ignore[call-overload]

    patches.put(worker, "_spawn", spawn)
    # The module that it starts processes with, in this one module of MiniStack's only.
    patches.put(lambda_runtime, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": popen}))


def fail_with(patches: Patches, fail: Fail, unsupported: Callable[[Document], str]) -> None:
    """Answer a failed function with `fail`, and one that needs a container with `unsupported(config)`."""
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    worker = lambda_runtime.Worker
    invoke, warm = worker.invoke, lambda_svc._execute_function_warm

    def invoked(self: Any, *arguments: Any, **options: Any) -> Document:
        result: Document = invoke(self, *arguments, **options)
        _here.failure = result if result.get("status") == "error" else None
        return result

    def warmed(func: Document, event: Any, request_id: str) -> Document:
        _here.failure = None
        result: Document = warm(func, event, request_id)
        if result.get("error"):
            result["body"] = fail(result["body"], _here.failure, func.get("config") or func, request_id)
        return result

    def contained(func: Document, event: Any, request_id: str) -> Document:
        message = unsupported(func.get("config") or func)
        body = {"errorMessage": message, "errorType": "Runtime.Unsupported"}
        return {"body": body, "error": True, "log": message}

    patches.put(worker, "invoke", invoked)
    patches.put(lambda_svc, "_execute_function_warm", warmed)
    patches.put(lambda_svc, "_execute_function_docker", contained)


def end_all() -> None:
    """End the functions' warm processes and remove their unpacked code."""
    from ministack.core import lambda_runtime

    lambda_runtime.reset()


def exists(reference: str) -> bool:
    """Whether there is such a function, by its name or ARN; in the scope of the caller."""
    from ministack.services import lambda_svc

    return lambda_svc._get_func_record_for_ref(reference)[0] is not None
