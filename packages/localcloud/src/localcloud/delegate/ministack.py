"""The delegate: MiniStack in this process, its data reached by in-process calls on its own event loop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from localcloud.clock import Clock
from localcloud.context import Cloud, MetricPoint
from localcloud.delegate import identities, lambdas, log_events, stack_identities, stacks, tagged, trust
from localcloud.delegate.alarms import Alarms
from localcloud.delegate.events import Events
from localcloud.delegate.persistence import Checkpoint
from localcloud.delegate.requests import Requests
from localcloud.errors import AwsError
from localcloud.hooks import buckets, bus, credentials, functions, logs, metrics, queues, scope, states, topics
from localcloud.hooks.application import Application, Environment
from localcloud.hooks.patches import Patches
from localcloud.keys import Credential
from localcloud.s3 import hashing, xml
from localcloud.s3.objects import NULL_VERSION, ObjectStore, StoredObject
from localcloud.s3.request import Request
from localcloud.signature import Refused

T = TypeVar("T")
_LAMBDA_TIMEOUT_S = 960
"""A little more than the longest function that AWS allows."""
_LOG_BATCH = 1000


class MiniStack:
    """Implements `localcloud.context.Delegate`; methods block, and are safe from any thread."""

    def __init__(self, home: Path, port: int, clock: Clock) -> None:
        self._clock, self._patches = clock, Patches()
        self._environment = Environment(home, port)
        try:
            self.app = Application(home, self._patches)
        except BaseException:
            self._environment.restore()
            raise
        self.objects = ObjectStore(_made(home / "s3"))
        self.checkpoint = Checkpoint(self.app)
        self.alarms = Alarms(self.checkpoint, clock)
        self._events = Events()
        self._requests = Requests(self.objects)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None

    def started(self, cloud: Cloud) -> None:
        """MiniStack's own startup is done: install the hooks. Runs on its event loop."""
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        lambdas.install(cloud.url, cloud.keys, self._clock, self._patches)
        credentials.accounts_of_users(self._patches)
        credentials.keep_sessions(self._patches)
        buckets.read_objects_with(self._patches, self._object_data)
        states.take_logs_cheaply(self._patches)
        self._events.install(cloud, self._patches)
        self.alarms.install()
        stacks.install(cloud, self.objects, self._patches)
        stack_identities.install(self._patches, identities.install(self._patches))
        self._requests.install(self._patches)
        tagged.install(cloud, self._patches)
        logs.filter_with(self._patches, log_events.answer)
        self.checkpoint.start()

    def stopping(self) -> None:
        """Before MiniStack's own shutdown, which saves its state once more. On its event loop."""
        self.checkpoint.stop()
        self.alarms.stop()
        self._events.stop()
        functions.end_all()

    def stopped(self) -> None:
        """After its shutdown: leave nothing of this home in the process, where another may start."""
        self._loop = None
        self.app.reset()
        self._patches.undo()
        self.objects.close()
        self._environment.restore()

    def on_loop(self, account: str, region: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call into MiniStack as a caller of that account and region, on the thread that owns its state."""

        def scoped() -> T:
            with scope.scoped(account, region):
                return function(*arguments)

        if self._loop is None or threading.get_ident() == self._thread:
            return scoped()

        async def run() -> T:
            return scoped()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def account_of(self, access_key: str) -> str:
        """The account that an access key belongs to: 12 digits are the account, a session key is its role's."""
        return scope.account_of(access_key)

    def check(self, account_key: str, region: str, service: str, operation: str, members: dict[str, Any]) -> None:
        """AwsError when AWS refuses what a request asks for. On the event loop."""
        with scope.scoped(self.account_of(account_key), region):
            self._requests.check(service, operation, members)

    # Keys of IAM and STS

    def credential(self, access_key: str) -> Credential | None:
        """A key that IAM or STS gave out; signature.Refused when it has expired. On the event loop."""
        try:
            found = credentials.find(access_key)
        except credentials.Expired:
            raise Refused("expired-token") from None
        return Credential(access_key, *found) if found else None

    def register_session(self, credential: Credential) -> None:
        """Let STS know a temporary key of localcloud's own. On the event loop."""
        with scope.scoped(credential.account, scope.DEFAULT_REGION):
            credentials.register(
                credential.access_key, credential.secret, credential.token, credential.account, credential.arn
            )

    def sign_links(self, signed: Callable[[str], str]) -> None:
        """Have the links to functions' code go through `signed`."""
        credentials.sign_links(self._patches, signed)

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
        """The account whose bucket a request may use: NoSuchBucket, AccessDenied."""
        query = {name: [value] for name, value in request.query.items()}
        with scope.scoped(self.account_of(request.account_key), request.region):
            request.headers = buckets.unhoisted(request.headers, query)
            if buckets.owner_of(request.bucket) is None:
                raise AwsError("NoSuchBucket", "The specified bucket does not exist", 404)
            refused = buckets.enter(request.method, request.bucket, request.key, request.headers, query)
            if refused is not None:
                raise _as_error(refused)
            return scope.here()[0]

    def _owned_bucket(self, account: str, bucket: str) -> None:
        owner = buckets.owner_of(bucket)
        if owner is None:
            raise AwsError("NoSuchBucket", f"The specified bucket does not exist: {bucket}", 404)
        if owner != account:
            raise AwsError("AccessDenied", f"Bucket {bucket} belongs to another account", 403)

    def versioning(self, account: str, bucket: str) -> str | None:
        """ "Enabled", "Suspended", or None when it was never on."""
        return buckets.versioning(account, bucket)

    def bucket_in_host(self, host: str) -> str:
        return self.app.bucket_in_host(host)

    def default_encryption(self, account: str, bucket: str) -> dict[str, str]:
        """The server-side encryption headers that the bucket's default adds to an object."""
        found = self.on_loop(account, scope.DEFAULT_REGION, buckets.default_encryption, bucket)
        return found or {"x-amz-server-side-encryption": "AES256"}

    def notify(self, account: str, stored: StoredObject, event: str) -> None:
        """S3 event notifications (queues, topics, functions, EventBridge), as the bucket is configured."""
        region = buckets.notified_in(account, stored.bucket)
        if region is None:
            return
        version = None if stored.version == NULL_VERSION else stored.version
        arguments = (stored.bucket, stored.key, event, stored.size, stored.etag, version)
        self.on_loop(account, region, buckets.notify, *arguments)

    def _object_data(self, bucket: str, key: str, version_id: str | None = None) -> bytes | None:
        """What MiniStack's other services (Lambda code, templates) read from S3."""
        stored = self.objects.get(bucket, key, version_id)
        return None if stored is None or stored.marker else stored.path.read_bytes()

    # Delegate: CloudWatch

    def put_log_events(
        self, account: str, region: str, group: str, stream: str, messages: list[tuple[int, str]]
    ) -> None:
        for start in range(0, max(len(messages), 1), _LOG_BATCH):
            self.on_loop(account, region, logs.append, group, stream, messages[start : start + _LOG_BATCH])
        self.checkpoint.touch()

    def put_metric(
        self, account: str, region: str, namespace: str, name: str, value: float, unit: str, dimensions: dict[str, str]
    ) -> None:
        self.on_loop(account, region, metrics.record, namespace, name, value, unit, dimensions)
        self.checkpoint.touch()

    def put_metrics(self, account: str, region: str, namespace: str, points: list[MetricPoint]) -> None:
        def record() -> None:
            for name, value, unit, dimensions in points:
                metrics.record(namespace, name, value, unit, dimensions)

        self.on_loop(account, region, record)
        self.checkpoint.touch()

    def alarm_states(self, account: str, region: str, names: list[str]) -> dict[str, str]:
        return self.on_loop(account, region, metrics.states, names)

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
        with scope.scoped(account, region):
            status, answer = await metrics.request(operation, json.dumps(request).encode())
        await self.checkpoint.save_now("cloudwatch")
        return status, answer

    def on_alarm_action(self, prefix: str, act: Callable[[str, str, str, dict[str, Any], list[float]], None]) -> None:
        self.alarms.subscribe(prefix, act)

    # Delegate: IAM

    def lets_in(self, role: str, service: str) -> bool | None:
        return trust.lets_in(role, service)

    # Delegate: SNS

    def publish(self, account: str, region: str, topic_arn: str, message: str) -> None:
        self.on_loop(account, region, topics.publish, topic_arn, message)
        self.checkpoint.touch()

    # Delegate: SQS

    def send_message(self, account: str, region: str, queue_url: str, body: str) -> None:
        self.on_loop(account, region, queues.send, queue_url, body)
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
        parts = function_arn.split(":")
        if function_arn.startswith("arn:"):
            region, account, parts = parts[3], parts[4], parts[6:]
        name, qualifier = parts[0], parts[1] if len(parts) > 1 else None
        with scope.scoped(account, region):
            return await functions.invoke(name, event, qualifier, {})

    def emit_event(
        self, account: str, region: str, source: str, detail_type: str, detail: dict[str, Any], resources: list[str]
    ) -> None:
        self.on_loop(account, region, bus.put, source, detail_type, detail, resources)
        self.checkpoint.touch()


def _as_error(response: tuple[int, dict[str, str], bytes]) -> AwsError:
    """MiniStack's XML refusal as an exception."""
    root = xml.parse(response[2])
    return AwsError(root.findtext("Code") or "AccessDenied", root.findtext("Message") or "Access Denied", response[0])


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
