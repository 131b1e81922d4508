"""What survives what: orphans after a kill -9, restarts, the guard, log lines, archives, checkpoints."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from localcloud.context import Context
from localcloud.jobs.archive import pack, unpack
from localcloud.jobs.layout import Layout
from localcloud.jobs.lines import LineSplitter
from localcloud.jobs.process import Process
from localcloud.jobs.transfer import TransferError, walk
from localcloud.sagemaker import processing_jobs, training_jobs
from localcloud.server import end
from localcloud_jobs.conftest import ACCOUNT, REGION, Bench, open_cloud, processes_of, until

ROOT = Path(__file__).resolve().parents[1]

CLOUD = """
import sys, time
from pathlib import Path
from localcloud.context import Context
from localcloud_jobs import conftest, test_endpoints
cloud = conftest.open_cloud(Path(sys.argv[1]))
bench = conftest.Bench(Context(conftest.ACCOUNT, conftest.REGION, cloud), cloud.delegate)
if sys.argv[2] == "endpoint":
    import json
    test_endpoints.make_endpoint(bench, "orphan")
    print("pid", json.loads(test_endpoints.invoke(bench, "orphan", {"inputs": "where"})["Body"])["pid"], flush=True)
else:
    for name in ("one", "two", "three"):
        bench.train(name, '''
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import os, time; os.setsid(); time.sleep(600)"])
print("pid", os.getpid()); print("pid", child.pid, flush=True)
time.sleep(600)
''')
    for name in ("one", "two"):
        for line in conftest.until(lambda: bench.log("/aws/sagemaker/TrainingJobs", name), lambda log: len(log) == 2):
            print(line, flush=True)
print("ready", flush=True)
time.sleep(600)
"""


def start_cloud_process(home: Path, what: str, script: str = CLOUD) -> tuple[subprocess.Popen[str], list[str]]:
    """A localcloud in its own process, with jobs or an endpoint in it; its lines up to `ready`."""
    cloud = subprocess.Popen(
        [sys.executable, "-c", script, str(home), what],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert cloud.stdout is not None
    lines: list[str] = []
    with cloud.stdout as output:
        for line in output:
            if line.strip() == "ready":
                break
            lines.append(line.strip())
        else:
            raise AssertionError(f"localcloud ended early: {lines}")
    return cloud, lines


def test_no_job_outlives_a_killed_localcloud_and_a_restart_tells_their_end(way: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    cloud, lines = start_cloud_process(home, "jobs")
    assert len([line for line in lines if line.startswith("pid ")]) == 4
    assert len(processes_of(home)) == 6, "two guards, jobs and children"
    os.kill(cloud.pid, signal.SIGKILL)
    cloud.wait()
    # Neither a process nor, in any mount namespace that still lives, a mount.
    until(lambda: processes_of(home), lambda left: left == [])
    assert str(home) not in Path("/proc/self/mountinfo").read_text()

    again = open_cloud(home)
    bench = Bench(Context(ACCOUNT, REGION, again), again.delegate)  # type: ignore[arg-type]
    processing_jobs.resume(again)
    training_jobs.resume(again)
    for name in ("one", "two"):
        job = bench.call("DescribeTrainingJob", TrainingJobName=name)
        assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Failed"
        assert job["FailureReason"] == "InternalServerError: localcloud stopped while the job ran"
    # The third had not begun: it runs now.
    until(lambda: bench.log("/aws/sagemaker/TrainingJobs", "three"), lambda log: len(log) == 2)
    end(again)
    again.store.close()


def run(tmp_path: Path, *command: str) -> tuple[Process, list[str]]:
    lines: list[str] = []
    environment = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
    return Process(command, environment, tmp_path, lines.extend), lines


def test_the_guard_reports_codes_and_ends_a_daemon_that_left_the_group(tmp_path: Path) -> None:
    daemon = "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(600)"
    script = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {daemon!r}]); time.sleep(1); exit(7)"
    )
    process, lines = run(tmp_path, sys.executable, "-c", script)
    assert process.wait(20) == 7
    assert len(lines) == 1
    assert not Path(f"/proc/{int(lines[0])}").exists()


def test_a_job_gets_no_input_and_its_standard_error_explains_it(tmp_path: Path) -> None:
    script = "import sys; print(repr(sys.stdin.read())); print('why', file=sys.stderr)"
    process, lines = run(tmp_path, sys.executable, "-c", script)
    assert process.wait(20) == 0
    assert sorted(lines) == ["''", "why"]
    assert process.tail() == "why"


def test_lines_are_split_bounded_and_progress_is_folded() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"one\ntw") == ["one"]
    assert splitter.feed(b"o\r\n 1%\r 2%\r") == ["two"]
    assert splitter.idle() == [" 2%"]
    assert splitter.idle() == []
    assert splitter.feed(b" 99%\r100%") == []
    assert splitter.feed(b"\nend\n") == ["100%", "end"]
    long = splitter.feed(b"x" * 200_000 + b"\n")
    assert "".join(long) == "x" * 200_000
    assert max(map(len, long)) <= 65536
    assert splitter.feed(b"caf\xc3") == []
    assert splitter.feed(b"\xa9 \xff") == []
    assert splitter.close() == ["caf\u00e9 \ufffd"]


def test_output_is_delivered_while_the_job_runs(bench: Bench) -> None:
    script = """
import sys, time, pathlib
sys.stdout.write("\\r 10%\\r 20%"); sys.stdout.flush()
while not pathlib.Path("/opt/ml/input/data/code/go").exists():
    time.sleep(0.02)
print("\\r done")
"""
    name = bench.train("live", script)
    group = "/aws/sagemaker/TrainingJobs"
    assert until(lambda: bench.log(group, name), lambda log: log != []) == [" 20%"]
    (bench.cloud.home / "jobs" / name / "opt/ml/input/data/code/go").touch()
    assert bench.training_end(name)["TrainingJobStatus"] == "Completed"
    assert bench.log(group, name) == [" 20%", " done"]
    streams = [stream for found, stream in bench.delegate.logs if found == group]
    assert len(streams) == 1
    assert streams[0].startswith(f"{name}/algo-1-")


def tar_with(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


EVIL = [
    [member("/etc/evil")],
    [member("../evil")],
    [member("a/../../evil")],
    [member("link", tarfile.SYMTYPE, "/etc/passwd")],
    [member("link", tarfile.SYMTYPE, "../../outside")],
    [member("hard", tarfile.LNKTYPE, "../outside")],
    [member("dir", tarfile.SYMTYPE, "."), member("dir/up", tarfile.SYMTYPE, "..")],
    # Neither link leads out when it is made; both together do.
    [member("x", tarfile.SYMTYPE, "a/b/../.."), member("a", tarfile.DIRTYPE), member("a/b", tarfile.SYMTYPE, "..")],
    [member("device", tarfile.CHRTYPE)],
    [member("pipe", tarfile.FIFOTYPE)],
]


@pytest.mark.parametrize("members", EVIL)
def test_an_archive_that_reaches_out_is_refused(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    (tmp_path / "outside").write_text("untouched")
    archive = tar_with(tmp_path / "evil.tar.gz", *members)
    with pytest.raises(TransferError, match="ClientError: the archive's"):
        unpack(archive, tmp_path / "target" / "model")
    assert (tmp_path / "outside").read_text() == "untouched"
    assert not (tmp_path / "evil").exists()


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    good = tar_with(tmp_path / "good.tar.gz", member("a", size=100_000))
    (tmp_path / "cut.tar.gz").write_bytes(good.read_bytes()[:60])
    (tmp_path / "text.tar.gz").write_text("not an archive at all")
    for name in ("cut.tar.gz", "text.tar.gz"):
        with pytest.raises(TransferError, match=r"is not a readable tar\.gz"):
            unpack(tmp_path / name, tmp_path / "target")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE])
def test_a_header_of_any_size_is_not_read_into_memory(tmp_path: Path, kind: bytes) -> None:
    path, size = tmp_path / "bomb.tar.gz", 64 << 20
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(member("././@LongLink", kind, size=size).tobuf(tarfile.GNU_FORMAT))
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    with pytest.raises(TransferError, match="a header of 67108864 bytes"):
        unpack(path, tmp_path / "target")


def test_packing_is_deterministic_and_round_trips(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "b").mkdir(parents=True)
    (source / "b" / "big.bin").write_bytes(os.urandom(300_000))
    (source / "a.sh").write_text("echo")
    (source / "a.sh").chmod(0o750)
    (source / "same.sh").hardlink_to(source / "a.sh")
    (source / "inside").symlink_to("b/big.bin")
    (source / "outside").symlink_to("/etc/passwd")
    assert pack(walk(source), tmp_path / "1.tar.gz") == pack(walk(source), tmp_path / "2.tar.gz") == 4
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()
    unpack(tmp_path / "1.tar.gz", tmp_path / "target")
    files = {path.relative_to(tmp_path / "target").as_posix(): path for path in (tmp_path / "target").rglob("*.*")}
    assert (tmp_path / "target" / "inside").read_bytes() == (source / "b" / "big.bin").read_bytes()
    assert sorted(files) == ["a.sh", "b/big.bin", "same.sh"]
    assert os.access(files["a.sh"], os.X_OK)


def test_mapping_leaves_other_paths_alone_and_is_idempotent(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "job")
    root = f"{(tmp_path / 'job').resolve()}/opt/ml"
    assert layout.map("/opt/ml/model --x=/opt/ml:/opt/ml/a file:///opt/ml/b") == (
        f"{root}/model --x={root}:{root}/a file://{root}/b"
    )
    for text in ("s3://bucket/opt/ml/x", "/home/x/opt/ml/y", "/opt/mlflow", "${ROOT}/opt/ml"):
        assert layout.map(text) == text
    assert layout.map(layout.map("/opt/ml")) == root
    with pytest.raises(ValueError, match="is not in /opt/ml"):
        layout.path("/opt/ml/../../etc")


SAVE = """
import json, os, pathlib, time
where = pathlib.Path("/opt/ml/checkpoints")
found = sorted(path.name for path in where.iterdir())
print("found", found, flush=True)
if not found:
    (where / "checkpoint-1").mkdir()
    (where / "checkpoint-1" / "state.json").write_text("{}")
    (where / "checkpoint-1" / "weights.bin").write_bytes(b"1" * 1000)
    growing = where / "checkpoint-2"
    growing.mkdir()
    with (growing / "weights.bin").open("wb", buffering=0) as file:
        while True:
            file.write(b"2" * 1000)
            time.sleep(0.02)
"""


def test_checkpoints_follow_to_s3_whole_and_come_back(bench: Bench) -> None:
    config = {"S3Uri": "s3://data/checkpoints/run"}
    first = bench.train("first", SAVE, CheckpointConfig=config)
    saved = bench.object("checkpoints/run/checkpoint-1/weights.bin")
    until(saved.exists, bool)
    until(lambda: bench.cloud.store.list("incomplete-sync", ACCOUNT, ""), lambda marks: marks == [])
    # The other checkpoint is being written all the time: it must not be in S3, neither now nor after the kill.
    bench.call("StopTrainingJob", TrainingJobName=first)
    job = bench.training_end(first)
    assert job["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"
    assert bench.object("checkpoints/run/checkpoint-1/state.json").read_text() == "{}"
    second = bench.train("second", SAVE, CheckpointConfig=config)
    assert bench.training_end(second)["TrainingJobStatus"] == "Completed"
    found = json.loads(bench.log("/aws/sagemaker/TrainingJobs", "second")[0].removeprefix("found ").replace("'", '"'))
    assert "checkpoint-1" in found


def test_a_checkpoint_that_was_half_uploaded_comes_back_as_it_is(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SageMaker nobody keeps half a checkpoint from the next attempt: the script has to know it."""
    from localcloud.jobs import sync

    monkeypatch.setattr(logging.getLogger("localcloud"), "propagate", True)
    bench.put("ck/checkpoint-1/a", "a")
    bench.put("ck/checkpoint-2/a", "half")
    bench.cloud.store.create(
        "incomplete-sync", ACCOUNT, "", sync._mark("s3://data/ck/", "checkpoint-2"), {"unit": "checkpoint-2"}
    )
    target = bench.cloud.home / "restored"
    with caplog.at_level("WARNING", "localcloud.jobs"):
        assert sync.restore(bench.ctx, "s3://data/ck", target) == sync.Moved(2, 5)
    assert sorted(path.name for path in target.iterdir()) == ["checkpoint-1", "checkpoint-2"]
    told = "s3://data/ck: the upload of checkpoint-2 was cut short; what is there of it comes back"
    assert set(caplog.messages) == {told}  # other tests of the process may have added handlers


def test_a_unit_being_written_waits_and_is_taken_when_it_is_whole(bench: Bench, tmp_path: Path) -> None:
    from localcloud.jobs.sync import Syncer

    directory = tmp_path / "ck"
    (directory / "checkpoint-1").mkdir(parents=True)
    syncer = Syncer(bench.ctx, directory, "s3://data/out", tmp_path / "scratch", 3600)
    (directory / "checkpoint-1" / "a").write_text("1")
    syncer._look(everything=False)
    assert bench.delegate.writes == []
    (directory / "checkpoint-1" / "b").write_text("2")
    syncer._look(everything=False)
    assert bench.delegate.writes == []
    syncer._look(everything=False)
    assert bench.delegate.writes == ["out/checkpoint-1/a", "out/checkpoint-1/b"]
    (directory / "state.json").write_text("half")
    syncer.close(trust_last_write=False)
    assert len(bench.delegate.writes) == 2
