"""The `localcloud` command as a user types it: in a process, with what it prints and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from localcloud import control
from localcloud.command import main
from localcloud_front.conftest import ACCOUNT, REGION, free_port


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    control.down(tmp_path / "home")


def localcloud(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "localcloud.command", *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def exported(text: str) -> dict[str, str]:
    lines = [line.removeprefix("export ").partition("=") for line in text.splitlines()]
    return {name: value for name, _, value in lines}


def test_up_env_status_and_down(home: Path) -> None:
    asked = ("--home", home, "--port", free_port(), "--account", ACCOUNT, "--region", REGION, "--clock-speed", 20)
    up = localcloud("up", *asked)
    assert (up.returncode, up.stderr.count("\n")) == (0, 2), up.stderr
    assert "localcloud answers at http://127.0.0.1:" in up.stderr
    assert "clock speed 20" in up.stderr
    found = exported(up.stdout)
    assert (found["AWS_ACCESS_KEY_ID"], found["AWS_DEFAULT_REGION"], found["AWS_REGION"]) == (ACCOUNT, REGION, REGION)

    env = localcloud("env", "--account", ACCOUNT, "--region", REGION, LOCALCLOUD_HOME=str(home))
    assert (env.returncode, exported(env.stdout), env.stderr) == (0, found, "")
    session = boto3.Session(ACCOUNT, found["AWS_SECRET_ACCESS_KEY"], region_name=REGION)
    client = session.client("sts", endpoint_url=found["AWS_ENDPOINT_URL"])
    assert client.get_caller_identity()["Account"] == ACCOUNT
    client.close()

    status = localcloud("status", "--home", home)
    assert (status.returncode, found["AWS_ENDPOINT_URL"] in status.stdout) == (0, True)
    assert "\nJobs: " in status.stdout
    again = localcloud("up", "--home", home)
    assert (again.returncode, exported(again.stdout)["AWS_ENDPOINT_URL"]) == (0, found["AWS_ENDPOINT_URL"])
    other = localcloud("up", "--home", home, "--clock-speed", 1)
    assert (other.returncode, other.stderr.count("\n")) == (1, 1)
    assert "already runs at clock speed 20" in other.stderr

    down = localcloud("down", "--home", home)
    assert (down.returncode, down.stdout) == (0, "localcloud is stopped.\n")
    down = localcloud("down", "--home", home)
    assert (down.returncode, down.stdout) == (0, "localcloud was not running.\n")


@pytest.mark.parametrize("command", ["status", "env"])
def test_what_is_not_running_is_said_with_how_to_start_it(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--home", str(tmp_path)]) == 1
    said = capsys.readouterr()
    expected = f"localcloud: not running for {tmp_path}. Start it with: localcloud up --home {tmp_path}\n"
    assert (said.out, said.err) == ("", expected)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: up | down | status | env"),
        (["start"], "invalid choice: 'start'"),
        (["up", "--port", "65536"], "argument --port: '65536' is not a port: give 0 to 65535"),
        (["up", "--port", "web"], "argument --port: 'web' is not a port: give 0 to 65535"),
        (["up", "--account", "123"], "argument --account: '123' is not an account id: give 12 digits"),
        (["up", "--clock-speed", "0"], "clock speed 0 is not between 1 and 100: give 1 (real time) to 100"),
        (["down", "--port", "1"], "unrecognized arguments: --port 1"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    said = capsys.readouterr()
    assert (stopped.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert complaint in said.err
    assert said.err.startswith("localcloud: ")


def test_what_can_not_be_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert main(["up", "--home", str(file / "home")]) == 1
    assert "can't be written to" in capsys.readouterr().err


def test_help_names_every_command_and_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALCLOUD_HOME", "")
    for arguments, named in (
        (["--help"], ("up", "down", "status", "env")),
        (["up", "--help"], ("--home", "--port", "--account", "--region", "--clock-speed", "4566", ".localcloud")),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
        said = capsys.readouterr().out
        assert [name for name in named if name not in said] == []
