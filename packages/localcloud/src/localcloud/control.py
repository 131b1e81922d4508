"""Start, stop and find the localcloud of a home directory: one process each, found by `home/localcloud.json`.

`{"url": "http://127.0.0.1:4566", "pid": 123, "port": 4566}` is there while it answers. A file that a killed process
left is recognised by asking the port who it is.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from localcloud.home import DEFAULT_PORT, ControlError, listen, locked, prepare_home
from localcloud.keys import Keys

__all__ = ["DEFAULT_PORT", "ControlError", "Info", "client_environment", "down", "shell_environment", "status", "up"]
STATE_FILE = "localcloud.json"
PARENT_VARIABLE = "LOCALCLOUD_PARENT"
"""Environment variable with the id of the process that a localcloud ends with: tests set it for all that they start."""
_OUTPUT = "localcloud.out"
_SDK_CONFIGURATION = "SAGEMAKER_USER_CONFIG_OVERRIDE"
_START_S = 30.0
_STOP_S = 15.0
_POLL_S = 0.02
_ANSWER_S = 2.0
_KEPT = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CACHE_HOME"),
    }
)
_KEPT_PREFIXES = ("LC_", "LOCALCLOUD_", "PYTHON", "COVERAGE_", "OMP_", "CUDA_", "NVIDIA_", "HF_HOME", "MKL_")
"""Where programs and libraries are, how many threads they take, and localcloud's own dials."""
_children: dict[int, subprocess.Popen[bytes]] = {}
"""What this process started and has to reap."""


@dataclass(frozen=True)
class Info:
    """A running localcloud."""

    url: str
    pid: int
    port: int
    secret: str = field(default="", repr=False)
    """The AWS_SECRET_ACCESS_KEY of every account in it."""
    clock_speed: float = 1.0
    opt_ml: str = ""
    """How jobs get their `/opt/ml` there, in words."""


def up(
    home: Path | str,
    port: int = 0,
    wait: float = _START_S,
    parent: int | None = None,
    clock_speed: float | None = None,
) -> Info:
    """Start localcloud in the background, or find the one that already runs in this home.

    `port` 0 picks 4566, or any free one when that is taken; `wait` is how long it may take, in seconds; it ends by
    itself when process `parent`, by default the one that $LOCALCLOUD_PARENT names, has ended; without either it goes on
    until `down`. `clock_speed` makes what SageMaker and CloudWatch wait so many times shorter (see localcloud.clock).
    ControlError when the home can't be written to, the port is taken, it runs with another port or speed, or it ends.
    """
    home = prepare_home(Path(home))
    _reap()
    running = status(home)
    if running is not None:
        _check_same(running, home, port, clock_speed)
        return running
    if port:
        listen(port).close()  # the reason is better told from here than from a log file
    return _answering(home, _start(home, port, parent, clock_speed), wait)


def _check_same(running: Info, home: Path, port: int, clock_speed: float | None) -> None:
    if port not in (0, running.port):
        raise ControlError(f"localcloud for {home} already runs on port {running.port}: stop it to change that")
    if clock_speed not in (None, running.clock_speed):
        raise ControlError(
            f"localcloud for {home} already runs at clock speed {running.clock_speed:g}: stop it to change that"
        )


def _start(home: Path, port: int, parent: int | None, clock_speed: float | None) -> subprocess.Popen[bytes]:
    followed = parent if parent is not None else os.environ.get(PARENT_VARIABLE) or None
    options = {"--port": port or None, "--parent": followed, "--clock-speed": clock_speed}
    given = [text for name, value in options.items() if value is not None for text in (name, str(value))]
    with open(home / _OUTPUT, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "localcloud", "--home", str(home), *given],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(),
            umask=0o077,
        )


def _answering(home: Path, process: subprocess.Popen[bytes], wait: float) -> Info:
    """Wait until the process answers, or another one that was faster."""
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        found = status(home)
        if found is not None:
            _children[process.pid] = process  # one that came too late ends by itself, and has to be reaped, too
            return found
        if ended and not locked(home):
            raise ControlError(
                f"localcloud ended at start (exit code {process.returncode}): {_last_line(home / _OUTPUT)}"
            )
        time.sleep(_POLL_S)
    process.kill()
    process.wait()
    raise ControlError(f"localcloud did not answer within {wait:g} s; its log is {home / 'localcloud.log'}")


def down(home: Path | str, wait: float = _STOP_S) -> bool:
    """Stop it with all that it started: SIGTERM, and SIGKILL after `wait` seconds. False when none was running."""
    home = Path(home).expanduser().resolve()
    _reap()
    running = status(home)
    if running is None:
        (home / STATE_FILE).unlink(missing_ok=True)
        return False
    _signal(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline and _alive(running.pid):
        time.sleep(_POLL_S)
    if _alive(running.pid):
        _signal(running.pid, signal.SIGKILL)
        while _alive(running.pid):
            time.sleep(_POLL_S)
    (home / STATE_FILE).unlink(missing_ok=True)
    return True


def status(home: Path | str) -> Info | None:
    """The localcloud that runs in this home, if one answers and says that it is the one."""
    home = Path(home).expanduser().resolve()
    try:
        stated = json.loads((home / STATE_FILE).read_text())
        info = Info(str(stated["url"]), int(stated["pid"]), int(stated["port"]), Keys.of_home(home).secret)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    nonce = secrets.token_hex(16)
    request = urllib.request.Request(f"{info.url}/_localcloud/health", headers={"x-localcloud-nonce": nonce})  # noqa: S310
    try:
        # Never through a proxy: it is this machine.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=_ANSWER_S) as answer:
            health = json.load(answer)
    except (OSError, ValueError, urllib.error.URLError):
        return None
    # Who listens there now may be somebody else: only the cloud of this home knows its secret.
    proof = Keys(info.secret).prove(f"health|{nonce}")
    same = isinstance(health, dict) and health.get("pid") == info.pid and health.get("proof") == proof
    if not same:
        return None
    return replace(info, clock_speed=float(health.get("clock_speed", 1.0)), opt_ml=str(health.get("opt_ml", "")))


def write_state(home: Path, info: Info) -> None:
    """Say where this home's localcloud answers; whoever reads it sees the whole file or none."""
    temporary = home / f".{STATE_FILE}.{os.getpid()}"
    temporary.write_text(json.dumps({"url": info.url, "pid": info.pid, "port": info.port}))
    os.replace(temporary, home / STATE_FILE)


def _environment() -> dict[str, str]:
    """What localcloud gets to see of its starter's environment: its jobs are of the same user and can read it in /proc.

    So no secret is in it; an allow list, as nobody knows all names that secrets have.
    """
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    return {**kept, "PYTHONPATH": _python_path()}


def _python_path() -> str:
    """This package's parent first: the process runs in another directory than its parent was started for.

    Without relative entries, which would be the caller's current directory.
    """
    here = str(Path(__file__).resolve().parent.parent)
    old = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(entry)]
    return os.pathsep.join([here, *old])


def client_environment(url: str, secret: str, account: str, region: str) -> dict[str, str]:
    """What points boto3, the SageMaker SDK and the AWS CLI at a localcloud: the account's id is its access key."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": account,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        **past_proxies(os.environ),
    }


def shell_environment(home: Path | str, info: Info, account: str, region: str) -> dict[str, str]:
    """`client_environment`, and what the SageMaker SDK needs beside it; writes the SDK's configuration into the home.

    `Session().default_bucket()` asks sts.REGION.amazonaws.com for the account, by that name: no variable leads it
    elsewhere. It asks nobody when the bucket's name is configured, so this names the one that it would have made up.
    A configuration that the shell already names stays.
    """
    found = client_environment(info.url, info.secret, account, region)
    if os.environ.get(_SDK_CONFIGURATION, "").startswith(str(home)) or not os.environ.get(_SDK_CONFIGURATION):
        path = prepare_home(Path(home)) / f"sagemaker-sdk-{account}-{region}.yaml"
        session = {"DefaultS3Bucket": f"sagemaker-{region}-{account}"}
        modules = {"Session": session, "TelemetryOptOut": True}
        document = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": modules}}}
        path.write_text(json.dumps(document, indent=2) + "\n")  # JSON is YAML
        found[_SDK_CONFIGURATION] = str(path)
    return found


def past_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep this machine's own addresses from a proxy, beside those that are kept from it already."""
    known = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host.strip() for host in known.split(",") if host.strip()]
    value = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))
    return {"NO_PROXY": value, "no_proxy": value}  # the lower one goes first with urllib, botocore and requests


def _alive(pid: int) -> bool:
    _reap()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _reap() -> None:
    """Take note of children that have ended: a dead one that nobody waited for still looks alive."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise ControlError(f"localcloud runs as process {pid} of another user, who has to stop it") from None


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"it wrote nothing to {log}"
