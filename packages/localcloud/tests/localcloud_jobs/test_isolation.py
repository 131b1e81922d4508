"""A job's own /opt/ml, its own packages, and what happens where this machine grants neither namespace."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from localcloud.errors import AwsError
from localcloud.jobs import isolation, packages
from localcloud.jobs.isolation import Isolation
from localcloud_jobs.conftest import OWN, WAYS, Bench, channel, own_opt_ml, processes_of, s3_input, s3_output, until

TRAINING, PROCESSING = "/aws/sagemaker/TrainingJobs", "/aws/sagemaker/ProcessingJobs"
TINY = "idna"
"""A small package that localcloud's environment has; jobs here install another version of it."""


def source(**files: str) -> bytes:
    """A .tar.gz as the SDK makes one: its files belong to somebody who isn't here."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid, info.uname = len(text), 12345, 12345, "somebody"
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


UNPACKS = """
import hashlib, pathlib, subprocess
here = pathlib.Path("/opt/ml/processing/input/code")
subprocess.run(["tar", "-xzf", "sourcedir.tar.gz"], cwd=here, check=True)
print(hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest())
"""
RUNS = UNPACKS + "subprocess.run(['python', str(here / 'inner.py')], check=True)"
INNER = """
import pathlib
pathlib.Path("/opt/ml/processing/output/found.txt").write_text("found")
"""


def unpack_job(bench: Bench, name: str) -> dict[str, object]:
    """FrameworkProcessor's way: code that the job itself unpacks names /opt/ml."""
    bench.put("code-archive/sourcedir.tar.gz", source(**{"inner.py": INNER}))
    bench.process(
        name,
        RUNS,
        ProcessingInputs=[s3_input("more", "s3://data/code-archive/", "/opt/ml/processing/input/code")],
        ProcessingOutputConfig={"Outputs": [s3_output("out", f"s3://data/{name}/", "/opt/ml/processing/output")]},
    )
    return bench.processing_end(name)


@pytest.mark.parametrize("way", OWN, indirect=True)
def test_code_that_a_job_unpacks_finds_opt_ml_and_no_byte_is_rewritten(way: str, bench: Bench) -> None:
    assert unpack_job(bench, "unpacks")["ProcessingJobStatus"] == "Completed", bench.log(PROCESSING, "unpacks")
    assert bench.object("unpacks/found.txt").read_text() == "found"
    assert hashlib.sha256(RUNS.encode()).hexdigest() in bench.log(PROCESSING, "unpacks")


@pytest.fixture
def rewriting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without namespaces; the directory that stands for its own /opt/ml."""
    monkeypatch.setenv("LOCALCLOUD_OPT_ML", "rewrite")
    machine = tmp_path / "machine"
    machine.mkdir()
    monkeypatch.setattr(isolation, "_HOST", machine)
    return machine


def test_rewriting_fails_a_job_that_unpacks_code_which_names_opt_ml(rewriting: Path, bench: Bench) -> None:
    # What the unpacked code writes would be lost: a job that has it must not look like a success, run or not.
    bench.put("code-archive/sourcedir.tar.gz", source(**{"inner.py": INNER}))
    code = s3_input("more", "s3://data/code-archive/", "/opt/ml/processing/input/code")
    name = bench.process("escapes", UNPACKS, ProcessingInputs=[code])
    job = bench.processing_end(name)
    assert job["ProcessingJobStatus"] == "Failed"
    assert "names /opt/ml: /opt/ml/processing/input/code/inner.py" in job["FailureReason"]


HOST_CHANGES = {
    "written": ("(machine / 'x').write_text('x')", "x changed"),
    "made": ("(machine / 'deep' / 'er').mkdir(parents=True)", "deep"),
    "deleted": ("(machine / 'there').unlink()", "there"),
}


@pytest.mark.parametrize("kind", HOST_CHANGES)
def test_rewriting_fails_a_job_that_changed_the_machines_own_opt_ml(rewriting: Path, bench: Bench, kind: str) -> None:
    (rewriting / "there").touch()
    change, named = HOST_CHANGES[kind]
    job = bench.training_end(bench.train(kind, f"import pathlib\nmachine = pathlib.Path({str(rewriting)!r})\n{change}"))
    assert job["TrainingJobStatus"] == "Failed"
    assert f"the machine's own {rewriting}" in job["FailureReason"]
    assert named in job["FailureReason"]
    assert "LOCALCLOUD_OPT_ML=rewrite" in job["FailureReason"]


def test_rewriting_refuses_what_the_sdks_library_writes(rewriting: Path, bench: Bench) -> None:
    bench.put("rows/a", "1")
    steps = channel("sagemaker_remote_function_bootstrap", "s3://data/rows/")
    job = bench.training_end(bench.train("step", "", InputDataConfig=[steps]))
    assert job["TrainingJobStatus"] == "Failed"
    assert "@step and @remote" in job["FailureReason"]


def test_rewriting_refuses_several_machines(rewriting: Path, bench: Bench) -> None:
    two = {"InstanceType": "ml.g5.2xlarge", "InstanceCount": 2, "VolumeSizeInGB": 30}
    with pytest.raises(AwsError, match=r"names in an /etc/hosts of their own, .*LOCALCLOUD_OPT_ML=rewrite"):
        bench.train("two", "", ResourceConfig=two)


def test_rewriting_leaves_a_job_alone_that_only_copies_code_which_names_opt_ml(rewriting: Path, bench: Bench) -> None:
    bench.put("serving/inference.py", "BASE = '/opt/ml/additional-model-data-sources/base'")
    script = "import shutil; shutil.copytree('/opt/ml/input/data/serving', '/opt/ml/model/code')"
    name = bench.train("copies", script, InputDataConfig=[channel("serving", "s3://data/serving/")])
    assert bench.training_end(name)["TrainingJobStatus"] == "Completed"


def wheel(name: str, version: str) -> bytes:
    """A wheel with one module that knows its version, and a command that prints it."""
    info, module = f"{name}-{version}.dist-info", f"VERSION = {version!r}\ndef main():\n    print('command', VERSION)\n"
    files = {
        f"{name}/__init__.py": module,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}-says = {name}:main\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return buffer.getvalue()


def fingerprint() -> str:
    """Everything in the directories that localcloud and fmops run from: names, sizes, times, and TINY's bytes."""
    digest = hashlib.sha256()
    count = 0
    for place in packages.protected():
        for folder, folders, files in os.walk(place):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for file in sorted(files):
                path = Path(folder, file)
                stat = path.lstat()
                digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
                if TINY in str(path):
                    digest.update(path.read_bytes())
                count += 1
    assert count > 1000
    return digest.hexdigest()


INSTALLS = {
    "pip": "['pip', 'install']",
    "python -m pip": "['python', '-m', 'pip', 'install']",
    "sys.executable -m pip": "[sys.executable, '-m', 'pip', 'install']",
    "bash": "['bash', '-c', 'python3 -m pip install \"$@\"', 'bash']",
}
INSTALL = """
import importlib.util, subprocess, sys
wheels = "/opt/ml/input/data/wheels"
options = ["-q", "--no-index", "--no-deps", "--find-links", wheels, "-r", f"{wheels}/requirements.txt"]
subprocess.run([*COMMAND, *options], check=True)
import TINY, importlib.metadata
print("seen", importlib.metadata.version("TINY"), TINY.VERSION, flush=True)
subprocess.run(["TINY-says"])
print("torch", importlib.util.find_spec("torch").origin)
"""


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_what_a_job_installs_is_seen_by_that_job_alone(way: str, bench: Bench) -> None:
    before, version = fingerprint(), importlib.metadata.version(TINY)
    bench.put(f"wheels/{TINY}-0.0.1-py3-none-any.whl", wheel(TINY, "0.0.1"))
    bench.put("wheels/requirements.txt", f"{TINY}==0.0.1\n")
    names = [
        bench.train(
            f"installs-{number}",
            INSTALL.replace("COMMAND", command).replace("TINY", TINY),
            InputDataConfig=[channel("wheels", "s3://data/wheels/")],
        )
        for number, command in enumerate(INSTALLS.values())
    ]
    for name in names:
        job = bench.training_end(name)
        log = bench.log(TRAINING, name)
        assert job["TrainingJobStatus"] == "Completed", (job["FailureReason"], log)
        assert "seen 0.0.1 0.0.1" in log
        assert "command 0.0.1" in log
        assert any(line.startswith("torch ") for line in log), "what it didn't install is localcloud's"
    assert fingerprint() == before
    script = f"import importlib.metadata as m; print('seen', m.version({TINY!r}))"
    bench.training_end(bench.train("after", script))
    assert bench.log(TRAINING, "after") == [f"seen {version}"]


@pytest.mark.parametrize("way", OWN, indirect=True)
def test_localclouds_own_environment_cannot_be_written_to(way: str, bench: Bench) -> None:
    places = [sysconfig.get_path("purelib"), *map(str, packages.protected())]
    script = f"""
import pathlib, subprocess
for place in {places!r}:
    try:
        pathlib.Path(place, "written").touch()
    except OSError as error:
        print(error.strerror)
print(subprocess.run([{sys.executable!r}, "-m", "pip", "install", "--no-index", "--no-deps", "--find-links",
                      "/opt/ml/input/data/wheels", "--force-reinstall", "{TINY}==0.0.1"]).returncode)
"""
    bench.put(f"wheels/{TINY}-0.0.1-py3-none-any.whl", wheel(TINY, "0.0.1"))
    before = fingerprint()
    bench.training_end(bench.train("breaks-in", script, InputDataConfig=[channel("wheels", "s3://data/wheels/")]))
    log = bench.log(TRAINING, "breaks-in")
    assert log.count("Read-only file system") == len(places), log
    assert log[-1] != "0"
    assert fingerprint() == before


def test_a_failure_file_is_read_and_stays_in_the_job(way: str, bench: Bench) -> None:
    script = "open('/opt/ml/output/failure', 'w').write('no such column'); raise SystemExit(2)"
    job = bench.training_end(bench.train("says-why", script))
    assert job["FailureReason"] == "AlgorithmError: no such column, exit code: 2"


MACHINES = {
    # As whoever starts it; as a user without privileges (a user namespace in a user namespace); without /opt/ml.
    "as it is": [],
    "unprivileged": ["unshare", "--user", "--map-user=1000", "--map-group=1000"],
    "without /opt/ml": ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "{bare}", "sh"],
    "unprivileged, without /opt/ml": [
        *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "{bare}", "sh"),
        *("unshare", "--user", "--map-user=1000", "--map-group=1000"),
    ],
}
BARE = 'mount -t tmpfs none /opt && mkdir /opt/there && touch /opt/file && ln -s there /opt/link && exec "$@"'
ONE_JOB = """
import os, sys
from pathlib import Path
from localcloud.context import Context
from localcloud.server import end
from localcloud_jobs.conftest import ACCOUNT, REGION, Bench, open_cloud, own_opt_ml
cloud = open_cloud(Path(sys.argv[1]))
bench = Bench(Context(ACCOUNT, REGION, cloud), cloud.delegate)
name = bench.train("one", '''
import io, os, pathlib, subprocess, tarfile
with tarfile.open("foreign.tar", "w") as tar:
    info = tarfile.TarInfo("foreign")
    info.uid = info.gid = 12345
    tar.addfile(info, io.BytesIO())
subprocess.run(["tar", "-xf", "foreign.tar"], check=True)
print(sorted(path.name for path in pathlib.Path("/opt").iterdir()), os.getpid(), os.path.exists("/proc/self/stat"))
pathlib.Path("/opt/ml/model/weights").write_text("w")
''')
print(own_opt_ml(), bench.training_end(name)["TrainingJobStatus"], *bench.log("/aws/sagemaker/TrainingJobs", name))
print(os.path.exists("/opt/ml"), bench.object("training/one/output/model.tar.gz").stat().st_uid == os.getuid())
end(cloud)
cloud.store.close()
"""


@pytest.mark.parametrize("machine", MACHINES if own_opt_ml() else [])
def test_every_user_has_an_own_opt_ml_and_the_machine_gets_none(tmp_path: Path, machine: str) -> None:
    command = [word.replace("{bare}", BARE) for word in MACHINES[machine]]
    root = Path(__file__).resolve().parents[1]
    ran = subprocess.run(
        [*command, sys.executable, "-c", ONE_JOB, str(tmp_path / "home")],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    job, outside = ran.stdout.splitlines()
    bare = "without" in machine
    seen = "['file', 'link', 'ml', 'there']" if bare else str(sorted({*os.listdir("/opt"), "ml"}))
    assert job == f"True Completed {seen} 1 True"
    assert outside == f"{not bare and Path('/opt/ml').exists()} True"


def test_a_machine_that_grants_no_namespace_says_so(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    monkeypatch.setattr(isolation, "_probe", lambda: "unshare: Operation not permitted")
    isolation.isolation.cache_clear()
    try:
        assert isolation.isolation("auto") == Isolation(False, "unshare: Operation not permitted")
        assert "rewritten" in isolation.in_words("auto")
        monkeypatch.setenv("LOCALCLOUD_OPT_ML", "namespace")
        job = bench.training_end(bench.train("forced", ""))
        assert job["FailureReason"].startswith("InternalServerError: LOCALCLOUD_OPT_ML=namespace, but this machine")
    finally:
        isolation.isolation.cache_clear()


def test_a_wrong_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from localcloud.jobs.settings import Settings

    monkeypatch.setenv("LOCALCLOUD_OPT_ML", "docker")
    with pytest.raises(SystemExit, match="must be one of auto, namespace, rewrite"):
        Settings.from_environment()


def test_a_container_ends_with_its_first_process(way: str, bench: Bench) -> None:
    script = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    assert bench.training_end(bench.train("leaves", script))["TrainingJobStatus"] == "Completed"
    until(lambda: processes_of(bench.cloud.home), lambda left: left == [])
