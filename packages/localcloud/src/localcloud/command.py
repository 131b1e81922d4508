"""The `localcloud` command: start and stop AWS on this machine, and print what points a shell at it.

    eval "$(localcloud up)"        start it in the background; boto3, the SageMaker SDK and the AWS CLI now use it
    localcloud status              0 when it runs, 1 when it doesn't
    localcloud down                stop it with its jobs and endpoints; its state stays

Exit codes: 0 done, 1 not running or not possible, 2 wrong usage; every error is one line on stderr.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from localcloud import clock, control
from localcloud.home import DEFAULT_HOME, DEFAULT_PORT, ControlError

_ACCOUNT, _REGION = "000000000000", "us-east-1"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"localcloud: {message}. See {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line (without the program's name); the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return {"up": _up, "down": _down, "status": _status, "env": _env}[options.command](options)
    except ControlError as error:
        print(f"localcloud: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="localcloud", description="AWS on this machine, for rehearsing SageMaker pipelines.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="up | down | status | env")
    home = Path(os.environ.get("LOCALCLOUD_HOME") or DEFAULT_HOME)
    for name, text in (
        ("up", "start it in the background and print the variables that point a shell at it"),
        ("down", "stop it with its jobs and endpoints; its state stays"),
        ("status", "say whether it runs, and where"),
        ("env", "print the variables that point a shell at it"),
    ):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.add_argument(
            "--home",
            type=Path,
            default=home,
            help="where its state is (default: $LOCALCLOUD_HOME or %(default)s)",
        )
        if name in ("up", "env"):
            command.add_argument("--account", type=_account, default=_ACCOUNT, help="account id (default: %(default)s)")
            command.add_argument("--region", default=_REGION, help="region (default: %(default)s)")
        if name == "up":
            text = f"port on 127.0.0.1, 0 to 65535 (default: {DEFAULT_PORT}, or a free one when that is taken)"
            command.add_argument("--port", type=_port, default=0, help=text)
            text = "how many times shorter SageMaker's and CloudWatch's waits are, 1 to 100 (default: 1)"
            command.add_argument("--clock-speed", type=_speed, help=text)
    return parser


def _up(options: argparse.Namespace) -> int:
    info = control.up(options.home, options.port, clock_speed=options.clock_speed)
    _say(info, options.home)
    print('To use it in this shell: eval "$(localcloud env)", with the same --home', file=sys.stderr)
    _export(info, options)
    return 0


def _down(options: argparse.Namespace) -> int:
    stopped = control.down(options.home)
    print("localcloud is stopped." if stopped else "localcloud was not running.")
    return 0


def _status(options: argparse.Namespace) -> int:
    info = _running(options.home)
    _say(info, options.home, sys.stdout)
    print(f"Jobs: {info.opt_ml}.")
    return 0


def _env(options: argparse.Namespace) -> int:
    _export(_running(options.home), options)
    return 0


def _running(home: Path) -> control.Info:
    info = control.status(home)
    if info is None:
        raise ControlError(f"not running for {home.expanduser().resolve()}. Start it with: localcloud up --home {home}")
    return info


def _say(info: control.Info, home: Path, stream: object = None) -> None:
    speed = "" if info.clock_speed == 1 else f", clock speed {info.clock_speed:g}"
    text = f"localcloud answers at {info.url} (process {info.pid}, state in {home.expanduser().resolve()}{speed})."
    print(text, file=stream or sys.stderr)  # type: ignore[arg-type]


def _export(info: control.Info, options: argparse.Namespace) -> None:
    for name, value in control.shell_environment(options.home, info, options.account, options.region).items():
        print(f"export {name}={shlex.quote(value)}")


def _account(text: str) -> str:
    if not re.fullmatch(r"\d{12}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an account id: give 12 digits")
    return text


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give 0 to 65535")
    return int(text)


def _speed(text: str) -> float:
    try:
        return clock.read(text).speed
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
