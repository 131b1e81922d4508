"""What `fmops` says to good and bad usage, without any cloud: exit codes and messages, each from a real process."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.command import ROOT, fmops, fmops_cold

COMMANDS = [
    "demo", "validate", "config", "definition", "bootstrap", "upsert", "data", "start", "status", "logs", "stop",
    "report", "versions", "approve", "reject", "lineage", "deploy", "rollback", "endpoint", "invoke", "undeploy",
    "evaluate", "local",
]  # fmt: skip

# A frozen list: an option that disappears breaks somebody's script.
OPTIONS = {
    "demo": {"--config", "--method"},
    "evaluate": {
        "--at-once",
        "--base",
        "--bedrock",
        "--config",
        "--data",
        "--endpoint",
        "--env",
        "--local",
        "--max-rows",
        "--output",
    },
    "validate": {"--config", "--env", "--local", "--model"},
    "config": {"--config", "--env", "--local", "--json"},
    "definition": {"--config", "--env", "--local", "--check"},
    "bootstrap": {"--config", "--env", "--local"},
    "upsert": {"--config", "--env", "--local"},
    "data check": {"--config", "--env", "--local", "--for", "--epochs"},
    "data look": {"--config", "--env", "--local", "--html", "--model", "--rows"},
    "start": {"--config", "--env", "--local", "--parameter", "--data", "--wait"},
    "status": {"--config", "--env", "--local", "--wait"},
    "logs": {"--config", "--env", "--local", "--step", "--follow"},
    "stop": {"--config", "--env", "--local"},
    "report": {"--config", "--env", "--local", "--output"},
    "approve": {"--config", "--env", "--local", "--comment", "--wait", "--group"},
    "reject": {"--config", "--env", "--local", "--comment", "--rollback", "--group"},
    "versions": {"--config", "--env", "--local", "--group"},
    "lineage": {"--config", "--env", "--local", "--group"},
    "deploy": {"--config", "--env", "--local", "--endpoint", "--beside", "--set", "--wait", "--group"},
    "rollback": {"--config", "--env", "--local", "--endpoint", "--comment", "--wait"},
    "endpoint": {"--config", "--env", "--local", "--endpoint", "--traffic"},
    "invoke": {"--config", "--env", "--local", "--endpoint", "--max-new-tokens", "--stream"},
    "undeploy": {"--config", "--env", "--local", "--endpoint", "--wait", "--yes"},
}


def test_help_names_every_command_whole_on_80_columns() -> None:
    result = fmops_cold("--help", COLUMNS="80")
    assert result.returncode == 0
    listed = re.findall(r"^  ([a-z]+)  ", result.stdout, flags=re.MULTILINE)
    assert listed == COMMANDS
    assert "..." not in result.stdout.split("Commands:")[1], "a command's summary is cut off"


@pytest.mark.parametrize("command", OPTIONS)
def test_options_are_frozen(command: str) -> None:
    result = fmops(*command.split(), "--help")
    assert result.returncode == 0
    assert set(re.findall(r"(--[a-z-]+)", result.stdout.split("Options:")[1])) - {"--help"} == OPTIONS[command]


def test_help_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from fmops.cli import cli; "
        "print([m for m in ('sagemaker','boto3','botocore','pydantic','rich','torch','yaml') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-command"], "No such command 'no-such-command'"),
        (["approve"], "Missing argument 'VERSION'"),
        (["approve", "zero"], "'zero' is not a valid integer range"),
        (["start", "--nope"], "No such option '--nope'"),
        (["start", "-p", "Epochs"], "Name=Value is expected"),
        (["start", "-p", "Epochs=1", "-p", "Epochs=2"], "-p Epochs is given twice"),
        (["validate", "--config", "absent.yaml"], "absent.yaml"),
        (["start", "--local", "--data", "absent.csv"], "absent.csv: there is no such file"),
    ],
)
def test_bad_usage_exits_2_with_one_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = fmops(*arguments, FMOPS_HOME=str(tmp_path))
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir()), "nothing may be started for a bad command"


@pytest.mark.parametrize("command", [["validate"], ["definition"]])
def test_a_region_without_sagemaker_is_named_with_the_one_that_was_meant(command: list[str], tmp_path: Path) -> None:
    text = (ROOT / "pipeline.yaml").read_text().replace("region: us-east-1 ", "region: us-esat-1 ")
    (tmp_path / "pipeline.yaml").write_text(text)
    result = fmops(*command, cwd=tmp_path)
    assert result.returncode == 2
    assert "aws.region: 'us-esat-1' is not a region that SageMaker is in; did you mean us-" in result.stderr
    assert "unexpected" not in result.stderr


def test_every_mistake_of_the_configuration_is_named_at_once(tmp_path: Path) -> None:
    text = (ROOT / "pipeline.yaml").read_text()
    text = text.replace("epochs: 3.0 ", "epochs: -3.0 ").replace("lora_rank: 16 ", "lora_rnak: 16 ")
    (tmp_path / "pipeline.yaml").write_text(text)
    for command in (["validate"], ["definition"], ["start", "--local"]):
        result = fmops(*command, cwd=tmp_path, FMOPS_HOME=str(tmp_path / "home"))
        assert result.returncode == 2
        assert "training.epochs" in result.stderr
        assert "training.lora_rnak" in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "home").exists()


def test_definition_prints_json_and_nothing_else() -> None:
    import json

    result = fmops_cold("definition")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["Version"] == "2020-12-01"
    assert result.stderr == "Next: fmops upsert\n"


def test_validate_needs_no_account_and_no_network() -> None:
    # An unusable proxy makes any attempt to reach the network fail.
    result = fmops_cold("validate", HTTPS_PROXY="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")
    assert result.returncode == 0, result.stderr
    assert "is valid" in result.stdout
    assert result.stderr == ""


def test_without_credentials_the_way_on_is_named(tmp_path: Path) -> None:
    result = fmops(
        "status",
        AWS_EC2_METADATA_DISABLED="true",
        AWS_CONFIG_FILE=str(tmp_path / "none"),
        AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "none"),
    )
    assert result.returncode == 1
    assert "add --local" in result.stderr
    assert "Traceback" not in result.stderr


def test_local_status_and_down_when_nothing_runs(tmp_path: Path) -> None:
    status = fmops("local", "status", FMOPS_HOME=str(tmp_path))
    assert (status.returncode, status.stdout) == (1, "localcloud is not running. Start it with: fmops local up\n")
    down = fmops("local", "down", FMOPS_HOME=str(tmp_path))
    assert (down.returncode, down.stdout) == (0, "localcloud was not running.\n")


@pytest.mark.parametrize(
    "command", sorted({*COMMANDS, "local up", "data look", "data check"} - {"demo", "local", "data"})
)
def test_a_folder_without_a_pipeline_stays_as_it_is(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, to be quick: nothing is written, and no localcloud runs behind the message."""
    from click.testing import CliRunner

    from configuration.errors import UserError
    from fmops.cli import cli
    from localcloud import control

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOCALCLOUD_PARENT", str(os.getpid()))
    arguments = [*command.split(), *([] if command == "local up" else ["--local"])]
    needed = {
        "approve": ["1"],
        "reject": ["1"],
        "deploy": ["1"],
        "invoke": ["a prompt"],
        "lineage": ["1"],
        "evaluate": ["--endpoint", "e", "--data", str(ROOT / "pyproject.toml")],
        "data look": [str(ROOT)],
        "data check": [str(ROOT)],
    }.get(command, [])
    result = CliRunner().invoke(cli, [*arguments, *needed])
    assert isinstance(result.exception, UserError), result
    assert "there is no such file; name it with --config" in str(result.exception)
    assert control.status(tmp_path / "home") is None
    assert list(tmp_path.iterdir()) == []
