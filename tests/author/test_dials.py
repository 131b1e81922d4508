"""One table of dials: every reader takes and refuses the same values, and no range stands anywhere else."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from common.data_dials import DATA
from common.dials import Dial, DialError
from common.evaluation_dials import EVALUATION, JUDGE
from common.gate_dials import GATE
from common.gate_rules import MEANINGS
from common.metric_names import BY_NAME
from common.seed_dial import SEED
from common.task_dial import TASK
from common.training_dials import MAX_SEQ_LENGTH, TRAINING
from configuration import reference
from configuration.config import Config
from configuration.config_errors import ConfigError
from configuration.dials import TABLE, by_key, by_parameter, by_setting
from configuration.errors import UsageProblem
from configuration.gate import METRICS, threshold
from configuration.layers import load_config
from configuration.parameters import defaults, with_overrides
from pipelines.endpoint_settings import endpoint_settings
from pipelines.frozen import BUILT_FROM
from pipelines.overrides import check_overrides

ROOT = Path(__file__).resolve().parents[2]
RULE = {"metric": "exact_match", "against": "value", "not_worse_than": 0.5}

# What has to change beside a dial so that its extreme value is not refused for what lies between dials.
COMPANY: dict[str, dict[str, Any]] = {
    "data.shares.train": {"data.shares.validation": None, "data.shares.test": None},
    "data.columns.chosen": {"training.task": "dpo"},
    "data.columns.rejected": {"training.task": "dpo"},
    "training.max_runtime_seconds": {"training.max_wait_seconds": 2_419_200},
    "training.max_wait_seconds": {"training.max_runtime_seconds": 60},
    "training.fallback_instance_types": {"training.spot": False},
    "training.mlflow_tracking_uri": {"training.network_isolation": False},
    "evaluation.judge.model": {"training.network_isolation": False},
    "evaluation.remote.price_input": {"evaluation.remote.price_output": 1.0},
    "evaluation.remote.price_output": {"evaluation.remote.price_input": 1.0},
    "evaluation.judge.labels": {"training.network_isolation": False, "evaluation.judge.model": "endpoint:judge"},
    "training.merge": {"endpoint.instance_type": "ml.m5.large"},
    # Each at its highest belongs to another family of models.
    "bedrock.epochs": {"bedrock.base": "cohere.command-text-v14:7:4k"},
    "bedrock.batch_size": {"bedrock.base": "anthropic.claude-3-haiku-20240307-v1:0:200k"},
    "bedrock.learning_rate": {"bedrock.base": "amazon.titan-text-lite-v1:0:4k"},
    "bedrock.learning_rate_multiplier": {"bedrock.base": "anthropic.claude-3-haiku-20240307-v1:0:200k"},
    "bedrock.warmup_steps": {"bedrock.base": "amazon.titan-text-lite-v1:0:4k"},
    "bedrock.early_stopping_threshold": {"bedrock.base": "anthropic.claude-3-haiku-20240307-v1:0:200k"},
    "bedrock.early_stopping_patience": {"bedrock.base": "anthropic.claude-3-haiku-20240307-v1:0:200k"},
    "bedrock.customization_type": {"bedrock.base": "amazon.titan-text-lite-v1:0:4k"},
    "bedrock.commitment": {"bedrock.serving": "provisioned"},
    "endpoint.instance_count": {"endpoint.mode": "asynchronous", "endpoint.scaling.maximum": 64},
    "endpoint.scaling.maximum": {"endpoint.instance_count": 1},
    "endpoint.mode": {"endpoint.instance_type": "ml.g5.xlarge"},
    "endpoint.rollout.traffic": {"endpoint.rollout.step_percent": 10},
    "endpoint.rollout.step_percent": {"endpoint.rollout.traffic": "canary"},
}
# Good and bad texts for patterns; numbers, choices and booleans make their own.
PATTERNS: dict[str, tuple[list[str], list[str]]] = {
    "name": (["a", "a-b", "a" * 82], ["-a", "a--", "a_b", "a" * 83]),
    "aws.account_id": (["000000000001"], ["12345678901", "1234567890123", "abcdefghijkl"]),
    "aws.region": (["eu-central-1"], ["Europe", "eu-central"]),
    "aws.resource_prefix": (["ab", "a" * 14], ["a", "A-b", "1ab", "a" * 18]),
    "model.base": (["tiny", "s3://bucket/x"], ["a b", "tiny@v1", "org/tiny@", "s3://xn--b/x", "a/b/c", "x" * 201]),
    "registry.group": (["fmops-g", "fmops-" + "a" * 57], ["fmops-g_h", "fmops-G", "g", "fmops", "fmops-" + "a" * 58]),
    "data.input_uri": (["s3://bucket/x"], ["s3://bucket/my data (1).csv", "s3://bucket/a,b.csv", "./x", "s3://b/x",
                                         "s3://bucket-s3alias/x", "s3://192.168.0.1/x", "s3://b..b/"]),
    "data.instance_type": (["ml.m5.large"], ["m5.large", "ml.m5"]),
    "bedrock.base": (
        ["amazon.nova-lite-v1:0:300k", "meta.llama3-1-8b-instruct-v1:0:128k",
         "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0:128k"],
        ["nova", "amazon.nova lite", "arn:aws:s3:::b", "a.b" * 100],
    ),
    "bedrock.compared_with": (["us.meta.llama3-1-8b-instruct-v1:0", "amazon.nova-lite-v1:0"], ["nova", "a b", "x" * 257]),  # noqa: E501
    "bedrock.instance_type": (["ml.m5.large"], ["m5.large", "ml.m5"]),
    "training.instance_type": (["ml.p4d.24xlarge"], ["p4d.24xlarge", "ml.p4d"]),
    "evaluation.instance_type": (["ml.g5.xlarge"], ["g5.xlarge", "ml.g5"]),
    "endpoint.instance_type": (["ml.g5.xlarge"], ["g5.xlarge", "ml.g5"]),
    "endpoint.name": (["fmops-e", "fmops-" + "a" * 49], ["fmops-my_endpoint", "fmops-e-", "fmops-E", "a" * 56]),
    "endpoint.asynchronous_output_uri": (["s3://bucket/out/"], ["out/", "s3://B/x"]),
    "training.lora_target_modules": (["q_proj,v_proj", "all-linear"], [" , ", "q_proj,", "x" * 1001]),
    "training.mlflow_tracking_uri": (
        ["arn:aws:sagemaker:us-east-1:111122223333:mlflow-app/app-ABC", "http://127.0.0.1:5000", "https://m.example.com/a"],
        ["arn:aws:sagemaker:us-east-1:111122223333:endpoint/x", "m.example.com", "file:///tmp/x"],
    ),
    "evaluation.custom_metrics": ([str(ROOT / "tests/support/own_metrics.py")], ["own_metrics.txt", "x" * 498 + ".py"]),
    "evaluation.judge.model": (
        ["bedrock:eu.anthropic.claude-x-v1:0", "endpoint:fmops-judge",
         "bedrock:arn:aws:bedrock:eu-central-1:111122223333:application-inference-profile/abc"],
        ["claude", "openai:gpt", "bedrock:", "bedrock:a b"],
    ),
    "evaluation.judge.criteria": (["Short answers.", "x" * 250], ["x" * 251, "a\x00b"]),
    "evaluation.judge.labels": ([str(ROOT / "tests/support/judge_labels.jsonl")], ["labels.csv"]),
    "evaluation.general_uri": (["s3://bucket/x"], ["./x", "s3://B/x"]),
    "evaluation.probes_uri": (["s3://bucket/x"], ["./x", "s3://B/x"]),
    "training.start_from": (["s3://bucket/a/model.tar.gz"], ["model.tar.gz", "s3://B/x"]),
    "images.training": (["1.dkr.ecr/x:1"], ["a b", "x" * 256]),
    "images.inference": (["1.dkr.ecr/x:1"], ["a b", "x" * 256]),
}  # fmt: skip
FALLBACKS = ["ml.g6.xlarge", "ml.g6.2xlarge", "ml.g6.4xlarge", "ml.g6.8xlarge"]
COLUMNS = {key for key in by_key() if key.startswith("data.columns.")}
LISTS = {
    "aws.vpc.subnets": (["subnet-01234567"], [], ["subnet-1"]),
    "aws.vpc.security_group_ids": (["sg-01234567"], [], ["sg-1"]),
    "data.filters.mask": (["email", "key"], ["ip"] * 7, ["name"]),
    "data.filters.languages": (["en", "de"], ["en"] * 51, ["english"]),
    "endpoint.alarms.names": ([], ["a"] * 9, ["a,b"]),
    "training.fallback_instance_types": (FALLBACKS, [*FALLBACKS, "ml.g6.16xlarge"], ["g5.xlarge"]),
    "endpoint.fallback_instance_types": (FALLBACKS, [*FALLBACKS, "ml.g6.16xlarge"], ["ml.g5"]),
}


def good(dial: Dial) -> list[Any]:
    """Values that every reader must take: the lowest and the highest, or each choice."""
    if dial.choices:
        return list(dial.choices)
    if dial.type is bool:
        return [True, False]
    if dial.type in (int, float):
        kind = dial.type
        return [kind(dial.low), kind(dial.high)]  # type: ignore[arg-type]
    if dial.key in COLUMNS:
        return ["a column", "x" * 128]
    return list(PATTERNS[dial.key][0])


def bad(dial: Dial) -> list[Any]:
    """Values that every reader must refuse: the first below, the first above, and what is no value at all."""
    if dial.choices:
        return ["other"] if dial.type is str else [max(dial.choices) + 1, min(dial.choices) - 1]
    if dial.type is bool:
        return ["maybe"]
    if dial.type in (int, float):
        assert dial.low is not None
        assert dial.high is not None
        if dial.type is int:
            return [int(dial.low) - 1, int(dial.high) + 1]
        return [dial.low - 1e-10, dial.high * (1 + 1e-9)]
    if dial.key in COLUMNS:
        return ["x" * 129]
    return list(PATTERNS[dial.key][1])


def tree_with(dial: Dial, value: Any) -> dict[str, Any]:
    """pipeline.yaml's tree with a dial, and its company, set."""
    tree: dict[str, Any] = {"gate": {"rules": [RULE]}}
    company = dict(COMPANY.get(dial.key, {}))
    if dial.key.startswith("data.shares.") and isinstance(value, float) and 0 < value < 1:
        others = [name for name in ("train", "validation", "test") if f"data.shares.{name}" != dial.key]
        company = {f"data.shares.{name}": (1 - value) / 2 for name in others}
    for key, item in {**company, dial.key: value}.items():
        *above, last = key.split(".")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[last] = item
    return tree


def refusal_of(tree: dict[str, Any], directory: Path) -> str:
    """What load_config says of a tree; empty: it is taken."""
    path = directory / "pipeline.yaml"
    path.write_text(yaml.safe_dump(tree))
    try:
        load_config(path)
    except ConfigError as error:
        return str(error)
    return ""


def by_yaml(dial: Dial, value: Any, directory: Path) -> str:
    return refusal_of(tree_with(dial, value), directory)


def company_of(dial: Dial) -> dict[str, str]:
    return {
        by_key()[key].parameter: by_key()[key].text(item)
        for key, item in COMPANY.get(dial.key, {}).items()
        if item is not None and by_key()[key].parameter
    }


def by_start(dial: Dial, value: Any, config: Config) -> str:
    if dial.parameter in BUILT_FROM:  # what the pipeline was upserted for is what a run may ask for
        with contextlib.suppress(ValueError):
            config = with_overrides(config, company_of(dial) | {dial.parameter: dial.text(value)})
    if dial.key == "registry.approval":  # a parameter only where runs may approve
        config = config.model_copy(update={"registry": config.registry.model_copy(update={"approval": "Approved"})})
    declared: dict[str, dict[str, Any]] = {}
    kinds = {str: "String", int: "Integer", float: "Float"}
    for name, default in defaults(config).items():
        declared[name] = {"Type": kinds[type(default)], "DefaultValue": default}
    try:
        check_overrides(config, {**company_of(dial), dial.parameter: dial.text(value)}, declared)
    except UsageProblem as problem:
        return str(problem)
    return ""


def parser_of(folder: str, module: str, required: list[str]) -> Callable[[list[str]], str]:
    """What the script's own parser says of these words; the module is loaded as in its container."""

    def refusal(words: list[str]) -> str:
        sys.path.insert(0, str(ROOT / folder))
        try:
            script = importlib.import_module(module)
        finally:
            sys.path.remove(str(ROOT / folder))
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                script.parse([*required, *words])
        except SystemExit:
            return said.getvalue()
        except Exception as error:  # train.py's own error, whose class is known only in its folder
            return f"{type(error).__name__}: {error}"
        return ""

    return refusal


REQUIRED = {
    "score": ["--model", "m", "--base-scores", "b", "--data", "d", "--train-data", "t", "--output", "o"],
    "reference": ["--as", "base", "--model", "m", "--data", "d", "--train-data", "t", "--output", "o"],
    "prepare": ["--input", "i", "--output", "o"],
}
SCRIPTS: dict[str, tuple[str, list[Dial]]] = {
    "prepare": ("preparation", [dial for dial in (*DATA, TASK) if dial.argument]),
    "hyperparameters": ("training", [dial for dial in (*TRAINING, SEED) if dial.argument]),
    "reference": ("evaluation", [dial for dial in (*EVALUATION, SEED, MAX_SEQ_LENGTH) if dial.argument]),
    "score": (
        "evaluation",
        [dial for dial in (*EVALUATION, *JUDGE, *GATE, SEED) if dial.argument and dial.argument != "few-shot"],
    ),
}


def by_script(script: str, dial: Dial, value: Any) -> str:
    words = [f"--{dial.argument}={dial.text(value)}"]
    return parser_of(SCRIPTS[script][0], script, REQUIRED.get(script, []))(words)


def by_function(dial: Dial, value: Any, config: Config) -> str:
    sys.path.insert(0, str(ROOT / "lambdas"))
    try:
        settings = importlib.import_module("settings")
    finally:
        sys.path.remove(str(ROOT / "lambdas"))
    company = {by_key()[key].setting: item for key, item in COMPANY.get(dial.key, {}).items() if by_key()[key].setting}
    environment = {"ENDPOINT_SETTINGS": json.dumps(endpoint_settings(config))}
    try:
        read = settings.read_settings({**company, dial.setting: dial.text(value)}, {}, environment)
    except ValueError as error:
        return str(error)
    assert dial.text(read[dial.setting]) == dial.text(value)
    return ""


def readers(dial: Dial, config: Config, directory: Path) -> Iterator[tuple[str, Callable[[Any], str]]]:
    """Who reads the dial: the name that its refusal must say, and what it says of a value (empty: taken)."""
    yield dial.key, lambda value: by_yaml(dial, value, directory)
    if dial.parameter:
        yield f"{dial.parameter}=", lambda value: by_start(dial, value, config)
    for script, (_, dials) in SCRIPTS.items():
        if dial in dials:
            yield f"--{dial.argument}", functools.partial(by_script, script, dial)
    if dial.setting:
        yield dial.setting, lambda value: by_function(dial, value, config)


SCALARS = [dial for dial in TABLE if dial.type not in (list, dict)]


@pytest.mark.parametrize("dial", SCALARS, ids=lambda dial: dial.key)
def test_every_reader_takes_and_refuses_the_same(dial: Dial, config: Config, tmp_path: Path) -> None:
    for name, refusal in readers(dial, config, tmp_path):
        for value in good(dial):
            assert refusal(value) == "", (name, value)
        for value in bad(dial):
            assert name in refusal(value), (name, value)
    if dial.type in (int, float):
        for text in ("nan", "inf", "many", ""):
            with pytest.raises(DialError):
                dial.read(text)


@pytest.mark.parametrize("key", LISTS)
def test_lists_are_held_against_length_and_items(key: str, config: Config, tmp_path: Path) -> None:
    taken, wrong_length, wrong_item = LISTS[key]
    whole = {"subnets": ["subnet-01234567"], "security_group_ids": ["sg-01234567"]}
    for value, taken_too in ((taken, True), (wrong_length, False), (wrong_item, False)):
        if key.startswith("aws.vpc"):
            vpc = {**whole, by_key()[key].name: value}
            refusal = refusal_of({"gate": {"rules": [RULE]}, "aws": {"vpc": vpc}}, tmp_path)
        else:
            refusal = by_yaml(by_key()[key], value, tmp_path)
        assert (refusal == "") == taken_too, value
        assert taken_too or key in refusal


@pytest.mark.parametrize(("against", "asks"), MEANINGS)
@pytest.mark.parametrize("metric", METRICS)
def test_a_gates_thresholds_are_the_same_in_the_file_and_at_start(
    metric: str, against: str, asks: str, tmp_path: Path
) -> None:
    dial, rule = threshold(BY_NAME[metric], against, asks), {"metric": metric, "against": against}
    assert dial.low is not None
    assert dial.high is not None
    company = {
        "preference_accuracy": {"training": {"task": "dpo"}},
        "general_loss": {"evaluation": {"general_uri": "s3://bucket/general"}},
        "probe_failures": {"evaluation": {"probes_uri": "s3://bucket/probes"}},
    }
    task = company.get(metric, {})
    for value, taken in ((dial.low, True), (dial.high, True), (dial.low - 0.5, False), (dial.high * 1.01, False)):
        tree = {**task, "gate": {"rules": [{**rule, asks: value}]}}
        assert (refusal_of(tree, tmp_path) == "") == taken, value
    path = tmp_path / "pipeline.yaml"
    path.write_text(yaml.safe_dump({**task, "gate": {"rules": [{**rule, asks: 0.0}]}}))
    config = load_config(path)
    declared = {dial.parameter: {"Type": "Float", "DefaultValue": 0.0}}
    check_overrides(config, {dial.parameter: "0.5"}, declared)
    with pytest.raises(UsageProblem, match="from "):
        check_overrides(config, {dial.parameter: str(dial.high * 2)}, declared)


def test_what_lies_between_parameters_is_refused_at_start(config: Config) -> None:
    declared = {name: {"Type": "String", "DefaultValue": ""} for name in defaults(config)}
    cases = [
        ({"EndpointInstanceCount": "6"}, "EndpointInstanceCount=6: 6 is above scaling.maximum 5"),
        ({"EndpointInstanceCount": "0"}, "only the modes adapter and asynchronous"),
        (
            {"EndpointMode": "adapter", "EndpointInstanceType": "ml.m5.large"},
            "EndpointMode=adapter: adapter needs a GPU",
        ),
        ({"EndpointMode": "adapter", "FineTuningMethod": "full"}, "training.method: lora"),
    ]
    dpo = config.model_copy(update={"training": config.training.model_copy(update={"task": "dpo"})})
    with pytest.raises(UsageProblem, match="FineTuningMethod=full: full, but task dpo compares with the base"):
        check_overrides(dpo, {"FineTuningMethod": "full"}, declared)
    for given, words in cases:
        with pytest.raises(UsageProblem) as caught:
            check_overrides(config, given, declared)
        assert words in str(caught.value)
    with pytest.raises(UsageProblem) as caught:
        check_overrides(
            config, {"Epochs": "x", "FewShot": "0", "Nothing": "1", "TrainInstanceType": "ml.x9.large"}, declared
        )
    for words in ("Epochs=x", "FewShot=0", "Nothing: the pipeline has no such", "TrainInstanceType=ml.x9.large"):
        assert words in str(caught.value)


def test_the_table_is_whole() -> None:
    """Every typed field is a dial and the other way round; types, names and places fit; 60 and more are looked at."""
    fields = dict(_fields(Config))
    assert set(fields) == set(by_key())
    for key, annotation in fields.items():
        dial = by_key()[key]
        assert dial.type.__name__ in str(annotation), key
        assert dial.effect
        assert dial.default is None or dial.problem(dial.default) is None
        assert (dial.default is None) == (dial.optional or key.startswith("aws.vpc")), key
    assert len(TABLE) == len(by_key()) >= 70
    assert len(by_parameter()) == sum(bool(dial.parameter) for dial in TABLE)
    assert len(by_setting()) == 21


def _fields(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        key = f"{above}.{name}".lstrip(".")
        inner = [
            part for part in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(part, type)
        ]
        section = next((part for part in inner if issubclass(part, BaseModel)), None)
        if key == "gate.rules":
            continue
        if section:
            yield from _fields(section, key)
        else:
            yield key, field.annotation


RANGES = {"ge", "gt", "le", "lt", "pattern", "max_length", "min_length", "multiple_of", "choices"}


def ranges_in(source: str) -> list[str]:
    """Limits that a module states itself: keywords of pydantic and argparse, and Literal types."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            target = ast.unparse(node.func)
            found += [f"{target}({word.arg}=...)" for word in node.keywords if word.arg in RANGES]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
            found.append(ast.unparse(node))
    return found


def test_no_range_stands_anywhere_else() -> None:
    paths = [
        *(ROOT / "configuration").glob("*config*.py"), ROOT / "configuration/section.py",
        ROOT / "configuration/parameters.py",
        ROOT / "training/hyperparameters.py", ROOT / "preparation/prepare.py", ROOT / "evaluation/score.py",
        ROOT / "evaluation/reference.py", ROOT / "evaluation/asking.py",
        ROOT / "lambdas/settings.py", *(ROOT / "steps").glob("*.py"),
    ]  # fmt: skip
    found = {path.name: ranges_in(path.read_text("utf-8")) for path in paths}
    assert found.pop("reference.py") == ["parser.add_argument(choices=...)"], "what the model is: no dial"
    # The gate's length is no dial: a list of rules.
    assert found.pop("evaluation_config.py") == ["Field(min_length=...)", "Field(max_length=...)"]
    assert {name: items for name, items in found.items() if items} == {}
    assert len(paths) >= 16
    for script, (folder, dials) in SCRIPTS.items():
        source = (ROOT / folder / f"{script}.py").read_text("utf-8")
        own = {
            node.args[0].value
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("add_argument") and node.args
            if isinstance(node.args[0], ast.Constant)
        }
        assert not own & {f"--{dial.argument}" for dial in dials}, script


@pytest.mark.parametrize("source", ["Field(ge=1)", "x: Literal['a', 'b']", "parser.add_argument('--x', choices=['a'])"])
def test_the_check_for_ranges_notices(source: str) -> None:
    assert ranges_in(source)


def test_the_written_reference_is_the_tables() -> None:
    assert reference.main(["--check"]) == 0
    page = (ROOT / "docs" / "dials.md").read_text("utf-8")
    assert all(f"| `{dial.key}` |" in page for dial in TABLE)


def test_comments_follow_the_table_and_nothing_else_changes() -> None:
    text = "training:   # kept\n  lora_rank: 16 # old words\n  # own line\n  other: 1   # kept\ngate: [] # kept\n"
    new = reference.with_comments(text)
    assert "lora_rank: 16                            # capacity of the adapters" in new
    assert [line for line in new.splitlines() if "lora_rank" not in line] == [
        line for line in text.splitlines() if "lora_rank" not in line
    ]
