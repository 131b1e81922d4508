"""pipeline.yaml: what is accepted, and how every mistake is reported, all at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from configuration.config import Config
from configuration.config_errors import ConfigError
from configuration.evaluation_config import GateRule
from configuration.gate import METRICS
from configuration.layers import load_config

ROOT = Path(__file__).resolve().parents[2]
GATE = "gate: {rules: [{metric: exact_match, against: value, not_worse_than: 0.5}]}\n"


def mistakes(tmp_path: Path, text: str) -> ConfigError:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return caught.value


# (YAML, line, key, words of the message)
BAD = [
    ("colour: red", 1, "colour", ["not a known key", "Allowed here", "training"]),
    ("trainig: {}", 1, "trainig", ["Did you mean training?"]),
    ("training: {learning_rat: 0.1}", 1, "training.learning_rat", ["Did you mean learning_rate?", "lora_rank"]),
    ("training: {epochs: many}", 1, "training.epochs", ["'many'", "a number from 0.01 to 100", "passes over"]),
    ("training: {max_steps: 2.5}", 1, "training.max_steps", ["2.5", "a whole number"]),
    ("training: {epochs: '3'}", 1, "training.epochs", ["'3'", "a number"]),
    ("training: {max_steps: '3'}", 1, "training.max_steps", ["'3'", "a whole number"]),
    ("training: {epochs: 0}", 1, "training.epochs", ["0 is refused", "from 0.01 to 100"]),
    ("training: {batch_size: null}", 1, "training.batch_size", ["null", "a whole number"]),
    ("training: {learning_rate: 2}", 1, "training.learning_rate", ["a number from 1e-09 to 1", "peak"]),
    ("training: {learning_rate: .nan}", 1, "training.learning_rate", ["a number"]),
    ("training: {learning_rate: 1e-10}", 1, "training.learning_rate", ["1e-10", "from 1e-09"]),
    ("training: {merge: 1}", 1, "training.merge", ["true or false"]),
    ("training: {method: lisa}", 1, "training.method", ["'lisa'", "lora, qlora or full"]),
    ("training: {instance_type: g5.xlarge}", 1, "training.instance_type", ["'g5.xlarge'"]),
    ("training: {lora_dropout: 1}", 1, "training.lora_dropout", ["from 0 to 0.9"]),
    ("evaluation: {few_shot: 0}", 1, "evaluation.few_shot", ["0 is refused", "from 1 to 64"]),
    ("training: [1]", 1, "training", ["a mapping of keys"]),
    ("training: {max_wait_seconds: 60}", 1, "training.max_wait_seconds", ["60", "86400"]),
    ("data: {columns: {rejected: x}}", 1, "data.columns.rejected", ["task sft doesn't read it", "dpo", "null"]),
    ("training: {task: dpo}\ndata: {columns: {text: x}}", 2, "data.columns.text", ["task dpo doesn't read it", "sft"]),
    ("training: {task: rlhf}", 1, "training.task", ["'rlhf'", "sft or dpo"]),
    ("training: {task: dpo, method: full}", 1, "training.method", ["full", "lora or qlora"]),
    ("training: {task: dpo, start_from: 's3://bucket/v/model.tar.gz'}", 1, "training.start_from", ["the base", "null"]),
    ("training: {task: dpo, long_rows: truncate-left}", 1, "training.long_rows", ["shortened", "drop or error"]),
    ("training: {task: dpo, sharding: always}", 1, "training.sharding", ["can't be sharded", "auto or never"]),
    ("training: {start_from: version 3}", 1, "training.start_from", ["'version 3'", "model.tar.gz"]),
    ("endpoint: {mode: adapter}\ntraining: {lora_variant: dora}", 2, "training.lora_variant", ["dora", "rslora"]),
    ("training: {method: full, merge: false}", 1, "training.merge", ["full", "merge: true"]),
    ("aws: {account_id: 111122223333}", 1, "aws.account_id", ["111122223333", "quotes"]),
    ("aws: {account_id: '123'}", 1, "aws.account_id", ["'123'", "12 digits"]),
    ("aws: {region: nowhere}", 1, "aws.region", ["'nowhere'"]),
    ("aws: {vpc: {subnets: [subnet-1], security_group_ids: [sg-01234567]}}", 1, "aws.vpc.subnets[0]", ["'subnet-1'"]),
    (
        "aws: {vpc: {subnets: [], security_group_ids: [sg-01234567]}}",
        1,
        "aws.vpc.subnets",
        ["0 items", "a list of 1 to 16"],
    ),
    (
        "aws: {resource_prefix: abcdefghijklmnopq, region: ap-southeast-1}",
        1,
        "aws.resource_prefix",
        ["64 characters", "3 to 63", "shorter prefix"],
    ),
    ("data: {input_uri: 's3://xn--rows/'}", 1, "data.input_uri", ["xn--rows", "s3://bucket/prefix"]),
    ('data: {columns: {prompt: "a\\0b"}}', 1, "data.columns.prompt", ["a column's name"]),
    ("aws: {tags: {'aws:x': y}}", 1, "aws.tags", ["'aws:x'", "allowed"]),
    ("data: {shares: {train: 0.5, validation: 0.2, test: 0.2}}", 1, "data.shares", ["0.5", "0.9", "must be 1"]),
    ("data: {max_rejected_share: 1.5}", 1, "data.max_rejected_share", ["1.5", "from 0 to 1"]),
    ("data: {columns: {prompts: x}}", 1, "data.columns.prompts", ["Did you mean prompt?"]),
    ("data: {input_uri: ./rows.csv}", 1, "data.input_uri", ["'./rows.csv'", "s3"]),
    ("model: {base: 'a b'}", 1, "model.base", ["'a b'", "hub"]),
    ("endpoint: {data_capture_percentage: 101}", 1, "endpoint.data_capture_percentage", ["101", "from 0 to 100"]),
    ("endpoint: {mode: batch}", 1, "endpoint.mode", ["'batch'", "real-time, adapter, serverless or asynchronous"]),
    ("endpoint: {instance_count: 6}", 1, "endpoint.instance_count", ["6 is above scaling.maximum 5"]),
    ("endpoint: {instance_count: 0}", 1, "endpoint.instance_count", ["only the modes adapter and asynchronous"]),
    ("endpoint: {rollout: {traffic: linear, step_percent: 5}}", 1, "endpoint.rollout.step_percent", ["10 to 50"]),
    ("endpoint: {rollout: {step_percent: 60}}", 1, "endpoint.rollout.step_percent", ["60", "from 1 to 50"]),
    ("endpoint: {alarms: {period_seconds: 45}}", 1, "endpoint.alarms.period_seconds", ["45", "multiples of 60"]),
    ("endpoint: {serverless: {memory_mb: 1000}}", 1, "endpoint.serverless.memory_mb", ["1000", "1024"]),
    ("endpoint: {mode: adapter, server: handler}", 1, "endpoint.server", ["only the LMI image", "auto"]),
    ("endpoint: {mode: adapter, instance_type: ml.m5.large}", 1, "endpoint.mode", ["needs a GPU", "ml.m5.large"]),
    ("endpoint: {server: lmi, instance_type: ml.m5.large}", 1, "endpoint.server", ["needs a GPU", "ml.m5.large"]),
    ("endpoint: {instance_type: ml.g5.huge}", 1, "endpoint.instance_type", ["ml.g5.huge", "ml.g5.{xlarge,"]),
    ("endpoint: {server: lmi}\ntraining: {merge: false}", 1, "endpoint.server", ["merge: true"]),
    ("endpoint: {mode: adapter}\ntraining: {method: full}", 1, "endpoint.mode", ["training.method: lora"]),
    ("endpoint: {mode: adapter}\ntraining: {lora_rank: 600}", 2, "training.lora_rank", ["600", "at most 512"]),
    ("registry: {approval: yes please}", 1, "registry.approval", ["PendingManualApproval"]),
]


@pytest.mark.parametrize(("text", "line", "key", "words"), BAD, ids=[text[:50] for text, *_ in BAD])
def test_a_mistake_is_named_with_line_key_value_and_what_is_allowed(
    tmp_path: Path, text: str, line: int, key: str, words: list[str]
) -> None:
    error = mistakes(tmp_path, f"{text}\n{GATE}")
    assert [(mistake.line, mistake.key) for mistake in error.mistakes] == [(line, key)]
    for word in words:
        assert word in error.mistakes[0].message
    assert error.exit_code == 2


def test_an_mlflow_that_no_job_could_reach_is_refused(tmp_path: Path) -> None:
    server = "https://mlflow.example.com"
    [mistake] = mistakes(tmp_path, f"training: {{mlflow_tracking_uri: '{server}'}}\n{GATE}").mistakes
    assert mistake.key == "training.mlflow_tracking_uri"
    assert server in mistake.message
    assert "set network_isolation: false" in mistake.message
    [mistake] = mistakes(tmp_path, f"training: {{mlflow_tracking_uri: here}}\n{GATE}").mistakes
    assert "the ARN of a SageMaker MLflow app or tracking server, or http(s)://..." in mistake.message


def test_hub_model_with_network_isolation_is_refused_with_the_reason(tmp_path: Path) -> None:
    [mistake] = mistakes(tmp_path, f"model: {{base: org/name}}\n{GATE}").mistakes
    assert mistake.key == "model.base"
    assert "network_isolation" in mistake.message
    assert "S3" in mistake.message


GATES = [
    ("gate: {rules: []}", "gate.rules", "at least 1"),
    ("name: x", "gate", "is missing"),
    ("gate: {confidence: 0.9}", "gate.rules", "is missing"),
    ("gate: [{metric: exact_match, minimum: 0.5}]", "gate", "rules: [{metric: exact_match, against: base"),
    ("gate: {rules: [{metric: bleu, against: base, better_by: 0}]}", "gate.rules[0].metric", "token_f1"),
    (
        "gate: {rules: [{metric: exact_match, against: old, better_by: 0}]}",
        "gate.rules[0].against",
        "base, champion, value",
    ),
    ("gate: {rules: [{metric: exact_match, against: base}]}", "gate.rules[0].metric", "has neither of better_by"),
    (
        "gate: {rules: [{metric: exact_match, against: base, better_by: 0.0, not_worse_than: 0.1}]}",
        "gate.rules[0].metric",
        "has both of better_by",
    ),
    (
        "gate: {rules: [{metric: exact_match, against: value, better_by: 0.5}]}",
        "gate.rules[0].better_by",
        "write not_worse_than: 0.5",
    ),
    (
        "gate: {rules: [{metric: preference_accuracy, against: base, better_by: 0.1}]}",
        "gate.rules[0].metric",
        "set training.task: dpo",
    ),
    (
        "gate: {rules: [{metric: exact_match, against: value, not_worse_than: 50.0}]}",
        "gate.rules[0].not_worse_than",
        "share from 0 to 1",
    ),
    (
        "gate: {rules: [{metric: exact_match, against: base, better_by: 0.1, confidence: 1.0}]}",
        "gate.rules[0].confidence",
        "a number from 0.5 to 0.999",
    ),
    (
        "gate: {rules: [{metric: exact_match, against: base, better_by: 0.1},"
        " {metric: exact_match, against: base, better_by: 0.2}]}",
        "gate.rules[1].metric",
        "another rule for exact_match base better_by",
    ),
]


@pytest.mark.parametrize(("text", "key", "words"), GATES, ids=[text for text, *_ in GATES])
def test_gate_rules(tmp_path: Path, text: str, key: str, words: str) -> None:
    [mistake] = mistakes(tmp_path, text).mistakes
    assert mistake.key == key
    assert words in mistake.message


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    error = mistakes(
        tmp_path,
        "colour: red\naws: {account_id: 5}\ntraining:\n  epochs: 0\n  batch_size: 1\n  batch_size: 2\n  rank: 8\n"
        + GATE,
    )
    assert [
        (mistake.line, mistake.key) for mistake in sorted(error.mistakes, key=lambda mistake: mistake.line or 0)
    ] == [
        (1, "colour"),
        (2, "aws.account_id"),
        (4, "training.epochs"),
        (6, "training.batch_size"),
        (7, "training.rank"),
    ]
    assert "5 mistakes; nothing was started" in str(error)
    assert "first on line 5" in str(error)


FILES = [
    (b"", "gate: is missing"),
    (b"- 1\n", "a mapping of keys is expected"),
    (b"a: [1\n", "not YAML"),
    (b"a: \xff\n", "not UTF-8"),
    (b"a: !!python/object/apply:os.system ['echo x']\n", "not YAML"),
    (b"a: &x [*x]\n", "not YAML"),
    (b"x: " + b"y" * (1 << 20), "larger than"),
]


@pytest.mark.parametrize(("body", "words"), FILES, ids=["empty", "list", "broken", "latin1", "python", "loop", "huge"])
def test_a_file_that_is_no_configuration(tmp_path: Path, body: bytes, words: str) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_bytes(body)
    with pytest.raises(ConfigError, match=re.escape(words)):
        load_config(path)


def test_an_absent_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
        load_config(tmp_path)


def test_exponents_and_a_byte_order_mark_are_read_as_meant(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"\ufefftraining: {{learning_rate: 5e-5}}\r\n{GATE}", "utf-8")
    assert load_config(path).training.learning_rate == 5e-5


def test_the_repository_file_spells_out_every_default() -> None:
    """A reader sees every dial: the file has all keys, and but for the gate it says what the defaults are."""
    written = yaml.safe_load((ROOT / "pipeline.yaml").read_text("utf-8"))
    written.pop("environments")
    loaded = load_config(ROOT / "pipeline.yaml")
    assert loaded == Config(gate=loaded.gate)
    assert _keys(written) == _fields(Config)


def _keys(value: object, above: str = "") -> set[str]:
    if not isinstance(value, dict) or above in ("gate.rules", "aws.tags"):
        return {above}
    return {key for name, child in value.items() for key in _keys(child, f"{above}.{name}".lstrip("."))}


def _fields(model: type[BaseModel], above: str = "") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        key = f"{above}.{name}".lstrip(".")
        inner = field.annotation
        section = isinstance(inner, type) and issubclass(inner, BaseModel)
        found |= _fields(inner, key) if section else {key}
    return found


def test_every_dial_has_a_trailing_comment() -> None:
    lines = (ROOT / "pipeline.yaml").read_text("utf-8").partition("\nenvironments:")[0].splitlines()
    dials = [line for line in lines if re.match(r"^ *[a-z_]+: *[^ #]", line)]
    without = [line for line in dials if "#" not in line]
    assert len(dials) >= 70
    assert without == []


def test_every_field_has_a_description() -> None:
    sections = [Config, GateRule]
    for section in sections:
        for name, field in section.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                sections.append(inner)
            assert field.description, f"{section.__name__}.{name}"
    assert len(sections) == 21


@pytest.mark.parametrize(
    ("endpoint", "training", "server"),
    [
        ("{}", "{}", "lmi"),
        ("{instance_type: ml.m5.large}", "{}", "handler"),
        ("{server: handler}", "{}", "handler"),
        ("{mode: serverless}", "{}", "handler"),
        ("{}", "{merge: false}", "handler"),
        ("{mode: adapter}", "{merge: false}", "lmi"),
    ],
)
def test_what_serves_follows_machine_mode_and_model(tmp_path: Path, endpoint: str, training: str, server: str) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"{GATE}endpoint: {endpoint}\ntraining: {training}\n")
    assert load_config(path).server == server


def test_metrics_are_the_contracts() -> None:
    contracts = (ROOT / "docs" / "contracts.md").read_text("utf-8")
    assert all(metric in contracts for metric in METRICS)
    assert len(METRICS) == 12
