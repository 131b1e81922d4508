"""Training jobs on several machines: what each is given, how they meet, and how the job ends."""

from __future__ import annotations

import json
import os
import socket
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from localcloud.errors import AwsError
from localcloud.jobs import machines
from localcloud_jobs.conftest import IMAGE, OWN, Bench, channel, processes_of, until

GROUP = "/aws/sagemaker/TrainingJobs"
TWO = {"InstanceType": "ml.g5.2xlarge", "InstanceCount": 2, "VolumeSizeInGB": 30}
pytestmark = pytest.mark.parametrize("way", OWN, indirect=True)
"""Several machines need namespaces: where this machine grants none they are refused (see test_isolation.py)."""

MEET = """
import json, os, pathlib, socket, time
resources = json.loads(pathlib.Path("/opt/ml/input/config/resourceconfig.json").read_text())
host, number = resources["current_host"], int(os.environ["SM_CURRENT_HOST_RANK"])
place = (os.environ["SM_MASTER_ADDR"], int(os.environ["SM_MASTER_PORT"]))
if number == 0:
    with socket.create_server(("", place[1])) as server:
        other, address = server.accept()
        heard = other.recv(99).decode()
else:
    while True:
        try:
            other = socket.create_connection(place)
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    other.sendall(host.encode())
    heard = ""
data = pathlib.Path("/opt/ml/input/data")
print(f"loss={number + 1}.5")
seen = {
    "resources": resources, "heard": heard,
    "environment": {key: os.environ[key] for key in ("SM_HOSTS", "SM_HOST_COUNT", "SM_CURRENT_HOST")},
    "threads": int(os.environ["OMP_NUM_THREADS"]),
    "addresses": [socket.gethostbyname(name) for name in resources["hosts"]],
    "whole": sorted(path.name for path in (data / "whole").iterdir()),
    "sharded": sorted(path.name for path in (data / "sharded").iterdir()),
}
pathlib.Path("/opt/ml/model", host + ".json").write_text(json.dumps(seen))
"""


def opened(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {item.name: tar.extractfile(item).read() for item in tar if item.isfile()}  # type: ignore[union-attr]


def streams(bench: Bench, name: str) -> dict[str, list[str]]:
    """The lines of each machine, by its name."""
    with bench.delegate.lock:
        found = {stream: list(lines) for (group, stream), lines in bench.delegate.logs.items() if group == GROUP}
    return {
        stream.split("/")[1].rpartition("-")[0]: lines
        for stream, lines in found.items()
        if stream.startswith(name + "/")
    }


def sharded(uri: str) -> dict[str, Any]:
    found = channel("sharded", uri)
    found["DataSource"]["S3DataSource"]["S3DataDistributionType"] = "ShardedByS3Key"
    return found


def test_each_machine_has_its_own_tree_and_they_meet_by_name(way: str, bench: Bench) -> None:
    for number in range(5):
        bench.put(f"rows/{number}.jsonl", "{}")
    specification = {
        "TrainingImage": IMAGE,
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/train.py"],
        "MetricDefinitions": [{"Name": "loss", "Regex": r"loss=([0-9.]+)"}],
    }
    channels = [channel("whole", "s3://data/rows/"), sharded("s3://data/rows/")]
    name = bench.train("meet", MEET, ResourceConfig=TWO, InputDataConfig=channels, AlgorithmSpecification=specification)
    job = bench.training_end(name)
    assert job["TrainingJobStatus"] == "Completed", job
    model = {file: json.loads(text) for file, text in opened(bench.object("training/meet/output/model.tar.gz")).items()}
    assert sorted(model) == ["algo-1.json", "algo-2.json"]
    hosts = ["algo-1", "algo-2"]
    for host in hosts:
        seen = model[f"{host}.json"]
        assert seen["resources"] == {
            "current_host": host,
            "current_instance_type": "ml.g5.2xlarge",
            "current_group_name": "homogeneousCluster",
            "hosts": hosts,
            "instance_groups": [
                {"instance_group_name": "homogeneousCluster", "instance_type": "ml.g5.2xlarge", "hosts": hosts}
            ],
            "network_interface_name": "lo",
        }
        environment = {"SM_HOSTS": json.dumps(hosts), "SM_HOST_COUNT": "2", "SM_CURRENT_HOST": host}
        assert seen["environment"] == environment
        assert seen["addresses"] == ["127.77.77.1", "127.77.77.2"]
        assert seen["threads"] == max(1, len(os.sched_getaffinity(0)) // 2)
        assert seen["whole"] == [f"{number}.jsonl" for number in range(5)]
    assert model["algo-1.json"]["heard"] == "algo-2"
    shares = [model[f"{host}.json"]["sharded"] for host in hosts]
    assert shares == [["0.jsonl", "2.jsonl", "4.jsonl"], ["1.jsonl", "3.jsonl"]]
    assert streams(bench, name) == {"algo-1": ["loss=1.5"], "algo-2": ["loss=2.5"]}
    values = {value for group, metric, value, _ in bench.delegate.metrics if (group, metric) == (GROUP, "loss")}
    assert values == {1.5, 2.5}
    until((bench.cloud.home / "jobs" / name).exists, lambda there: not there)


def test_more_machines_than_objects_leave_some_without_any(way: str, bench: Bench) -> None:
    bench.put("one/a.jsonl", "{}")
    script = "import os; print(os.listdir('/opt/ml/input/data/sharded'))"
    name = bench.train("few", script, ResourceConfig=TWO, InputDataConfig=[sharded("s3://data/one/")])
    assert bench.training_end(name)["TrainingJobStatus"] == "Completed"
    assert streams(bench, name) == {"algo-1": ["['a.jsonl']"], "algo-2": ["[]"]}


CLASHES = {
    "file": "open('/opt/ml/model/weights.bin', 'w').write('w')",
    "folder": "os.mkdir('/opt/ml/model/weights'); open('/opt/ml/model/weights/' + host, 'w').write('w')",
}


@pytest.mark.parametrize("kind", CLASHES)
def test_two_machines_must_not_leave_artifacts_of_one_name(way: str, bench: Bench, kind: str) -> None:
    script = f"import os\nhost = os.environ['SM_CURRENT_HOST']\n{CLASHES[kind]}"
    job = bench.training_end(bench.train(kind, script, ResourceConfig=TWO))
    assert job["TrainingJobStatus"] == "Failed"
    assert "more than one instance wrote weights" in job["FailureReason"]
    assert not bench.object(f"training/{kind}/output/model.tar.gz").exists()


FAILS = """
import os, pathlib, signal, time
host = os.environ["SM_CURRENT_HOST"]
signal.signal(signal.SIGTERM, lambda *_: print("warned", flush=True))
print("up", flush=True)
pathlib.Path("/opt/ml/output/data/log").write_text(host)
if host == "algo-2":
    while not pathlib.Path("/opt/ml/input/data/code/go").exists():
        time.sleep(0.02)
    pathlib.Path("/opt/ml/output/failure").write_text("no rows on algo-2")
    raise SystemExit(3)
time.sleep(600)
"""


def test_the_first_machine_that_fails_ends_the_job_and_the_others(way: str, bench: Bench) -> None:
    name = bench.train("fails", FAILS, ResourceConfig=TWO)
    until(lambda: streams(bench, name), lambda seen: seen == {"algo-1": ["up"], "algo-2": ["up"]})
    (bench.cloud.home / "jobs" / name / "algo-2" / "opt/ml/input/data/code/go").touch()
    job = bench.training_end(name)
    assert job["TrainingJobStatus"] == "Failed"
    # Not that both left an output `log`: why the job failed comes first.
    assert job["FailureReason"] == "AlgorithmError: no rows on algo-2, exit code: 3"
    assert streams(bench, name)["algo-1"] == ["up"], "no warning comes before the end"
    assert processes_of(bench.cloud.home) == []
    kept = bench.cloud.home / "jobs" / name
    assert [(kept / part / "output.log").read_text() for part in ("", "algo-2")] == ["up\n", "up\n"]


SAVES = """
import os, pathlib, signal, sys, time
host = os.environ["SM_CURRENT_HOST"]
def save(*_):
    pathlib.Path("/opt/ml/checkpoints", host).write_text("saved")
    sys.exit(0)
found = sorted(path.name for path in pathlib.Path("/opt/ml/checkpoints").iterdir())
signal.signal(signal.SIGTERM, save)
print(found, flush=True)
if len(found) == 2:
    sys.exit(0)
time.sleep(600)
"""


def test_a_stop_reaches_every_machine_and_all_get_the_checkpoints_of_all(
    way: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALCLOUD_STOP_GRACE_SECONDS", "20")
    shared = {"ResourceConfig": TWO, "CheckpointConfig": {"S3Uri": "s3://data/checkpoints"}}
    name = bench.train("stopped", SAVES, **shared)
    until(lambda: streams(bench, name), lambda seen: seen == {"algo-1": ["[]"], "algo-2": ["[]"]})
    bench.call("StopTrainingJob", TrainingJobName=name)
    assert bench.training_end(name)["TrainingJobStatus"] == "Stopped"
    assert bench.object("checkpoints/algo-1").read_text() == bench.object("checkpoints/algo-2").read_text() == "saved"
    again = bench.train("again", SAVES, **shared)
    assert bench.training_end(again)["TrainingJobStatus"] == "Completed"
    both = ["['algo-1', 'algo-2']"]
    assert streams(bench, again) == {"algo-1": both, "algo-2": both}


def test_the_job_is_done_when_all_machines_are(way: str, bench: Bench) -> None:
    script = """
import os, pathlib, time
if os.environ["SM_CURRENT_HOST"] == "algo-2":
    print("up", flush=True)
    while not pathlib.Path("/opt/ml/input/data/code/go").exists():
        time.sleep(0.02)
"""
    name = bench.train("last", script, ResourceConfig=TWO)
    root = bench.cloud.home / "jobs" / name
    until(lambda: streams(bench, name), lambda seen: seen == {"algo-2": ["up"]})
    until(lambda: processes_of(bench.cloud.home), lambda left: len(left) == 2)  # algo-2's guard and command
    assert bench.call("DescribeTrainingJob", TrainingJobName=name)["TrainingJobStatus"] == "InProgress"
    (root / "algo-2" / "opt/ml/input/data/code/go").touch()
    assert bench.training_end(name)["TrainingJobStatus"] == "Completed"


def test_jobs_on_several_machines_take_turns_and_one_that_waits_can_be_stopped(way: str, bench: Bench) -> None:
    wait = "import time; print('up', flush=True); time.sleep(600)"
    first = bench.train("first", wait, ResourceConfig=TWO)
    until(lambda: streams(bench, first), lambda seen: len(seen) == 2)
    second = bench.train("second", wait, ResourceConfig=TWO)
    until((bench.cloud.home / "jobs" / second / "algo-2").exists, bool)
    waiting = bench.call("DescribeTrainingJob", TrainingJobName=second)
    assert (waiting["TrainingJobStatus"], waiting["SecondaryStatus"]) == ("InProgress", "Starting")
    bench.call("StopTrainingJob", TrainingJobName=second)
    assert bench.training_end(second)["TrainingJobStatus"] == "Stopped"
    assert streams(bench, second) == {}
    bench.call("StopTrainingJob", TrainingJobName=first)
    assert bench.training_end(first)["TrainingJobStatus"] == "Stopped"
    third = bench.train("third", "", ResourceConfig=TWO)
    assert bench.training_end(third)["TrainingJobStatus"] == "Completed"


def test_another_program_at_the_port_is_named(way: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_PORT_SECONDS", 0.2)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Jobs of other tests on this machine come and go there.
        deadline = time.monotonic() + 400
        while True:
            try:
                taken.bind(("", 7777))
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        taken.listen()
        job = bench.training_end(bench.train("busy", "", ResourceConfig=TWO))
    assert job["TrainingJobStatus"] == "Failed"
    assert "another program of this machine listens on port 7777" in job["FailureReason"]


def test_a_machine_that_cannot_start_ends_the_job(way: str, bench: Bench) -> None:
    script = "raise SystemExit(0 if __import__('os').environ['SM_CURRENT_HOST'] == 'algo-1' else 'rank 1 is gone')"
    job = bench.training_end(bench.train("gone", script, ResourceConfig=TWO))
    assert job["FailureReason"] == "AlgorithmError: rank 1 is gone, exit code: 1"


REFUSED = [
    ({**TWO, "InstanceCount": 5}, "InstanceCount is 5; .* from 1 to 4 .LOCALCLOUD_TRAINING_INSTANCES"),
    ({**TWO, "InstanceCount": 0}, "InstanceCount is 0"),
    ({"InstanceGroups": [{"InstanceType": "ml.m5.large", "InstanceCount": 2, "InstanceGroupName": "g"}],
      "VolumeSizeInGB": 1}, "InstanceGroups is not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("cluster", "message"), REFUSED)
def test_what_localcloud_has_no_machines_for_is_refused(
    way: str, bench: Bench, cluster: dict[str, Any], message: str
) -> None:
    with pytest.raises(AwsError, match=message):
        bench.train("refused", "", ResourceConfig=cluster)
