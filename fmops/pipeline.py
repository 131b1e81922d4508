"""One pipeline.yaml in one environment: upsert it, start runs, find versions and the endpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import terminal

if TYPE_CHECKING:
    import boto3

    from common.findings import Finding
    from common.model_shape import ModelShape
    from configuration.config import Config
    from configuration.layers import Loaded
    from fmops.endpoint import Endpoint
    from fmops.run import Run
    from fmops.version import Version
    from pipelines.fit import Check
    from pipelines.look import Look
    from pipelines.publish import Published
    from pipelines.validate import Problem

LOCAL = "local"
"""The environment that runs on localcloud."""


@dataclass(frozen=True)
class Pipeline:
    """What pipeline.yaml describes, in the account that it names, or on this machine.

    `env` is one of the file's environments; `env="local"` and `local=True` mean localcloud, which starts when it is
    first needed. Nothing is read or sent before a method asks for it. What happens is told through `say`, line by line.
    Every method raises UserError, which says what to do, where something is missing or refused.
    """

    path: Path | str = "pipeline.yaml"
    env: str | None = None
    local: bool = False
    say: Callable[[str], Any] = terminal.say

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "local", self.local or self.env == LOCAL)

    @functools.cached_property
    def loaded(self) -> Loaded:
        """The checked configuration and where each value comes from. Raises ConfigError, all mistakes at once."""
        from configuration.layers import environments, load

        path = Path(self.path)
        name = self.env
        if self.local and name in (None, LOCAL):
            name = LOCAL if LOCAL in environments(path) else None
        return load(path, name)

    @property
    def config(self) -> Config:
        return self.loaded.config

    @functools.cached_property
    def session(self) -> boto3.Session:
        """A boto3 session for the configured account and region; another account is rejected."""
        from pipelines.aws import connect

        return connect(self.config, Path(self.path), self.local)

    @property
    def home(self) -> Path:
        """Where localcloud keeps its state and reports are put: $FMOPS_HOME, else `.fmops/` beside the file."""
        from pipelines.aws import home

        return home(Path(self.path))

    @property
    def flag(self) -> str:
        """` --local` or ` --env NAME`: how the commands that are printed end."""
        named = f" --env {self.env}" if self.env and self.env != LOCAL else ""
        return f" --local{named}" if self.local else named

    def validate(self, model: Path | str | None = None) -> list[Problem]:
        """Everything that AWS would refuse, training that doesn't fit its machines, and why the base model can't be
        trained so; an empty list is good.

        `model` is the base model's directory or its config.json; without it memory is checked if the model is one that
        is kept on this machine. No account, no network.
        """
        from pipelines.validate import Problem, validate

        refused = [item for item in self.check_model(model) if item.level == "refusal"]
        return [
            *validate(self.config, self._shape(model)),
            *(Problem("Prepare", f"base model ({item.about})", item.message) for item in refused),
        ]

    def check_model(self, model: Path | str | None) -> list[Finding]:
        """What Prepare and Train will find about the base model in the directory `model`: refusals, warnings, facts
        (licence, positions, what its chat template takes). Nothing of a config.json alone. No account, no network."""
        from pipelines.base_model import findings

        return findings(self.config, Path(model) if model else None)

    def fit(self, model: Path | str | None = None) -> list[Check]:
        """How much memory training needs on each of its machines, by part; empty if the base model isn't known here.

        Nothing is said of this machine: on a CPU memory is the process's, not a GPU's.
        """
        from pipelines.fit import checks

        shape = self._shape(model)
        return checks(self.config, shape) if shape else []

    def _shape(self, model: Path | str | None) -> ModelShape | None:
        from pipelines.fit import known_shape

        return None if self.local else known_shape(self.config, self.home, Path(model) if model else None)

    def definition(self) -> str:
        """The pipeline definition: JSON, the same bytes for the same tree. No account, no network."""
        from pipelines.finetuning import definition

        return definition(self.config)

    def bootstrap(self) -> str:
        """Create the buckets, the key and the roles, once per account and region; returns what was done.

        The base model that arrives through pip goes with it, where pipeline.yaml names that one.
        """
        from pipelines.bootstrap import bootstrap
        from pipelines.local_setup import upload_base_model

        done = str(bootstrap(self.config, self.session))
        upload_base_model(self.config, self.session, self.home, self.say)
        return done

    def upsert(self) -> Published:
        """Upload the code, deploy the functions, create or update the pipeline; what is there already stays.

        On this machine the buckets, roles, base model and example rows come with it.
        """
        from pipelines.local_setup import prepare
        from pipelines.publish import publish

        if self.local:
            return prepare(self.config, self.session, self.home, self.say)
        return publish(self.config, self.session)

    def start(self, data: Path | str | None = None, parameters: Mapping[str, Any] | None = None) -> Run:
        """Start a run, with your own rows (a local CSV, JSONL or Parquet file) and overridden parameters.

        The rows and every parameter are checked before anything starts: `{"Epochs": 2, "LearningRate": 1e-4}`. Without
        `data` the run reads what pipeline.yaml names. On this machine it is said first when training will take more
        than ten minutes.
        """
        from common.bedrock_dials import on_demand_id
        from fmops.run import Run
        from pipelines import bedrock_base, estimate, executions, power
        from pipelines import data as rows
        from pipelines.local_setup import stand_in_for_bedrock

        chosen = {name: str(value) for name, value in (parameters or {}).items()}
        if data is not None:
            checked = rows.check(self.config, Path(data))
            self.say(checked)
            self.say(power.sentence(self.config, rows.rows_to_test(checked)))
        on_bedrock = bedrock_base.on_bedrock(self.config, chosen)
        if on_bedrock and "BedrockBaseModel" in chosen and self.config.bedrock.compared_with is None:
            chosen.setdefault("BedrockComparedWith", on_demand_id(chosen["BedrockBaseModel"]))
        if self.local:
            self.upsert()
            if on_bedrock:
                stand_in_for_bedrock(self.config, self.home)
        if data is not None:
            chosen["InputDataUri"] = rows.upload(self.config, self.session, Path(data))
        executions.check(self.session, self.config, chosen)
        if on_bedrock:
            bedrock_base.check(self.config, self.session, chosen)
        rows.check_inputs(self.config, self.session, chosen)
        if not self.local and not on_bedrock:
            self.refuse_what_does_not_fit(chosen)
        if self.local and not on_bedrock:
            estimate.announce(self.config, self.session, self.home, chosen, self.say)
        run = Run(self, executions.start(self.session, self.config, chosen))
        self.say(f"Started {self.config.name}, execution {run.id}.")
        return run

    def refuse_what_does_not_fit(self, chosen: Mapping[str, str]) -> None:
        """Raise UsageProblem where training is known not to fit its machines with these parameters."""
        from configuration.errors import UsageProblem
        from configuration.parameters import with_overrides
        from pipelines.fit import checks

        shape = self._shape(None)
        found = checks(with_overrides(self.config, chosen), shape) if shape else []
        problems = [str(check) for check in found if not check.fits]
        if problems:
            raise UsageProblem("\n  ".join(["Nothing was started: training would run out of memory.", *problems]))

    def look(self, data: Path | str, model: Path | str | None = None, rows: int | None = None) -> Look:
        """What Prepare and Train make of a local file or folder of rows; nothing is uploaded or started.

        `model` is the directory of a model, for its tokenizer and template; without it the base model is taken where
        it is kept on this machine. `rows`: how many are looked at, 10,000 unless said. No account, no network.
        """
        from configuration.errors import UsageProblem
        from pipelines import look

        if not Path(data).exists():
            raise UsageProblem(f"{data}: there is no such file.")
        return look.look(self.config, self.home, Path(data), Path(model) if model else None, rows or look.ROWS)

    def check_data(
        self, data: Path | str, target: str = "sagemaker", epochs: int | None = None
    ) -> tuple[list[str], bool]:
        """Whether a local file of rows can be used as it is, after the lines that say so.

        By Prepare, or with `target` a family (nova, claude, llama, titan, cohere) or base model by a fine-tuning job on
        Bedrock, of which `epochs` tells what it is paid for; pipeline.yaml isn't read then. No account, no network.
        """
        from configuration.errors import UsageProblem
        from pipelines import data_check

        if target != data_check.SAGEMAKER:
            return data_check.check_for_bedrock(Path(data), target, epochs)
        if epochs is not None:
            raise UsageProblem(
                "--epochs is for a job on Bedrock: name one with --for; training's are in pipeline.yaml."
            )
        return data_check.check_for_sagemaker(self.config, Path(data))

    def run(self, execution: str | None = None) -> Run:
        """A run by its execution's id or ARN; without one the latest."""
        from fmops.run import Run
        from pipelines import executions

        return Run(self, executions.resolve(self.session, self.config.name, execution))

    def version(self, number: int, group: str | None = None) -> Version:
        """A registered version by its number, in the group that pipeline.yaml names, or in another."""
        from configuration.names import model_package_group
        from fmops.version import Version
        from pipelines import registry

        return Version(self, registry.find_version(self.session, group or model_package_group(self.config), number))

    def versions(self, group: str | None = None) -> list[Version]:
        """Every registered version, newest first, of the group that pipeline.yaml names, or of another."""
        from configuration.names import model_package_group
        from fmops.version import Version
        from pipelines import registry

        found = registry.versions(self.session, group or model_package_group(self.config))
        return [Version(self, registry.describe(self.session, item["ModelPackageArn"])) for item in found]

    def evaluate(
        self,
        model: str,
        data: Path | str,
        output: Path | str,
        base: str | None = None,
        at_once: int = 8,
        rows: int = 0,
    ) -> dict[str, Any]:
        """Score what is deployed ("endpoint:NAME" or "bedrock:ID") on a file of rows; evaluation.json.

        `rows`: at most so many, 0: all. Answers are kept under `output`, so that a repeat asks only the rest.
        """
        from pipelines.remote_evaluation import Asked, evaluate

        self.session  # noqa: B018 - connects: on this machine the endpoint of AWS is localcloud's
        return evaluate(self.config, Asked(model, Path(data), Path(output), base, at_once, rows))

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that pipeline.yaml names."""
        return self.endpoint_named(None)

    def endpoint_named(self, name: str | None) -> Endpoint:
        """An endpoint of another name; None: the configured one."""
        from configuration.names import endpoint_name
        from fmops.endpoint import Endpoint

        return Endpoint(self, name or endpoint_name(self.config))
