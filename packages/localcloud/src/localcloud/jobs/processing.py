"""One processing job from its document to its end, under the processing container contract."""

from __future__ import annotations

import json
import time
from typing import Any

from localcloud.context import Context
from localcloud.errors import validation
from localcloud.jobs import environment as env
from localcloud.jobs.capacity import check_preferences, note_selection, selected
from localcloud.jobs.execution import Command, Outcome, read_text, run_commands, run_job
from localcloud.jobs.layout import Layout
from localcloud.jobs.logs import LogSink
from localcloud.jobs.states import PROCESSING, Job
from localcloud.jobs.storage import check_cluster, check_size
from localcloud.jobs.supervisor import Control, supervisor
from localcloud.jobs.sync import Syncer
from localcloud.jobs.transfer import fetch_prefix, upload_tree
from localcloud.store import Document

MAX_RUNTIME_SECONDS = 86400
_ROOT = "/opt/ml/processing/"


def check(doc: Document) -> None:
    """ValidationException for what AWS refuses, and for what localcloud can't run (each by name)."""
    cluster = doc["ProcessingResources"]["ClusterConfig"]
    check_preferences("ClusterConfig", cluster)
    kind, count = selected(cluster)
    if count != 1:
        raise validation(f"localcloud runs one instance: ClusterConfig.InstanceCount is {count}; set it to 1")
    if not kind:
        raise validation("ClusterConfig needs an InstanceType or InstancePreferences.")
    check_cluster("ClusterConfig", cluster)
    check_size("ClusterConfig", cluster)
    if not doc["AppSpecification"].get("ContainerEntrypoint"):
        raise validation("localcloud has no container images: give AppSpecification.ContainerEntrypoint")
    for item in doc.get("ProcessingInputs") or []:
        name, source = item["InputName"], item.get("S3Input")
        if source is None or item.get("AppManaged"):
            raise validation(f"Input {name}: localcloud reads S3Input only, not DatasetDefinition or AppManaged")
        if source["S3DataType"] != "S3Prefix":
            kind = source["S3DataType"]
            raise validation(f"Input {name}: S3DataType {kind} is not supported by localcloud; use S3Prefix")
        if source.get("S3InputMode", "File") != "File":
            raise validation(f"Input {name}: S3InputMode Pipe is not supported by localcloud; use File")
        if source.get("S3CompressionType", "None") != "None":
            raise validation(
                f"Input {name}: S3CompressionType Gzip goes with S3InputMode Pipe; localcloud has File only"
            )
        _check_local_path("Input", name, source.get("LocalPath"))
    for item in (doc.get("ProcessingOutputConfig") or {}).get("Outputs") or []:
        name, target = item["OutputName"], item.get("S3Output")
        if target is None or item.get("AppManaged"):
            raise validation(f"Output {name}: localcloud writes S3Output only, not FeatureStoreOutput or AppManaged")
        _check_local_path("Output", name, target.get("LocalPath"))


def run(ctx: Context, name: str, control: Control) -> None:
    """Run a created job; whatever happens, its document tells it."""
    job = Job(ctx, PROCESSING, name)
    doc = job.read()
    if doc["ProcessingJobStatus"] == "Stopping" or control.stopping:
        job.finish("Stopped")
        return
    run_job(
        ctx,
        name,
        lambda layout: _Run(job, doc, layout, control).run(),
        lambda reason: job.finish("Failed", FailureReason=reason),
        lambda: job.read()["ProcessingJobStatus"] == "Failed",
    )


class _Run:
    """The phases of one job, in order."""

    def __init__(self, job: Job, doc: Document, layout: Layout, control: Control) -> None:
        self.job, self.doc, self.layout, self.control, self.ctx = job, doc, layout, control, job.ctx
        self.inputs: list[dict[str, Any]] = doc.get("ProcessingInputs") or []
        self.outputs = [item["S3Output"] for item in (doc.get("ProcessingOutputConfig") or {}).get("Outputs") or []]
        application = doc["AppSpecification"]
        self.words: list[str] = [*application["ContainerEntrypoint"], *(application.get("ContainerArguments") or [])]

    def run(self) -> None:
        def started(doc: Document) -> None:
            doc["_started"] = True
            note_selection(doc["ProcessingResources"]["ClusterConfig"])

        self.job.change(started)
        self._inputs()
        self._config()
        self.control.check()
        if self.control.stopping:
            self.job.finish("Stopped")
            return
        started_at = time.time()
        self.job.change(lambda doc: doc.update(ProcessingStartTime=started_at))
        stream = f"{self.job.name}/{env.HOST}-{int(started_at)}"
        outcome = self._process(LogSink(self.ctx, PROCESSING.group, stream, self.layout.log))
        message = read_text(self.layout.opt_ml / "output" / "message") or None
        if outcome.reason:
            self.job.finish("Failed", FailureReason=outcome.reason, ExitMessage=message)
        elif outcome.timed_out:
            reason = f"MaxRuntimeExceeded: the job ran longer than {self._limit()} seconds"
            self.job.finish("Stopped", FailureReason=reason, ExitMessage=message)
        elif outcome.stopped:
            self.job.finish("Stopped", ExitMessage=message)
        else:
            for output in self.outputs:
                if output["S3UploadMode"] == "EndOfJob":
                    upload_tree(self.ctx, self.layout.path(output["LocalPath"]), output["S3Uri"])
            self.job.finish("Completed", ExitMessage=message)

    def _inputs(self) -> None:
        for item in self.inputs:
            source = item["S3Input"]
            local = self.layout.path(source["LocalPath"])
            fetch_prefix(self.ctx, source["S3Uri"], local)
            inside = source["LocalPath"].rstrip("/") + "/"
            if item["InputName"] in ("code", "entrypoint") or any(word.startswith(inside) for word in self.words):
                self.layout.map_files(local)

    def _config(self) -> None:
        for output in self.outputs:
            self.layout.path(output["LocalPath"]).mkdir(parents=True, exist_ok=True)
        (self.layout.opt_ml / "output").mkdir(exist_ok=True)
        config = self.layout.opt_ml / "config"
        config.mkdir()
        members = (
            "ProcessingJobArn",
            "ProcessingJobName",
            "AppSpecification",
            "Environment",
            "NetworkConfig",
            "ProcessingInputs",
            "ProcessingOutputConfig",
            "ProcessingResources",
            "RoleArn",
            "StoppingCondition",
        )
        job = {member: self.doc.get(member) for member in members}
        resources = {"current_host": env.HOST, "hosts": [env.HOST]}
        for name, value in (("processingjobconfig.json", job), ("resourceconfig.json", resources)):
            (config / name).write_text(self.layout.map(json.dumps(value)))

    def _environment(self) -> dict[str, str]:
        isolated = bool((self.doc.get("NetworkConfig") or {}).get("EnableNetworkIsolation"))
        user = self.doc.get("Environment") or {}
        return env.base_environment(self.ctx, self.layout, isolated=isolated, role=self.doc.get("RoleArn", "")) | {
            "PROCESSING_JOB_NAME": self.job.name,
            "PROCESSING_JOB_ARN": self.doc["ProcessingJobArn"],
            **{key: self.layout.map(value) for key, value in user.items()},
        }

    def _limit(self) -> int:
        return int((self.doc.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds", MAX_RUNTIME_SECONDS))

    def _process(self, sink: LogSink) -> Outcome:
        command = [self.layout.map(word) for word in self.words]
        interval = supervisor(self.ctx.cloud).settings.sync_seconds
        syncers: list[Syncer] = []
        for position, output in enumerate(self.outputs):
            if output["S3UploadMode"] == "Continuous":
                scratch = self.layout.root / "tmp" / f"sync-{position}"
                local = self.layout.path(output["LocalPath"])
                syncers.append(Syncer(self.ctx, local, output["S3Uri"], scratch, interval))
        trust = False
        try:
            container = Command(self.layout, command, self._environment(), sink)
            outcome = run_commands(self.ctx, self.control, [container], self._limit())
            trust = not outcome.killed(0)
        finally:
            for syncer in syncers:
                syncer.close(trust_last_write=trust)
        return outcome


def _check_local_path(kind: str, name: str, path: str | None) -> None:
    if not path or not (path + "/").startswith(_ROOT):
        raise validation(f"{kind} {name}: LocalPath {path!r} must begin with {_ROOT}")
