"""Data capture: requests and answers of an endpoint as SageMaker writes them to S3.

    {dest}/{endpoint}/{variant}/yyyy/mm/dd/hh/MM-SS-mmm-uuid.jsonl, one record a line:
    {"captureData": {"endpointInput": {"observedContentType", "mode": "INPUT", "data", "encoding": "JSON|CSV|BASE64"},
                     "endpointOutput": {...}},
     "eventMetadata": {"eventId", "inferenceTime", "inferenceId"?}, "eventVersion": "0"}

Records wait in files of the endpoint's directory until they are uploaded: neither a stop nor a kill -9 loses one.
"""

from __future__ import annotations

import base64
import datetime
import json
import logging
import random
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.context import Context
from localcloud.jobs.transfer import TransferError, join_uri, upload_file

_LOG = logging.getLogger("localcloud.hosting")


@dataclass(frozen=True)
class Exchange:
    """One invocation as it passed through."""

    variant: str
    body: bytes
    content_type: str
    answer: bytes
    answer_type: str
    inference_id: str | None
    custom_attributes: str | None = None


class Capture:
    """Keeps a sample of an endpoint's exchanges and uploads them every few seconds."""

    def __init__(
        self, ctx: Context, endpoint: str, config: dict[str, Any], spool: Path, seconds: float, percentage: int
    ) -> None:
        self._ctx, self._endpoint, self._config, self._spool = ctx, endpoint, config, spool
        self.percentage = percentage
        self._modes = {item["CaptureMode"] for item in config["CaptureOptions"]}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        spool.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._run, args=(seconds,), name=f"capture-{endpoint}", daemon=True)
        self._thread.start()

    def keep(self, exchange: Exchange) -> None:
        """Write one exchange to its variant's file, if the sample takes it."""
        if random.random() * 100 >= self.percentage:  # noqa: S311 - a sample, not a secret
            return
        now = datetime.datetime.now(datetime.UTC)
        line = json.dumps(self._record(exchange, now), separators=(",", ":")) + "\n"
        # One file an hour, because the upload's path holds the hour.
        path = self._spool / f"{exchange.variant}.{now:%Y-%m-%d-%H}.jsonl"
        with self._lock, path.open("a", encoding="utf-8") as file:
            file.write(line)

    def flush(self) -> None:
        """Upload what is waiting, also what an earlier process left."""
        with self._lock:
            for path in self._spool.glob("*.jsonl"):
                path.rename(path.with_name(f"{path.name}.{uuid.uuid4()}.ready"))
        for path in sorted(self._spool.glob("*.ready")):
            variant, hour, _, name, _ = path.name.rsplit(".", 4)
            now = datetime.datetime.now(datetime.UTC)
            target = join_uri(
                self._config["DestinationS3Uri"],
                self._endpoint,
                variant,
                hour.replace("-", "/"),
                f"{now:%M-%S}-{now.microsecond // 1000:03d}-{name}.jsonl",
            )
            upload_file(self._ctx, path, target)
            path.unlink()

    def close(self) -> None:
        """Upload the rest and end."""
        self._stop.set()
        self._thread.join()
        self._try_flush()

    def _run(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            self._try_flush()

    def _try_flush(self) -> None:
        try:
            self.flush()
        except (TransferError, OSError) as error:
            _LOG.warning("endpoint %s: captured data waits in %s: %s", self._endpoint, self._spool, error)

    def _record(self, exchange: Exchange, now: datetime.datetime) -> dict[str, Any]:
        data: dict[str, Any] = {}
        if self._modes & {"Input", "InputAndOutput"}:
            data["endpointInput"] = self._part(exchange.body, exchange.content_type, "INPUT")
        if self._modes & {"Output", "InputAndOutput"}:
            data["endpointOutput"] = self._part(exchange.answer, exchange.answer_type, "OUTPUT")
        metadata = {"eventId": str(uuid.uuid4()), "inferenceTime": now.strftime("%Y-%m-%dT%H:%M:%SZ")}
        if exchange.inference_id:
            metadata["inferenceId"] = exchange.inference_id
        if exchange.custom_attributes:
            metadata["customAttributes"] = [exchange.custom_attributes]  # type: ignore[assignment]
        return {"captureData": data, "eventMetadata": metadata, "eventVersion": "0"}

    def _part(self, body: bytes, content_type: str, mode: str) -> dict[str, str]:
        encoding = self._encoding(content_type)
        text = ""
        if encoding != "BASE64":
            try:
                text = body.decode("utf-8")
            except UnicodeDecodeError:
                encoding = "BASE64"
        if encoding == "BASE64":
            text = base64.b64encode(body).decode("ascii")
        return {"observedContentType": content_type, "mode": mode, "data": text, "encoding": encoding}

    def _encoding(self, content_type: str) -> str:
        header = self._config.get("CaptureContentTypeHeader") or {}
        kind = content_type.split(";")[0].strip().lower()
        for member, encoding in (("CsvContentTypes", "CSV"), ("JsonContentTypes", "JSON")):
            if kind in {item.lower() for item in header.get(member) or []}:
                return encoding
        return "BASE64"
