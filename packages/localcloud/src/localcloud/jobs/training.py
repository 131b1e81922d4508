"""One training job from its document to its end, under the training container contract."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

from localcloud.context import Context
from localcloud.errors import AwsError, validation
from localcloud.jobs import machines
from localcloud.jobs.archive import pack
from localcloud.jobs.capacity import check_preferences, note_selection, selected
from localcloud.jobs.execution import Command, Outcome, run_commands, run_job
from localcloud.jobs.layout import Layout
from localcloud.jobs.logs import LogSink, MetricReader
from localcloud.jobs.states import TRAINING, Job, secondary
from localcloud.jobs.storage import check_cluster
from localcloud.jobs.supervisor import Control, supervisor
from localcloud.jobs.sync import Syncer
from localcloud.jobs.training_host import CHECKPOINTS, TENSORBOARD, Host, script_mode
from localcloud.jobs.transfer import TransferError, aggregate, join_uri, split_uri, upload_file
from localcloud.store import Document

MAX_RUNTIME_SECONDS = 86400
_LOG = logging.getLogger("localcloud.jobs")


def check(ctx: Context, doc: Document) -> None:
    """ValidationException for what AWS refuses, and for what localcloud can't run (each by name)."""
    resources = doc.get("ResourceConfig") or {}
    check_preferences("ResourceConfig", resources, spot=bool(doc.get("EnableManagedSpotTraining")))
    kind, count = selected(resources)
    if resources.get("InstanceGroups"):
        raise validation("ResourceConfig.InstanceGroups is not supported by localcloud; set InstanceCount")
    machines.check_count(count, supervisor(ctx.cloud).settings)
    check_cluster("ResourceConfig", resources)
    if doc.get("ServerlessJobConfig") or not doc.get("AlgorithmSpecification"):
        raise validation("localcloud needs an AlgorithmSpecification; ServerlessJobConfig is not supported here")
    if not kind:
        raise validation("ResourceConfig needs an InstanceType or InstancePreferences.")
    for channel in doc.get("InputDataConfig") or []:
        _check_channel(channel, doc["AlgorithmSpecification"]["TrainingInputMode"])
    condition = doc["StoppingCondition"]
    if doc.get("EnableManagedSpotTraining"):
        wait, run = condition.get("MaxWaitTimeInSeconds"), condition.get("MaxRuntimeInSeconds", MAX_RUNTIME_SECONDS)
        if wait is None or wait < run:
            raise validation(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
                f"MaxRuntimeInSeconds ({run})"
            )
    elif "MaxWaitTimeInSeconds" in condition:
        raise validation("MaxWaitTimeInSeconds cannot be set when EnableManagedSpotTraining is false")
    if doc.get("CheckpointConfig"):
        _check_local_path("CheckpointConfig", doc["CheckpointConfig"].get("LocalPath", CHECKPOINTS))
    if doc.get("TensorBoardOutputConfig"):
        _check_local_path("TensorBoardOutputConfig", doc["TensorBoardOutputConfig"].get("LocalPath", TENSORBOARD))
    if not doc["AlgorithmSpecification"].get("ContainerEntrypoint") and not script_mode(doc)[0]:
        raise validation(
            "localcloud has no container images: give AlgorithmSpecification.ContainerEntrypoint, or the "
            "hyperparameters sagemaker_program and sagemaker_submit_directory"
        )


def check_inputs(ctx: Context, doc: Document) -> None:
    """ValidationException for a channel with nothing in it, as CreateTrainingJob answers it.

    https://github.com/aws/amazon-sagemaker-examples/issues/2489
    """
    for channel in doc.get("InputDataConfig") or []:
        uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
        try:
            bucket, prefix = split_uri(uri)
        except TransferError as error:
            raise validation(str(error).removeprefix("ClientError: ")) from None
        try:
            found = ctx.cloud.delegate.list_objects(ctx.account, bucket, prefix)
        except AwsError:
            found = []
        if not found:
            raise validation(
                f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket '
                f"exists in the selected region ({ctx.region}), that objects exist under that S3 prefix, and that the "
                f'role "{doc["RoleArn"]}" has "s3:ListBucket" permissions on bucket "{bucket}".'
            )


def run(ctx: Context, name: str, control: Control) -> None:
    """Run a created job; whatever happens, its document tells it."""
    job = Job(ctx, TRAINING, name)
    doc = job.read()
    if doc["TrainingJobStatus"] == "Stopping" or control.stopping:
        _finish(job, "Stopped", "Stopped", "Training job stopped")
        return
    run_job(
        ctx,
        name,
        lambda layout: _Run(job, doc, layout, control).run(),
        lambda reason: _finish(job, "Failed", "Failed", "Training job failed", FailureReason=reason),
        lambda: job.read()["TrainingJobStatus"] == "Failed",
    )


class _Run:
    """The phases of one job, in order."""

    def __init__(self, job: Job, doc: Document, layout: Layout, control: Control) -> None:
        self.job, self.doc, self.layout, self.control, self.ctx = job, doc, layout, control, job.ctx
        names = machines.names(selected(doc.get("ResourceConfig") or {})[1])
        layouts = [layout, *(layout.nested(name) for name in names[1:])]
        self.hosts = [Host(job, doc, place, names, number) for number, place in enumerate(layouts)]

    def run(self) -> None:
        with machines.turn(self.control, len(self.hosts)):
            if not self._stopped():
                self._in_turn()

    def _in_turn(self) -> None:
        def started(doc: Document) -> None:
            doc["_started"] = True
            note_selection(doc.get("ResourceConfig") or {})
            secondary(doc, "Downloading", "Downloading input data")

        self.job.change(started)
        for host in self.hosts:
            host.prepare()
        self.control.check()
        if self._stopped():
            return
        started_at = time.time()
        metrics = MetricReader(
            self.ctx, self.job.name, self.doc["AlgorithmSpecification"].get("MetricDefinitions") or []
        )
        commands = []
        for host in self.hosts:
            stream = f"{self.job.name}/{host.name}-{int(started_at)}"
            commands.append(host.command(LogSink(self.ctx, TRAINING.group, stream, host.layout.log, metrics)))

        def training(doc: Document) -> None:
            doc["TrainingStartTime"] = started_at
            if doc["TrainingJobStatus"] == "InProgress":
                secondary(doc, "Training", "Training image download completed. Training in progress.")

        self.job.change(training)
        outcome = self._train(commands)
        self._end(outcome, metrics, max(1, round(time.time() - started_at)))

    def _stopped(self) -> bool:
        """Whether the job ended here, before anything ran."""
        if not self.control.stopping:
            return False
        _finish(self.job, "Stopped", "Stopped", "Training job stopped")
        return True

    def _train(self, commands: list[Command]) -> Outcome:
        limit = self.doc["StoppingCondition"].get("MaxRuntimeInSeconds", MAX_RUNTIME_SECONDS)
        outcome: Outcome | None = None

        def close(host: Host, syncer: Syncer, local: str, uri: str) -> None:
            syncer.close(trust_last_write=outcome is not None and not outcome.killed(host.number))
            _LOG.info("%s %s: uploaded %s from %s to %s", self.job.name, host.name, syncer.moved, local, uri)

        with contextlib.ExitStack() as stack:
            for host in self.hosts:
                for syncer, local, uri in host.syncers():
                    stack.callback(close, host, syncer, local, uri)
            outcome = run_commands(self.ctx, self.control, commands, limit)
        return outcome

    def _end(self, outcome: Outcome, metrics: MetricReader, seconds: int) -> None:
        times = {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": seconds}
        final = {"FinalMetricDataList": list(metrics.final.values()) or None}
        if not outcome.reason and not outcome.stopped:
            self.job.change(lambda doc: secondary(doc, "Uploading", "Uploading generated training model"))
        try:
            artifacts = self._upload(model=outcome.reason is None)
        except TransferError as error:
            if outcome.reason is None:
                raise
            # Why the job failed says more than why its output could not be kept.
            _LOG.warning("%s: %s", self.job.name, error)
            artifacts = None
        members: dict[str, Any] = {**times, **final, "ModelArtifacts": artifacts}
        if outcome.reason:
            _finish(self.job, "Failed", "Failed", "Training job failed", FailureReason=outcome.reason, **members)
        elif outcome.timed_out:
            message = "Training job runtime exceeded MaxRuntimeInSeconds provided"
            _finish(self.job, "Stopped", "MaxRuntimeExceeded", message, **members)
        elif outcome.stopped:
            _finish(self.job, "Stopped", "Stopped", "Training job stopped", **members)
        else:
            _finish(self.job, "Completed", "Completed", "Training job completed", **members)

    def _upload(self, *, model: bool) -> dict[str, str] | None:
        """Model and output artifacts to S3OutputPath; a failed job leaves only its output data, as in AWS."""
        config = self.doc["OutputDataConfig"]
        output = join_uri(config["S3OutputPath"], self.job.name, "output")
        whole = config.get("CompressionType", "GZIP") == "NONE"
        parts = {"output": "output/data"} if not model else {"model": "model", "output": "output/data"}
        for name, part in parts.items():
            directories = [host.layout.opt_ml / part for host in self.hosts]
            if not any(any(directory.iterdir()) for directory in directories):
                continue
            files = aggregate(directories)
            if whole:
                for path, relative in files:
                    upload_file(self.ctx, path, join_uri(output, name, relative))
                continue
            archive = self.layout.root / "tmp" / f"{name}.tar.gz"
            pack(files, archive)
            upload_file(self.ctx, archive, join_uri(output, f"{name}.tar.gz"))
            archive.unlink()
        if not model:
            return None
        return {"S3ModelArtifacts": join_uri(output, "model/") + "/" if whole else join_uri(output, "model.tar.gz")}


def _finish(job: Job, status: str, phase: str, message: str, **members: Any) -> None:
    job.change(lambda doc: secondary(doc, phase, message))
    job.finish(status, **members)


def _check_channel(channel: dict[str, Any], default_mode: str) -> None:
    name, source = channel["ChannelName"], channel["DataSource"].get("S3DataSource")
    if source is None:
        kinds = ", ".join(channel["DataSource"]) or "nothing"
        raise validation(f"Channel {name}: localcloud reads S3DataSource only, not {kinds}")
    if source["S3DataType"] != "S3Prefix":
        kind = source["S3DataType"]
        raise validation(f"Channel {name}: S3DataType {kind} is not supported by localcloud; use S3Prefix")
    if channel.get("InputMode", default_mode) == "Pipe":
        raise validation(f"Channel {name}: input mode Pipe is not supported by localcloud; use File or FastFile")
    if channel.get("CompressionType", "None") != "None" or channel.get("RecordWrapperType", "None") != "None":
        raise validation(
            f"Channel {name}: CompressionType and RecordWrapperType go with input mode Pipe; localcloud has File"
        )


def _check_local_path(place: str, path: str) -> None:
    if not (path + "/").startswith("/opt/ml/"):
        raise validation(f"{place}.LocalPath {path!r}: in localcloud it must be in /opt/ml")
