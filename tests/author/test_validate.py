"""`validate` finds what AWS would refuse; each case breaks a good definition in one way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configuration.config import Config
from pipelines.validate import validate, validate_definition
from tests.support.command import fmops

Definition = dict[str, Any]


def test_the_repository_pipeline_has_no_problem(config: Config) -> None:
    assert validate(config) == []


def test_an_endpoint_machine_that_the_api_does_not_know_is_found_before_anything_runs(config: Config) -> None:
    endpoint = config.endpoint.model_copy(update={"instance_type": "ml.m5.huge"})
    [problem] = validate(config.model_copy(update={"endpoint": endpoint}))
    assert str(problem).startswith("Deploy: endpoint.instance_type: 'ml.m5.huge' is not one of the ")
    assert "did you mean ml.m5." in problem.message


def step(definition: Definition, name: str) -> Any:
    def search(steps: list[Any]) -> Any:
        for item in steps:
            if item["Name"] == name:
                return item
            inner = item["Arguments"].get("IfSteps", []) + item["Arguments"].get("ElseSteps", [])
            found = search(inner) if item["Type"] == "Condition" else None
            if found:
                return found
        return None

    return search(definition["Steps"])


def arguments(definition: Definition, name: str) -> Any:
    return step(definition, name)["Arguments"]


def change(path: str, value: Any) -> Callable[[Definition], None]:
    """`change("Train.ResourceConfig.InstanceType", "x")` sets a member of a step's arguments."""

    def apply(definition: Definition) -> None:
        name, *members, last = path.split(".")
        target = arguments(definition, name)
        for member in members:
            target = target[int(member) if member.isdigit() else member]
        if value is None:
            del target[last]
        else:
            target[int(last) if last.isdigit() else last] = value

    return apply


def parameter(name: str, default: Any) -> Callable[[Definition], None]:
    def apply(definition: Definition) -> None:
        [item] = [item for item in definition["Parameters"] if item["Name"] == name]
        item["DefaultValue"] = default

    return apply


def top(name: str, key: str, value: Any) -> Callable[[Definition], None]:
    return lambda definition: step(definition, name).__setitem__(key, value)


def inputs(count: int) -> list[Any]:
    return [
        {"InputName": f"i{n}", "S3Input": {"S3Uri": "s3://bucket/x", "S3DataType": "S3Prefix", "LocalPath": f"/x/{n}"}}
        for n in range(count)
    ]


GET_EPOCHS = {"Get": "Parameters.Epochs"}
GATE = "QualityGate.Conditions.0.LeftValue.Std:JsonGet"
FILE = f"{GATE}.PropertyFile.Get"
ARGUMENTS = "Prepare.AppSpecification.ContainerArguments"
OTHER_BRANCH = {"Get": "Steps.Register.ModelPackageArn"}
NO_STEP = {"Get": "Steps.Prep.X"}
SOURCE = "Train.InputDataConfig.0.DataSource.S3DataSource.S3Uri"
TEXT_AS_THRESHOLD = {
    "Type": "GreaterThanOrEqualTo",
    "LeftValue": {"Get": "Parameters.GateConfidence"},
    "RightValue": {"Get": "Parameters.BaseModel"},
}
TOO_MANY = [{"Name": f"P{n}", "Type": "String"} for n in range(200)]
CASES: list[tuple[str, Callable[[Definition], None], str, str]] = [
    ("integer hyperparameter", change("Train.HyperParameters.epochs", GET_EPOCHS), "Train", "to_string()"),
    ("number as hyperparameter", change("Train.HyperParameters.epochs", 3), "Train", "int"),
    ("integer container argument", change(f"{ARGUMENTS}.1", {"Get": "Parameters.Seed"}), "Prepare", "int"),
    ("long container argument", change(f"{ARGUMENTS}.1", "x" * 257), "Prepare", "256"),
    ("many container arguments", change(ARGUMENTS, ["x"] * 101), "Prepare", "101"),
    ("many processing inputs", change("Prepare.ProcessingInputs", inputs(11)), "Prepare", "11 entries"),
    ("unknown member", change("Train.ResourceConfig.InstanceKind", "x"), "Train", "not a member"),
    ("missing member", change("Train.RoleArn", None), "Train", "required"),
    ("wrong type", change("Train.StoppingCondition.MaxRuntimeInSeconds", "60"), "Train", "whole number"),
    ("boolean as number", change("Train.ResourceConfig.InstanceCount", True), "Train", "whole number"),
    ("list as map", change("Train.HyperParameters", []), "Train", "not a map"),
    ("out of range", change("Train.StoppingCondition.MaxRuntimeInSeconds", 0), "Train", "0; allowed"),
    ("not an instance", parameter("TrainInstanceType", "ml.g5.2xlage"), "Train", "ml.g5.2xlarge"),
    ("not for processing", parameter("ProcessingInstanceType", "ml.p5.48xlarge"), "Prepare", "ml."),
    ("bad pattern", change("Train.RoleArn", "training"), "Train", "does not match"),
    ("bad S3 URI", parameter("InputDataUri", "here"), "Prepare", "does not match"),
    ("metadata too long", parameter("BaseModel", "s3://bucket/" + "x" * 300), "Register", "256"),
    ("volume key on local disks", change("Train.ResourceConfig.VolumeKmsKeyId", "key"), "Train", "hardware"),
    ("spot without wait", change("Train.StoppingCondition.MaxWaitTimeInSeconds", None), "Train", "spot"),
    ("spot without checkpoints", change("Train.CheckpointConfig", None), "Train", "checkpoints"),
    ("wait without spot", change("Train.EnableManagedSpotTraining", False), "Train", "spot"),
    ("unknown parameter", change("Train.HyperParameters.epochs", {"Get": "Parameters.Epoch"}), "Train", "Epoch"),
    ("unknown step", change(SOURCE, NO_STEP), "Train", "no step"),
    ("step of another branch", change("GateFailed.ErrorMessage", OTHER_BRANCH), "GateFailed", "branch"),
    ("metric that isn't measured", change(f"{GATE}.Path", "metrics.bleu.candidate.value"), "QualityGate", "metrics:"),
    ("path that isn't written", change(f"{GATE}.Path", "metrics.exact_match.value"), "QualityGate", "evaluation.json"),
    ("unknown property file", change(FILE, "Steps.Evaluate.PropertyFiles.X"), "QualityGate", "has no property file"),
    ("not a property file", change(FILE, "Steps.Evaluate.X"), "QualityGate", "not the property"),
    ("output renamed", change("Evaluate.ProcessingOutputConfig.Outputs.0.OutputName", "x"), "QualityGate", "no output"),
    ("text as threshold", change("QualityGate.Conditions.0", TEXT_AS_THRESHOLD), "QualityGate", "not a number"),
    ("no function", top("Deploy", "FunctionArn", "deploy"), "Deploy", "Lambda"),
    ("unknown kind", top("Deploy", "Type", "Tuning"), "Deploy", "not checked"),
    ("same name", top("Train", "Name", "Prepare"), "Prepare", "two steps"),
    ("bad name", top("GateFailed", "Name", "Gate failed"), "Gate failed", "letters"),
    ("waits for nothing", top("Train", "DependsOn", ["Absent"]), "Train", "Absent"),
    ("not a choice", parameter("FineTuningMethod", "lisa"), "", "lora, qlora, full"),
    ("long parameter", parameter("EndpointName", "x" * 1025), "", "1024"),
    ("too many parameters", lambda d: d["Parameters"].extend(TOO_MANY), "", "200"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "breaks", "where", "words"), CASES, ids=[name for name, *_ in CASES])
def test_each_fault_is_found(
    name: str, breaks: Callable[[Definition], None], where: str, words: str, definition: Definition
) -> None:
    assert validate_definition(definition) == []
    breaks(definition)
    problems = validate_definition(definition)
    assert problems
    assert any(problem.step == where and words in str(problem) for problem in problems), list(map(str, problems))


def test_a_base_model_is_checked_as_the_run_will(tmp_path: Path) -> None:
    from tests.support.tiny_model import make_tiny_model

    base = make_tiny_model(tmp_path / "base", ["turn on the light"])
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    result = fmops("validate", "--model", str(base))
    assert result.returncode == 0, result.stderr
    assert "base model: licence: apache-2.0 (says README.md)" in result.stdout
    assert "base model: positions: 1024 tokens" in result.stdout
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    result = fmops("validate", "--model", str(base))
    assert result.returncode == 2
    assert f"Prepare: base model (weights): {base}: weights that a model of the type 'llama' has" in result.stderr
    (base / "model.safetensors").unlink()
    result = fmops("validate", "--model", str(base))
    assert result.returncode == 0, result.stderr
    assert f"warning: weights: there are none in {base}, so they were not checked" in result.stdout
