"""The definition: the same bytes everywhere, compared whole with a golden file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.training_dials import WITHOUT_EFFECT
from configuration.code import read_code
from configuration.config import Config
from configuration.gate import parameter, rules
from configuration.layers import load_config
from configuration.parameters import defaults
from pipelines.finetuning import build_definition
from tests.author.golden import GOLDEN, normalise
from tests.support.definitions import all_steps, step_of

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["pipelines", "steps", "conditions", "preparation", "training", "evaluation", "serving", "lambdas", "common"]

# Another day, and no way to the network: what connects, fails.
ELSEWHERE = """
import socket, sys, time
real_time = time.time
time.time = lambda: real_time() + 400.5 * 86400
def refuse(*_):
    raise AssertionError("the definition needs no network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from configuration.layers import load_config
from pipelines.finetuning import definition
sys.stdout.write(definition(load_config("pipeline.yaml")))
"""


def copy_of_the_tree(target: Path) -> Path:
    """Another checkout: other path, other dates, other modes, and the litter that a working copy collects."""
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
        (target / folder / "__pycache__").mkdir()
        (target / folder / "__pycache__" / "left.pyc").write_bytes(b"\0")
        (target / folder / ".DS_Store").write_bytes(b"\0")
    shutil.copy(ROOT / "pipeline.yaml", target)
    for script in (target / "training").glob("*.py"):
        script.chmod(0o755)
        os.utime(script, (0, 0))
    return target


def test_the_same_bytes_in_another_process_tree_day_and_environment(definition_text: str, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = {
        **kept,
        "PYTHONHASHSEED": "4242",
        "PYTHONPATH": ".",
        "HOME": str(tmp_path),
        "TZ": "Asia/Kathmandu",
        "AWS_PROFILE": "absent",
    }
    result = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        cwd=copy_of_the_tree(tmp_path / "another" / "checkout"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == definition_text
    assert result.stderr == ""


def test_building_leaves_the_environment_as_it_was(config: Config) -> None:
    before = dict(os.environ)
    build_definition(config)
    assert dict(os.environ) == before


def test_golden(definition_text: str) -> None:
    golden = GOLDEN.read_text("utf-8")
    assert normalise(definition_text) == golden, "if the change is wanted: python -m tests.author.golden"


def test_hashes_follow_content_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "train.py").write_text("print(1)\n")
    (tmp_path / "inner" / "loss.py").write_text("print(2)\n")
    first = read_code(tmp_path, "training")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "train.pyc").write_bytes(b"x")
    (tmp_path / "train.py").chmod(0o755)
    os.utime(tmp_path / "train.py", (1, 1))
    assert read_code(tmp_path, "training") == first
    assert set(first.files) == {"train.py", "inner/loss.py"}

    seen = {first.sha256}
    (tmp_path / "train.py").write_text("print(3)\n")
    seen.add(read_code(tmp_path, "training").sha256)
    (tmp_path / "train.py").rename(tmp_path / "run.py")
    seen.add(read_code(tmp_path, "training").sha256)
    (tmp_path / "new.py").write_text("")
    seen.add(read_code(tmp_path, "training").sha256)
    assert len(seen) == 4


def test_an_edit_of_a_script_changes_its_key_and_its_step_alone(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = copy_of_the_tree(tmp_path)
    monkeypatch.setattr("configuration.code.REPOSITORY", tree)
    original, _ = build_definition(config)
    with (tree / "preparation" / "prepare.py").open("a") as script:
        script.write("# edited\n")
    edited, _ = build_definition(config)
    before, after = original.splitlines(), edited.splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    # What decides about a training, what stands for no outline, the code input of Prepare, both models' metadata.
    assert len(changed) == 5
    assert all("preparation" in old and "preparation" in new for old, new in changed)


def test_everything_that_the_definition_names_is_there_to_upload(config: Config) -> None:
    definition_text, code = build_definition(config)
    assert sorted(folder.folder for folder in code.values()) == [
        "evaluation", "preparation", "serving", "sm_drivers", "training",
    ]  # fmt: skip
    for prefix in code:
        assert f"/{prefix}" in definition_text


def jobs(definition: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps that run jobs."""
    return [step for step in all_steps(definition) if step["Type"] in ("Processing", "Training")]


def test_steps_and_parameters(definition: dict[str, Any], config: Config) -> None:
    steps = {step["Name"]: step["Type"] for step in all_steps(definition)}
    assert steps == {
        "Inputs": "Lambda",
        "Prepare": "Processing",
        "EvaluateBase": "Processing",
        "Champion": "Lambda",
        "EvaluateChampion": "Processing",
        "ClearCheckpoints": "Lambda",
        "Train": "Training",
        "Evaluate": "Processing",
        "QualityGate": "Condition",
        "Register": "RegisterModel",
        "Describe": "Lambda",
        "ApprovedAlready": "Condition",
        "Deploy": "Lambda",
        "ExplainGate": "Lambda",
        "GateFailed": "Fail",
        "ChooseMethod": "Condition",
        "CustomizeBedrock": "Callback",
        "EvaluateBedrock": "Processing",
        "QualityGateBedrock": "Condition",
        "RegisterBedrock": "Lambda",
        "DescribeBedrock": "Lambda",
        "ApprovedAlreadyBedrock": "Condition",
        "DeployBedrock": "Lambda",
        "ExplainGateBedrock": "Lambda",
        "GateFailedBedrock": "Fail",
    }
    assert {item["Name"]: item["DefaultValue"] for item in definition["Parameters"]} == defaults(config)
    used = json.dumps(definition["Steps"])
    unused = [name for name in defaults(config) if f"Parameters.{name}" not in used]
    assert unused == []


def cached(definition: dict[str, Any]) -> list[dict[str, Any]]:
    """The jobs but for EvaluateBedrock, whose model is another one in every run."""
    return [step for step in jobs(definition) if step["Name"] != "EvaluateBedrock"]


def test_cache_and_retries_are_on(definition: dict[str, Any]) -> None:
    assert all(step["CacheConfig"] == {"Enabled": True, "ExpireAfter": "P30D"} for step in cached(definition))
    for step in jobs(definition):
        kinds = {kind for policy in step["RetryPolicies"] for kind in policy["ExceptionType"]}
        assert {"Step.THROTTLING", "SageMaker.JOB_INTERNAL_ERROR", "SageMaker.CAPACITY_ERROR"} <= kinds


def test_what_lies_under_the_inputs_is_part_of_the_cache_keys(definition: dict[str, Any]) -> None:
    """Every run looks, whoever started it: fmops, a notebook, the console or a schedule."""
    inputs, prepare, train, base = (
        step_of(definition, name) for name in ("Inputs", "Prepare", "Train", "EvaluateBase")
    )
    assert "CacheConfig" not in inputs
    assert base["Arguments"]["Environment"] == {"BASE_MANIFEST": {"Get": "Steps.Inputs.OutputParameters['base']"}}
    assert prepare["Arguments"]["Environment"] == {
        "INPUT_MANIFEST": {"Get": "Steps.Inputs.OutputParameters['manifest']"}
    }
    place = json.dumps(train["Arguments"]["CheckpointConfig"]["S3Uri"])
    assert "Steps.Inputs.OutputParameters['run']" in place
    read = {key for key in inputs["Arguments"] if key.startswith("training_")}
    given = {f"training_{key}" for key in train["Arguments"]["HyperParameters"]}
    # A run may go on with another value of those without effect, so it has to be given the same checkpoints.
    others = {f"training_{name}" for name in (*WITHOUT_EFFECT, "checkpoint_dir")}
    assert {name for name in given if name.removeprefix("training_").islower()} - read == others


def test_a_training_job_is_told_its_time_limit(definition: dict[str, Any]) -> None:
    train = step_of(definition, "Train")
    limit = train["Arguments"]["StoppingCondition"]["MaxRuntimeInSeconds"]
    assert train["Arguments"]["Environment"] == {"FMOPS_MAX_RUNTIME_SECONDS": str(limit)}


def test_what_is_part_of_a_cache_key_holds_no_execution(definition: dict[str, Any]) -> None:
    """Outputs may name the execution; in inputs, hyperparameters or the checkpoints' place it defeats the cache."""
    for step in cached(definition):
        arguments = {key: value for key, value in step["Arguments"].items() if key != "ProcessingOutputConfig"}
        assert "Execution." not in json.dumps(arguments)


def test_what_the_base_and_the_champion_score_does_not_wait_for_training(
    definition: dict[str, Any], config: Config
) -> None:
    """They are keyed by the rows and their model, so a new run pays for neither; a threshold is the tuned model's."""
    for name, model in (("EvaluateBase", "BaseModel"), ("EvaluateChampion", "Steps.Champion.OutputParameters['uri']")):
        text = json.dumps(step_of(definition, name))
        assert model in text
        assert "Steps.Prepare" in text
        assert "Steps.Train" not in text
        assert "Gate" not in text
        assert "Epochs" not in text
    tree = config.model_dump()
    tree["gate"]["rules"] = [rule for rule in tree["gate"]["rules"] if rule["against"] != "champion"]
    alone = json.loads(build_definition(Config.model_validate(tree))[0])
    assert not [step for step in all_steps(alone) if "Champion" in step["Name"]], "nobody asks for it"
    inputs = {item["InputName"] for item in step_of(alone, "Evaluate")["Arguments"]["ProcessingInputs"]}
    assert inputs == {"code", "model", "test", "train", "base-scores"}, "a merged model needs no base beside it"


def test_the_gate_reads_one_value_and_its_rules_hold_the_runs_thresholds(definition: dict[str, Any]) -> None:
    conditions = step_of(definition, "QualityGate")["Arguments"]["Conditions"]
    assert [(item["Type"], item["LeftValue"]["Std:JsonGet"]["Path"], item["RightValue"]) for item in conditions] == [
        ("Equals", "gate.passed", 1)
    ]
    words = step_of(definition, "Evaluate")["Arguments"]["AppSpecification"]["ContainerArguments"]
    given = [words[place + 1] for place, word in enumerate(words) if word == "--rule"]
    assert [rule["Std:Join"]["Values"][0] for rule in given] == [
        "exact_match base better_by ", "token_f1 base better_by ", "exact_match champion not_worse_than ",
        "latency_seconds value not_worse_than ",
    ]  # fmt: skip
    assert "Parameters.GateExactMatchBaseBetterBy" in json.dumps(given[0])
    assert all("Parameters.GateConfidence" in json.dumps(rule) for rule in given)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("hub model", {"model": {"base": "org/name"}, "training": {"network_isolation": False}}),
    ("hub model at a commit", {"model": {"base": "org/name@0123abc"}, "training": {"network_isolation": False}}),
    ("on demand", {"training": {"spot": False}}),
    ("big machine", {"training": {"instance_type": "ml.p4d.24xlarge", "instance_count": 2}}),
    ("machine with EBS", {"training": {"instance_type": "ml.p3.2xlarge"}}),
    ("full", {"training": {"method": "full"}}),
    ("qlora from a version", {"training": {"method": "qlora", "start_from": "s3://bucket/v/model.tar.gz"}}),
    ("adapter only", {"training": {"merge": False}}),
    ("TensorBoard", {"training": {"tensorboard": True}}),
    ("no cache", {"cache_days": 0}),
    ("vpc", {"aws": {"vpc": {"subnets": ["subnet-0123456789abcdef0"], "security_group_ids": ["sg-0123456789abcdef"]}}}),
    ("columns", {"data": {"columns": {"prompt": "question", "group": "template"}}}),
    ("own images", {"images": {"training": "1.dkr.ecr.us-east-1.amazonaws.com/own:1", "inference": "own-inference:2"}}),
    ("another region", {"aws": {"region": "eu-central-1", "resource_prefix": "team-a"}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=[name for name, _ in VARIANTS])
def test_every_variant_is_one_that_aws_accepts(name: str, changes: dict[str, Any], config: Config) -> None:
    from pipelines.validate import validate_definition

    tree = config.model_dump()
    for section, values in changes.items():
        tree[section] = {**tree[section], **values} if isinstance(values, dict) else values
    variant = Config.model_validate(tree)
    definition = json.loads(build_definition(variant)[0])
    assert [str(problem) for problem in validate_definition(definition)] == []
    train = step_of(definition, "Train")["Arguments"]
    channels = {channel["ChannelName"] for channel in train["InputDataConfig"]}
    assert ("model" in channels) == (not variant.model.on_hub)
    assert ("start" in channels) == ("start_from" in train["HyperParameters"]) == (name == "qlora from a version")
    assert ("model_id" in train["HyperParameters"]) == variant.model.on_hub
    assert ("VolumeKmsKeyId" in train["ResourceConfig"]) == (name == "machine with EBS")
    assert ("MaxWaitTimeInSeconds" in train["StoppingCondition"]) == variant.training.spot
    assert ("VpcConfig" in train) == (variant.aws.vpc is not None)


def test_the_sdks_driver_sets_up_efa(definition: dict[str, Any]) -> None:
    """It goes by the instance type, which may be a pipeline parameter; Train's environment says nothing of it."""
    from sagemaker.train.container_drivers.common import utils

    both = {*utils.SM_EFA_NCCL_INSTANCES} & {*utils.SM_EFA_RDMA_INSTANCES}
    assert both >= {"ml.p4d.24xlarge", "ml.p5.48xlarge"}
    train = step_of(definition, "Train")
    environment = train["Arguments"]["Environment"]
    assert not [name for name in environment if name.startswith(("FI_", "NCCL_", "RDMAV_"))]
    driver = Path(utils.__file__).parents[1] / "distributed_drivers" / "torchrun_driver.py"
    assert 'os.environ["FI_EFA_USE_DEVICE_RDMA"] = "1"' in driver.read_text()


def test_gate_parameters_have_readable_names(config: Config) -> None:
    names = [parameter(rule) for rule in rules(config)]
    assert names == [
        "GateExactMatchBaseBetterBy",
        "GateTokenF1BaseBetterBy",
        "GateExactMatchChampionNotWorseThan",
        "GateLatencySecondsValueNotWorseThan",
    ]


def test_the_configuration_of_the_tree_is_loaded_without_the_sdk() -> None:
    code = (
        "import sys; from configuration.layers import load_config; load_config('pipeline.yaml');"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'sagemaker', 'boto3', 'botocore', 'torch'}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "[]\n", "")
    assert load_config(ROOT / "pipeline.yaml").name == "fmops-finetuning"


def test_tensorboard_and_mlflow_are_configured_where_asked_for(config: Config, definition: dict[str, Any]) -> None:
    server = "arn:aws:sagemaker:us-east-1:111122223333:mlflow-app/app-ABC"
    tree = config.model_dump()
    tree["training"] |= {"tensorboard": True, "mlflow_tracking_uri": server, "network_isolation": False}
    train = step_of(json.loads(build_definition(Config.model_validate(tree))[0]), "Train")
    plain = step_of(definition, "Train")
    place = {"S3OutputPath": plain["Arguments"]["OutputDataConfig"]["S3OutputPath"]}
    place["LocalPath"] = train["Arguments"]["HyperParameters"]["tensorboard_dir"]
    assert train["Arguments"]["TensorBoardOutputConfig"] == place
    environment = train["Arguments"]["Environment"]
    assert environment["MLFLOW_TRACKING_URI"] == server
    assert environment["MLFLOW_EXPERIMENT_NAME"] == config.name
    assert "TensorBoardOutputConfig" not in plain["Arguments"]
    assert "tensorboard_dir" not in plain["Arguments"]["HyperParameters"]


@pytest.mark.parametrize("mode", ["File", "FastFile"])
def test_the_input_mode_is_that_of_the_rows_alone(config: Config, mode: str) -> None:
    tree = config.model_dump()
    tree["training"]["input_mode"] = mode
    steps = all_steps(json.loads(build_definition(Config.model_validate(tree))[0]))
    [train] = [step["Arguments"] for step in steps if step["Name"] == "Train"]
    modes = {channel["ChannelName"]: channel["InputMode"] for channel in train["InputDataConfig"]}
    rows = {name: modes.pop(name) for name in ("train", "validation")}
    assert set(rows.values()) == {mode}
    assert set(modes.values()) == {"File"}, "a base model and code are read by jumps"
