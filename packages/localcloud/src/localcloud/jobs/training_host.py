"""One machine of a training job: its directories, what it is given, and what runs there."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from localcloud.jobs import environment as env
from localcloud.jobs.archive import unpack
from localcloud.jobs.capacity import selected
from localcloud.jobs.execution import Command
from localcloud.jobs.layout import Layout
from localcloud.jobs.logs import LogSink
from localcloud.jobs.machines import write_hosts
from localcloud.jobs.states import Job
from localcloud.jobs.supervisor import supervisor
from localcloud.jobs.sync import Syncer, restore
from localcloud.jobs.transfer import TransferError, fetch_object, fetch_prefix, join_uri, split_uri
from localcloud.store import Document

CHECKPOINTS = "/opt/ml/checkpoints"
TENSORBOARD = "/opt/ml/output/tensorboard"
_LOG = logging.getLogger("localcloud.jobs")
_CODE_CHANNELS = {"code", "sm_drivers"}


class Host:
    """`hosts[number]` of a job, in a directory tree of its own."""

    def __init__(self, job: Job, doc: Document, layout: Layout, hosts: list[str], number: int) -> None:
        self.job, self.doc, self.layout, self.ctx = job, doc, layout, job.ctx
        self.hosts, self.number, self.name = hosts, number, hosts[number]
        self.channels: dict[str, dict[str, Any]] = {
            item["ChannelName"]: item for item in doc.get("InputDataConfig") or []
        }
        self.checkpoint: dict[str, str] = doc.get("CheckpointConfig") or {}

    @property
    def checkpoint_paths(self) -> tuple[str, str]:
        """(directory in the container, S3 URI) of a job that keeps checkpoints."""
        return self.checkpoint.get("LocalPath", CHECKPOINTS), self.checkpoint["S3Uri"]

    @property
    def followed(self) -> list[tuple[str, str]]:
        """(directory in the container, S3 URI) of what goes to S3 while the job runs."""
        found = [self.checkpoint_paths] if self.checkpoint else []
        board = self.doc.get("TensorBoardOutputConfig")
        if board:
            # Where the SDK 2.x looks for them: EstimatorBase.latest_job_tensorboard_artifacts_path.
            uri = join_uri(board["S3OutputPath"], self.job.name, "tensorboard-output")
            found.append((board.get("LocalPath", TENSORBOARD), uri))
        return found

    def prepare(self) -> None:
        """Directories, channels, configuration, and the checkpoints that are there already."""
        for part in ("model", "code", "output/data", "output/intermediate", "input/data", "input/config"):
            (self.layout.opt_ml / part).mkdir(parents=True)
        write_hosts(self.layout, self.hosts)
        data = self.layout.opt_ml / "input" / "data"
        for name, channel in self.channels.items():
            source = channel["DataSource"]["S3DataSource"]
            sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
            share = (self.number, len(self.hosts)) if sharded else (0, 1)
            fetch_prefix(self.ctx, source["S3Uri"], data / name, share=share)
            if name in _CODE_CHANNELS or self._in_command(f"/opt/ml/input/data/{name}/"):
                self.layout.map_files(data / name)
        config = self.layout.opt_ml / "input" / "config"
        self._write(config / "hyperparameters.json", self.doc.get("HyperParameters") or {})
        self._write(config / "inputdataconfig.json", self._input_data_config())
        self._write(config / "resourceconfig.json", self._resources())
        if self.checkpoint:
            local, uri = self.checkpoint_paths
            target = self.layout.path(local)
            target.mkdir(parents=True, exist_ok=True)
            moved = restore(self.ctx, uri, target)
            _LOG.info("%s %s: restored %s from %s to %s", self.job.name, self.name, moved, uri, local)
        for local, _ in self.followed:
            self.layout.path(local).mkdir(parents=True, exist_ok=True)

    def command(self, sink: LogSink) -> Command:
        """What the container runs; TransferError when its program isn't there."""
        words, directory, extra = self._command()
        return Command(self.layout, words, self._environment() | extra, sink, directory, self.channels)

    def syncers(self) -> list[tuple[Syncer, str, str]]:
        """What uploads checkpoints and TensorBoard's files from now on, if the job has any; from where, to where."""
        interval = supervisor(self.ctx.cloud).settings.sync_seconds
        scratch = self.layout.root / "tmp"
        return [
            (
                Syncer(self.ctx, self.layout.path(local), uri, scratch / Path(local).name, interval, self.name),
                local,
                uri,
            )
            for local, uri in self.followed
        ]

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
        return env.resource_config(selected(self.doc.get("ResourceConfig") or {})[0], self.name, self.hosts)

    def _environment(self) -> dict[str, str]:
        isolated = bool(self.doc.get("EnableNetworkIsolation"))
        contract = env.training_environment(self.doc, self._input_data_config(), self._resources())
        merged = contract | (self.doc.get("Environment") or {})
        base = env.base_environment(
            self.ctx, self.layout, isolated=isolated, role=self.doc.get("RoleArn", ""), machines=len(self.hosts)
        )
        return base | {key: self.layout.map(value) for key, value in merged.items()}

    def _command(self) -> tuple[list[str], str | None, dict[str, str]]:
        """(command, directory or None, further environment), as the job sees them."""
        specification = self.doc["AlgorithmSpecification"]
        entrypoint = specification.get("ContainerEntrypoint")
        if entrypoint:
            words = [*entrypoint, *(specification.get("ContainerArguments") or [])]
            return [self.layout.map(word) for word in words], None, {}
        return self._script_mode_command()

    def _script_mode_command(self) -> tuple[list[str], str, dict[str, str]]:
        program, source = script_mode(self.doc)
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

    def _write(self, path: Path, value: Any) -> None:
        path.write_text(self.layout.map(json.dumps(value)))


def script_mode(doc: Document) -> tuple[str, str]:
    """(program, submit directory) of the training toolkit's way to pass code; empty where absent."""
    hyperparameters, variables = doc.get("HyperParameters") or {}, doc.get("Environment") or {}

    def value(key: str) -> str:
        return str(hyperparameters.get(key.lower(), "")).strip('"') or variables.get(key, "")

    return value("SAGEMAKER_PROGRAM"), value("SAGEMAKER_SUBMIT_DIRECTORY")
