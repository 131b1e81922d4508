"""What expressions see while an execution runs: its parameters, its variables, its finished steps, their JSON files."""

from __future__ import annotations

import datetime
import json
import time
from typing import Any

from localcloud.context import Context
from localcloud.engine import journal
from localcloud.engine.definition import Definition
from localcloud.engine.expressions import ExpressionError, walk
from localcloud.errors import AwsError
from localcloud.store import Document


class ExecutionScope:
    """The `Scope` of one execution; step answers are read from its journal at each use."""

    def __init__(self, ctx: Context, execution: Document, definition: Definition) -> None:
        self._ctx = ctx
        self._execution = execution
        self._definition = definition
        self._key = journal.key_of(execution["PipelineExecutionArn"])
        self.job_names: dict[str, str] = {}
        """The job that the step in this scope is about to start, e.g. `{"TrainingJobName": NAME}`."""

    def parameter(self, name: str) -> Any:
        return self._execution["_parameters"][name]

    def execution(self, name: str) -> Any:
        arn = self._execution["PipelineExecutionArn"]
        if name in ("TrainingJobName", "ProcessingJobName"):
            if name not in self.job_names:
                raise ExpressionError(
                    f"Execution.{name} is only available inside a {name.removesuffix('JobName')} step"
                )
            return self.job_names[name]
        if name == "StartDateTime":
            return _iso(self._execution["CreationTime"])
        if name == "CurrentDateTime":
            return _iso(time.time())
        values = {
            "PipelineName": self._execution["_pipeline"],
            "PipelineArn": self._execution["PipelineArn"],
            "PipelineExecutionId": arn.rsplit("/", 1)[1],
            "PipelineExecutionArn": arn,
        }
        return values[name]

    def step(self, name: str) -> Any:
        doc = journal.step(self._ctx, self._key, name)
        if doc is None or doc["StepStatus"] != "Succeeded":
            raise ExpressionError(f"step '{name}' has not succeeded in this execution")
        return doc["_output"]

    def property_file(self, step: str, name: str) -> Any:
        declared = self._definition.steps[step].raw.get("PropertyFiles") or []
        found = next((item for item in declared if item.get("PropertyFileName") == name), None)
        if found is None:
            raise ExpressionError(f"step '{step}' declares no property file '{name}'")
        what = f"step '{step}'"
        tokens: list[str | int] = ["ProcessingOutputConfig", "Outputs", found["OutputName"], "S3Output", "S3Uri"]
        uri = str(walk(self.step(step), tokens, what))
        return self.json_object(f"{uri.rstrip('/')}/{found['FilePath'].lstrip('/')}")

    def json_object(self, uri: str) -> Any:
        if not uri.startswith("s3://") or "/" not in uri[5:]:
            raise ExpressionError(f"'{uri}' is not an S3 URI of an object")
        bucket, key = uri[5:].split("/", 1)
        try:
            text = self._ctx.cloud.delegate.read_object(self._ctx.account, bucket, key).read_text("utf-8")
            return json.loads(text)
        except AwsError as error:
            raise ExpressionError(f"{uri} can't be read: {error.message}") from None
        except ValueError as error:
            raise ExpressionError(f"{uri} is not JSON: {error}") from None


def _iso(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
