"""One training job from its document to its end, under the training container contract."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from localcloud.context import Context
from localcloud.errors import AwsError, validation
from localcloud.jobs import environment as env
from localcloud.jobs.archive import pack, unpack
from localcloud.jobs.capacity import check_preferences, note_selection, selected
from localcloud.jobs.execution import Outcome, run_command, run_job
from localcloud.jobs.layout import Layout
from localcloud.jobs.logs import LogSink, MetricReader
from localcloud.jobs.states import TRAINING, Job, secondary
from localcloud.jobs.storage import check_cluster
from localcloud.jobs.supervisor import Control, supervisor
from localcloud.jobs.sync import Syncer, restore
from localcloud.jobs.transfer import (
    TransferError,
    fetch_object,
    fetch_prefix,
    join_uri,
    split_uri,
    upload_file,
    upload_tree,
)
from localcloud.store import Document

CHECKPOINTS = "/opt/ml/checkpoints"
MAX_RUNTIME_SECONDS = 86400
_LOG = logging.getLogger("localcloud.jobs")
_CODE_CHANNELS = {"code", "sm_drivers"}


def check(doc: Document) -> None:
    """ValidationException for what AWS refuses, and for what localcloud can't run (each by name)."""
    resources = doc.get("ResourceConfig") or {}
    check_preferences("ResourceConfig", resources, spot=bool(doc.get("EnableManagedSpotTraining")))
    kind, count = selected(resources)
    if count != 1 or resources.get("InstanceGroups"):
        raise validation(
            f"localcloud runs one instance: ResourceConfig.InstanceCount is {count}; set it to 1, no InstanceGroups"
        )
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
        _check_local_path(doc["CheckpointConfig"].get("LocalPath", CHECKPOINTS))
    if not doc["AlgorithmSpecification"].get("ContainerEntrypoint") and not _script_mode(doc)[0]:
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
        self.channels = {item["ChannelName"]: item for item in doc.get("InputDataConfig") or []}
        self.checkpoint: dict[str, str] = doc.get("CheckpointConfig") or {}

    def run(self) -> None:
        def started(doc: Document) -> None:
            doc["_started"] = True
            note_selection(doc.get("ResourceConfig") or {})
            secondary(doc, "Downloading", "Downloading input data")

        self.job.change(started)
        self._directories()
        self._inputs()
        self.control.check()
        if self.control.stopping:
            _finish(self.job, "Stopped", "Stopped", "Training job stopped")
            return
        command, directory, extra = self._command()
        environment = self._environment() | extra
        started_at = time.time()

        def training(doc: Document) -> None:
            doc["TrainingStartTime"] = started_at
            if doc["TrainingJobStatus"] == "InProgress":
                secondary(doc, "Training", "Training image download completed. Training in progress.")

        self.job.change(training)
        metrics = MetricReader(
            self.ctx, self.job.name, self.doc["AlgorithmSpecification"].get("MetricDefinitions") or []
        )
        stream = f"{self.job.name}/{env.HOST}-{int(started_at)}"
        sink = LogSink(self.ctx, TRAINING.group, stream, self.layout.log, metrics)
        outcome = self._train(command, directory, environment, sink)
        seconds = max(1, round(time.time() - started_at))
        self._end(outcome, metrics, seconds)

    def _directories(self) -> None:
        for part in ("model", "code", "output/data", "output/intermediate", "input/data", "input/config"):
            (self.layout.opt_ml / part).mkdir(parents=True)

    def _inputs(self) -> None:
        data = self.layout.opt_ml / "input" / "data"
        for name, channel in self.channels.items():
            source = channel["DataSource"]["S3DataSource"]
            fetch_prefix(self.ctx, source["S3Uri"], data / name)
            if name in _CODE_CHANNELS or self._in_command(f"/opt/ml/input/data/{name}/"):
                self.layout.map_files(data / name)
        config = self.layout.opt_ml / "input" / "config"
        self._write(config / "hyperparameters.json", self.doc.get("HyperParameters") or {})
        self._write(config / "inputdataconfig.json", self._input_data_config())
        self._write(config / "resourceconfig.json", self._resources())
        if self.checkpoint:
            local, uri = self.checkpoint.get("LocalPath", CHECKPOINTS), self.checkpoint["S3Uri"]
            target = self.layout.path(local)
            target.mkdir(parents=True, exist_ok=True)
            _LOG.info("%s: restored %s from %s to %s", self.job.name, restore(self.ctx, uri, target), uri, local)

    def _in_command(self, text: str) -> bool:
        specification = self.doc["AlgorithmSpecification"]
        words = [*(specification.get("ContainerEntrypoint") or []), *(specification.get("ContainerArguments") or [])]
        return any(text in word for word in words)

    def _input_data_config(self) -> dict[str, dict[str, Any]]:
        mode = self.doc["AlgorithmSpecification"]["TrainingInputMode"]
        config: dict[str, dict[str, Any]] = {}
        for name, channel in self.channels.items():
            source = channel["DataSource"]["S3DataSource"]
            config[name] = {
                "TrainingInputMode": channel.get("InputMode", mode),
                "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
            }
            if channel.get("ContentType"):
                config[name]["ContentType"] = channel["ContentType"]
        return config

    def _resources(self) -> dict[str, Any]:
        return env.resource_config(selected(self.doc.get("ResourceConfig") or {})[0])

    def _environment(self) -> dict[str, str]:
        isolated = bool(self.doc.get("EnableNetworkIsolation"))
        contract = env.training_environment(self.doc, self._input_data_config(), self._resources())
        merged = contract | (self.doc.get("Environment") or {})
        return env.base_environment(self.ctx, self.layout, isolated=isolated, role=self.doc.get("RoleArn", "")) | {
            key: self.layout.map(value) for key, value in merged.items()
        }

    def _command(self) -> tuple[list[str], str | None, dict[str, str]]:
        """(command, directory or None, further environment), as the job sees them."""
        specification = self.doc["AlgorithmSpecification"]
        entrypoint = specification.get("ContainerEntrypoint")
        if entrypoint:
            words = [*entrypoint, *(specification.get("ContainerArguments") or [])]
            return [self.layout.map(word) for word in words], None, {}
        return self._script_mode_command()

    def _script_mode_command(self) -> tuple[list[str], str, dict[str, str]]:
        program, source = _script_mode(self.doc)
        remote = source.startswith("s3://")
        place = "/opt/ml/code" if remote or not source else source
        code = self.layout.path(place)
        if remote:
            archive = self.layout.root / "tmp" / "sourcedir.tar.gz"
            fetch_object(self.ctx, *split_uri(source), archive)
            unpack(archive, code)
            self.layout.map_files(code)
        if not (code / program).is_file():
            where = source or "the code directory"
            raise TransferError(f"ClientError: sagemaker_program {program!r} is not in {where}")
        user = json.loads(self._environment()["SM_HPS"])
        start = ["/bin/sh", program] if program.endswith(".sh") else ["python", program]
        seen = self.layout.map(place)
        words = [self.layout.map(word) for word in env.command_line(user)]
        return [*start, *words], seen, {"PYTHONPATH": seen}

    def _train(self, command: list[str], directory: str | None, environment: dict[str, str], sink: LogSink) -> Outcome:
        syncer = None
        if self.checkpoint:
            settings = supervisor(self.ctx.cloud).settings
            local, uri = self.checkpoint.get("LocalPath", CHECKPOINTS), self.checkpoint["S3Uri"]
            scratch = self.layout.root / "tmp"
            syncer = Syncer(self.ctx, self.layout.path(local), uri, scratch, settings.sync_seconds)
        limit = self.doc["StoppingCondition"].get("MaxRuntimeInSeconds", MAX_RUNTIME_SECONDS)
        trust = False
        try:
            outcome = run_command(
                self.ctx, self.control, self.layout, command, environment, sink, limit, directory, self.channels
            )
            trust = not outcome.killed
        finally:
            if syncer is not None:
                syncer.close(trust_last_write=trust)
                _LOG.info("%s: uploaded %s from %s to %s", self.job.name, syncer.moved, local, uri)
        return outcome

    def _end(self, outcome: Outcome, metrics: MetricReader, seconds: int) -> None:
        times = {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": seconds}
        final = {"FinalMetricDataList": list(metrics.final.values()) or None}
        if not outcome.reason and not outcome.stopped:
            self.job.change(lambda doc: secondary(doc, "Uploading", "Uploading generated training model"))
        artifacts = self._upload(model=outcome.reason is None)
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
        parts = [("output", self.layout.opt_ml / "output" / "data")]
        if model:
            parts.insert(0, ("model", self.layout.opt_ml / "model"))
        for name, directory in parts:
            if not any(directory.iterdir()):
                continue
            if whole:
                upload_tree(self.ctx, directory, join_uri(output, name))
                continue
            archive = self.layout.root / "tmp" / f"{name}.tar.gz"
            pack(directory, archive)
            upload_file(self.ctx, archive, join_uri(output, f"{name}.tar.gz"))
            archive.unlink()
        if not model:
            return None
        return {"S3ModelArtifacts": join_uri(output, "model/") + "/" if whole else join_uri(output, "model.tar.gz")}

    def _write(self, path: Path, value: Any) -> None:
        path.write_text(self.layout.map(json.dumps(value)))


def _finish(job: Job, status: str, phase: str, message: str, **members: Any) -> None:
    job.change(lambda doc: secondary(doc, phase, message))
    job.finish(status, **members)


def _script_mode(doc: Document) -> tuple[str, str]:
    """(program, submit directory) of the training toolkit's way to pass code; empty where absent."""
    hyperparameters, variables = doc.get("HyperParameters") or {}, doc.get("Environment") or {}

    def value(key: str) -> str:
        return str(hyperparameters.get(key.lower(), "")).strip('"') or variables.get(key, "")

    return value("SAGEMAKER_PROGRAM"), value("SAGEMAKER_SUBMIT_DIRECTORY")


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


def _check_local_path(path: str) -> None:
    if not (path + "/").startswith("/opt/ml/"):
        raise validation(f"CheckpointConfig.LocalPath {path!r}: in localcloud it must be in /opt/ml")
