"""The delegate: MiniStack in this process, its data reached by in-process calls on its own event loop."""

from __future__ import annotations

import asyncio
import datetime
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from localcloud.clock import Clock
from localcloud.delegate import environment, lambdas
from localcloud.delegate.alarms import Alarms
from localcloud.delegate.events import Events
from localcloud.delegate.persistence import Checkpoint, snapshot_logs
from localcloud.errors import AwsError
from localcloud.s3 import hashing
from localcloud.s3.objects import ObjectStore, StoredObject

if TYPE_CHECKING:
    from localcloud.context import Cloud, MetricPoint
    from localcloud.s3.request import Request

T = TypeVar("T")
_LAMBDA_TIMEOUT_S = 960
"""A little more than the longest function that AWS allows."""
_ACCOUNT = re.compile(r"\d{12}")
_LOG_BATCH = 1000


class MiniStack:
    """Implements `localcloud.context.Delegate`; methods block, and are safe from any thread."""

    def __init__(self, home: Path, port: int, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._environment = environment.Environment(home, port)
        self.app = environment.load(home)
        from ministack.services import cloudwatch, cloudwatch_logs, lambda_svc, s3, sns

        self._logs, self._metrics, self._lambda, self._s3 = cloudwatch_logs, cloudwatch, lambda_svc, s3
        self._sns = sns
        self.objects = ObjectStore(_made(home / "s3"))
        self.checkpoint = Checkpoint(self.app)
        self.events = Events()
        self.alarms = Alarms(self.events, self.checkpoint, self.clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None

    def started(self, cloud: Cloud) -> None:
        """MiniStack's own startup is done: install the hooks. Runs on its event loop."""
        from localcloud import cloudformation

        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        lambdas.install(cloud.url, self.clock)
        self._s3._get_object_data = self._object_data
        self._logs.get_state = lambda: snapshot_logs(self._logs)
        self.events.install(cloud)
        self.alarms.install()
        cloudformation.install(cloud, self)
        self.checkpoint.start()

    def stopping(self) -> None:
        """Before MiniStack's own shutdown, which saves its state once more. On its event loop."""
        self.checkpoint.stop()
        self.alarms.stop()
        self.events.stop()
        lambdas.stop()

    def stopped(self) -> None:
        """After its shutdown: leave nothing of this home in the process, where another may start."""
        self._loop = None
        environment.reset(self.app)
        self.objects.close()
        self._environment.restore()

    def on_loop(self, account: str, region: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call into MiniStack as a caller of that account and region, on the thread that owns its state."""
        from ministack.core.responses import request_scope

        def scoped() -> T:
            with request_scope(account, region):
                return function(*arguments)

        if self._loop is None or threading.get_ident() == self._thread:
            return scoped()

        async def run() -> T:
            return scoped()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def account_of(self, access_key: str) -> str:
        """The account that an access key belongs to: 12 digits are the account, a session key is its role's."""
        from ministack.core.responses import get_account_id, request_scope, set_request_account_id

        with request_scope(environment.DEFAULT_ACCOUNT, environment.DEFAULT_REGION):
            set_request_account_id(access_key)
            account: str = get_account_id()
        return account

    # Delegate: S3

    def read_object(self, account: str, bucket: str, key: str) -> Path:
        self._owned_bucket(account, bucket)
        stored = self.objects.get(bucket, key)
        if stored is None or stored.marker:
            raise AwsError("NoSuchKey", f"The specified key does not exist: s3://{bucket}/{key}", 404)
        return stored.path

    def list_objects(self, account: str, bucket: str, prefix: str) -> list[str]:
        self._owned_bucket(account, bucket)
        return self.objects.keys(bucket, prefix)

    def write_object(
        self, account: str, bucket: str, key: str, source: Path, content_type: str = "binary/octet-stream"
    ) -> None:
        self._owned_bucket(account, bucket)
        digests = hashing.Digests({"CRC32"})
        path = self.objects.new_file()
        try:
            hashing.copy(source, path, digests)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        headers = {"Content-Type": content_type, **self.default_encryption(account, bucket)}
        meta = {"headers": headers, "checksums": digests.checksums, "checksum_type": "FULL_OBJECT"}
        stored = self.objects.put(bucket, key, path, digests.md5.hex(), meta, self.versioning(account, bucket))
        self.notify(account, stored, "s3:ObjectCreated:Put")

    def bucket_owner(self, request: Request) -> str:
        """The account whose bucket a request may use: NoSuchBucket, AccessDenied, an expired or forged signature."""
        from ministack.core.responses import get_account_id, request_scope

        query = {name: [value] for name, value in request.query.items()}
        _check_expiry(request)
        with request_scope(self.account_of(request.account_key), request.region):
            refused = None
            if not _ACCOUNT.fullmatch(request.account_key):  # an account's own key goes with any secret
                refused = self._s3._verify_presigned_sigv4(request.method, request.path, request.headers, query)
            if refused is None:
                request.headers = self._s3._merge_hoisted_amz_headers(request.headers, query)
                if self._s3._bucket_owner_account(request.bucket) is None:
                    raise AwsError("NoSuchBucket", "The specified bucket does not exist", 404)
                refused = self._s3._apply_bucket_scope(
                    request.method, request.bucket, request.key, request.headers, query
                )
            if refused is not None:
                raise _as_error(refused)
            account: str = get_account_id()
        return account

    def _owned_bucket(self, account: str, bucket: str) -> None:
        if self._s3._bucket_owner_account(bucket) is None:
            raise AwsError("NoSuchBucket", f"The specified bucket does not exist: {bucket}", 404)
        if self._s3._bucket_owner_account(bucket) != account:
            raise AwsError("AccessDenied", f"Bucket {bucket} belongs to another account", 403)

    def versioning(self, account: str, bucket: str) -> str | None:
        """ "Enabled", "Suspended", or None when it was never on."""
        found: str | None = self._s3._bucket_versioning.get_scoped(account, None, bucket)
        return found or None

    def default_encryption(self, account: str, bucket: str) -> dict[str, str]:
        """The server-side encryption headers that the bucket's default adds to an object."""
        found = self.on_loop(account, environment.DEFAULT_REGION, self._s3._bucket_default_sse_headers, bucket)
        return dict(found) or {"x-amz-server-side-encryption": "AES256"}

    def notify(self, account: str, stored: StoredObject, event: str) -> None:
        """S3 event notifications (queues, topics, functions, EventBridge), as the bucket is configured."""
        if self._s3._bucket_notifications.get_scoped(account, None, stored.bucket) is None:
            return
        region = (self._s3._buckets.get_scoped(account, None, stored.bucket) or {}).get("region")
        version = None if stored.version == "null" else stored.version
        arguments = (stored.bucket, stored.key, event, stored.size, stored.etag, None, version)
        self.on_loop(account, region or environment.DEFAULT_REGION, self._s3._fire_s3_event_async, *arguments)

    def _object_data(self, bucket: str, key: str, version_id: str | None = None) -> bytes | None:
        """What MiniStack's other services (Lambda code, templates) read from S3."""
        stored = self.objects.get(bucket, key, version_id)
        return None if stored is None or stored.marker else stored.path.read_bytes()

    # Delegate: CloudWatch

    def put_log_events(
        self, account: str, region: str, group: str, stream: str, messages: list[tuple[int, str]]
    ) -> None:
        for start in range(0, max(len(messages), 1), _LOG_BATCH):
            self.on_loop(account, region, self._append_log, group, stream, messages[start : start + _LOG_BATCH])
        self.checkpoint.touch()

    def _append_log(self, group: str, stream: str, messages: list[tuple[int, str]]) -> None:
        if group not in self._logs._log_groups:
            self._logs._create_log_group({"logGroupName": group})
        if stream not in self._logs._log_groups[group]["streams"]:
            self._logs._create_log_stream({"logGroupName": group, "logStreamName": stream})
        if messages:
            events = [{"timestamp": when, "message": text} for when, text in messages]
            self._logs._put_log_events({"logGroupName": group, "logStreamName": stream, "logEvents": events})

    def put_metric(
        self, account: str, region: str, namespace: str, name: str, value: float, unit: str, dimensions: dict[str, str]
    ) -> None:
        self.on_loop(account, region, self._metrics.record_metric, namespace, name, value, unit, dimensions)
        self.checkpoint.touch()

    def put_metrics(self, account: str, region: str, namespace: str, points: list[MetricPoint]) -> None:
        def record() -> None:
            for name, value, unit, dimensions in points:
                self._metrics.record_metric(namespace, name, value, unit, dimensions)

        self.on_loop(account, region, record)
        self.checkpoint.touch()

    def alarm_states(self, account: str, region: str, names: list[str]) -> dict[str, str]:
        def states() -> dict[str, str]:
            kinds = (self._metrics._alarms, self._metrics._composite_alarms)
            return {name: kind[name]["StateValue"] for kind in kinds for name in names if name in kind}

        return self.on_loop(account, region, states)

    def cloudwatch(self, account: str, region: str, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        if self._loop is None or threading.get_ident() == self._thread:
            raise RuntimeError("a request can't be awaited on the event loop that answers it")
        future = asyncio.run_coroutine_threadsafe(self._cloudwatch(account, region, operation, request), self._loop)
        status, body = future.result()
        answer: dict[str, Any] = json.loads(body or b"{}")
        if status >= 300:
            raise AwsError(answer.get("__type", "InternalFailure"), answer.get("message", ""), status)
        return answer

    async def _cloudwatch(
        self, account: str, region: str, operation: str, request: dict[str, Any]
    ) -> tuple[int, bytes]:
        from ministack.core.responses import request_scope

        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": f"GraniteService.{operation}"}
        with request_scope(account, region):
            body = json.dumps(request).encode()
            status, _, answer = await self._metrics.handle_request("POST", "/", headers, body, {})
        await self.checkpoint.save_now("cloudwatch")
        return status, answer

    def on_alarm_action(self, prefix: str, act: Callable[[str, str, str, dict[str, Any], list[float]], None]) -> None:
        self.alarms.subscribe(prefix, act)

    # Delegate: SNS

    def publish(self, account: str, region: str, topic_arn: str, message: str) -> None:
        try:
            sent = self.on_loop(account, region, self._sns.publish_internal, topic_arn, message)
        except self._sns.SnsPublishError as error:
            raise AwsError(error.code, str(error)) from None
        if sent is None:
            raise AwsError("NotFound", f"Topic {topic_arn} does not exist", 404)
        self.checkpoint.touch()

    # Delegate: Lambda and EventBridge

    def invoke_lambda(self, account: str, region: str, function_arn: str, payload: bytes) -> tuple[bytes, str | None]:
        if self._loop is None or threading.get_ident() == self._thread:
            raise RuntimeError("a Lambda function can't be awaited on the event loop that runs it")
        try:
            event = json.loads(payload or b"null")
        except ValueError:
            raise AwsError("InvalidRequestContentException", "Could not parse request body into json") from None
        future = asyncio.run_coroutine_threadsafe(self._invoke(account, region, function_arn, event), self._loop)
        status, headers, body = future.result(_LAMBDA_TIMEOUT_S)
        self.checkpoint.touch()
        error = headers.get("X-Amz-Function-Error")
        if status >= 300:
            found = json.loads(body or b"{}")
            code = found.get("__type") or found.get("Code") or found.get("Type") or "ServiceException"
            raise AwsError(code, found.get("message") or found.get("Message") or "The function was not run", status)
        return body, error

    async def _invoke(self, account: str, region: str, function_arn: str, event: Any) -> Any:
        from ministack.core.responses import request_scope

        parts = function_arn.split(":")
        if function_arn.startswith("arn:"):
            region, account, parts = parts[3], parts[4], parts[6:]
        name, qualifier = parts[0], parts[1] if len(parts) > 1 else None
        with request_scope(account, region):
            return await self._lambda._invoke(name, event, {}, qualifier, {})

    def emit_event(
        self, account: str, region: str, source: str, detail_type: str, detail: dict[str, Any], resources: list[str]
    ) -> None:
        self.on_loop(account, region, self.events.put, source, detail_type, detail, resources)
        self.checkpoint.touch()


def _check_expiry(request: Request) -> None:
    """A presigned URL ends with its time, also where its signature isn't checked."""
    query = request.query
    try:
        if "X-Amz-Date" in query:
            signed = datetime.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
            ends = signed.timestamp() + int(query.get("X-Amz-Expires", ""))
        elif "AWSAccessKeyId" in query:  # signature version 2
            ends = int(query.get("Expires", ""))
        else:
            return
    except ValueError:
        raise AwsError("AccessDenied", "The date or the expiry of this URL can't be read", 403) from None
    if time.time() > ends:
        raise AwsError("AccessDenied", "Request has expired", 403)


def _as_error(response: tuple[int, dict[str, str], bytes]) -> AwsError:
    """MiniStack's XML refusal as an exception."""
    from localcloud.s3 import xml

    root = xml.parse(response[2])
    return AwsError(root.findtext("Code") or "AccessDenied", root.findtext("Message") or "Access Denied", response[0])


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
