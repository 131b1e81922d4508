"""Training jobs as real processes: the container contract, ends of every kind, artifacts, logs and metrics."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from localcloud.errors import AwsError
from localcloud_jobs.conftest import IMAGE, Bench, channel, opt_ml, processes_of, until

GROUP = "/aws/sagemaker/TrainingJobs"

CONTRACT = """
import json, os, pathlib, sys
seen = {key: value for key, value in os.environ.items()}
train = pathlib.Path(os.environ["SM_CHANNEL_TRAIN"])
config = pathlib.Path("/opt/ml/input/config")
out = {
    "environ": seen, "argv": sys.argv[1:], "cwd": os.getcwd(),
    "files": sorted(str(path.relative_to(train)) for path in train.rglob("*") if path.is_file()),
    "hyperparameters": json.loads((config / "hyperparameters.json").read_text()),
    "channels": json.loads((config / "inputdataconfig.json").read_text()),
    "resources": json.loads((config / "resourceconfig.json").read_text()),
}
model = pathlib.Path(os.environ["SM_MODEL_DIR"])
(model / "code").mkdir()
(model / "code" / "inference.py").write_text("x = 1")
(model / "weights.bin").write_bytes(b"w" * 1000)
pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], "seen.json").write_text(json.dumps(out))
print("[train] step=1/2 train:loss=2.5")
print("[train] step=2/2 train:loss=1.25", flush=True)
print("[eval] validation:loss=nan", file=sys.stderr)
"""


def _open(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def test_a_training_job_runs_under_the_container_contract(
    way: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET_TOKEN", "hidden")
    bench.put("train-data/a.jsonl", "1")
    bench.put("train-data/sub/b.jsonl", "2")
    name = bench.train(
        "contract",
        CONTRACT,
        InputDataConfig=[channel("train", "s3://data/train-data/")],
        HyperParameters={"epochs": "3", "learning-rate": "0.001", "text": "/opt/ml/model"},
        Environment={"WHERE": "/opt/ml/checkpoints", "URI": "s3://b/opt/ml/x"},
        Tags=[{"Key": "team", "Value": "x"}],
        AlgorithmSpecification={
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/train.py"],
            "ContainerArguments": ["--out", "/opt/ml/model"],
            "MetricDefinitions": [
                {"Name": "train:loss", "Regex": r"train:loss=([0-9.]+)"},
                {"Name": "never", "Regex": r"never=([0-9.]+)"},
            ],
        },
    )
    job = bench.training_end(name)
    assert job["TrainingJobStatus"] == "Completed", job
    assert job["SecondaryStatus"] == "Completed"
    phases = [step["Status"] for step in job["SecondaryStatusTransitions"]]
    assert phases == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all("EndTime" in step for step in job["SecondaryStatusTransitions"])
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == "s3://data/training/contract/output/model.tar.gz"
    assert job["BillableTimeInSeconds"] >= 1
    assert job["TrainingTimeInSeconds"] >= 1
    assert [(item["MetricName"], item["Value"]) for item in job["FinalMetricDataList"]] == [("train:loss", 1.25)]
    assert bench.delegate.metrics[-1] == (GROUP, "train:loss", 1.25, {"TrainingJobName": "contract"})

    model = _open(bench.object("training/contract/output/model.tar.gz"))
    assert model == {"code/inference.py": b"x = 1", "weights.bin": b"w" * 1000}
    seen = json.loads(_open(bench.object("training/contract/output/output.tar.gz"))["seen.json"])
    environ: dict[str, str] = seen["environ"]
    root = opt_ml(bench, "contract", way)
    assert environ["SM_MODEL_DIR"] == f"{root}/model"
    assert environ["SM_CHANNEL_TRAIN"] == f"{root}/input/data/train"
    assert environ["WHERE"] == f"{root}/checkpoints"
    assert environ["URI"] == "s3://b/opt/ml/x"
    assert environ["SM_HP_LEARNING_RATE"] == "0.001"
    assert json.loads(environ["SM_HPS"]) == {"epochs": 3, "learning-rate": 0.001, "text": f"{root}/model"}
    assert environ["SM_CURRENT_HOST"] == "algo-1"
    assert json.loads(environ["SM_HOSTS"]) == ["algo-1"]
    assert environ["TRAINING_JOB_NAME"] == "contract"
    assert environ["TRAINING_JOB_ARN"].endswith(":training-job/contract")
    assert environ["AWS_ENDPOINT_URL"] == bench.cloud.url
    key = bench.cloud.keys.role(bench.ctx.account, f"arn:aws:iam::{bench.ctx.account}:role/job")
    assert (environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"]) == (key.access_key, key.secret)
    assert environ["AWS_SESSION_TOKEN"] == key.token
    assert (key.account, key.arn) == (bench.ctx.account, f"arn:aws:sts::{bench.ctx.account}:assumed-role/job/SageMaker")
    assert "MY_SECRET_TOKEN" not in environ
    assert seen["argv"] == ["--out", f"{root}/model"]
    assert seen["files"] == ["a.jsonl", "sub/b.jsonl"]
    assert seen["hyperparameters"]["epochs"] == "3"
    assert seen["channels"]["train"]["TrainingInputMode"] == "File"
    assert seen["resources"]["hosts"] == ["algo-1"]
    assert bench.log(GROUP, "contract")[-3:] != []
    assert "[train] step=1/2 train:loss=2.5" in bench.log(GROUP, "contract")
    until((bench.cloud.home / "jobs" / "contract").exists, lambda there: not there)
    listed = bench.call("ListTrainingJobs", StatusEquals="Completed", NameContains="ontr")
    assert [item["TrainingJobName"] for item in listed["TrainingJobSummaries"]] == ["contract"]
    assert bench.call("ListTags", ResourceArn=job["TrainingJobArn"])["Tags"] == [{"Key": "team", "Value": "x"}]


def test_a_fast_file_channel_is_read_as_files(bench: Bench) -> None:
    bench.put("train-data/a.jsonl", "one")
    script = (
        "import json, os\nfolder = os.environ['SM_CHANNEL_TRAIN']\n"
        "modes = json.load(open('/opt/ml/input/config/inputdataconfig.json'))\n"
        "assert open(folder + '/a.jsonl').read() == 'one'\n"
        "assert modes['train']['TrainingInputMode'] == 'FastFile'\n"
    )
    channels = [channel("train", "s3://data/train-data/", InputMode="FastFile")]
    job = bench.training_end(bench.train("fast", script, InputDataConfig=channels))
    assert job["TrainingJobStatus"] == "Completed", job


FAILS = [
    ("import os; open(os.environ['SM_OUTPUT_DIR'] + '/failure', 'w').write('no rows'); raise SystemExit(3)",
     "AlgorithmError: no rows, exit code: 3"),
    ("raise ValueError('bad learning rate')", "ValueError: bad learning rate, exit code: 1"),
    ("import ctypes; ctypes.string_at(0)", "exit code: 139"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "reason"), FAILS)
def test_a_failing_script_says_why(bench: Bench, script: str, reason: str) -> None:
    job = bench.training_end(bench.train("fails", script))
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Failed"
    assert job["FailureReason"].startswith("AlgorithmError: ")
    assert reason in job["FailureReason"]
    assert (bench.cloud.home / "jobs" / "fails" / "output.log").exists() == ("ValueError" in reason)


def test_a_command_that_is_not_there_fails_the_job(bench: Bench) -> None:
    specification = {"TrainingImage": IMAGE, "TrainingInputMode": "File", "ContainerEntrypoint": ["no-such-command"]}
    job = bench.training_end(bench.train("absent", "", AlgorithmSpecification=specification))
    assert "no-such-command: No such file or directory, exit code: 127" in job["FailureReason"]


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("not yet", flush=True))
open("/opt/ml/model/partial.txt", "w").write("so far")
stray = "import os,time; os.setsid(); print('pid', os.getpid(), flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", stray])
print("up", flush=True)
while True:
    time.sleep(0.05)
"""


def test_stop_ends_a_stubborn_job_and_all_that_it_started(way: str, bench: Bench) -> None:
    name = bench.train("stubborn", STUBBORN)
    lines = until(
        lambda: bench.log(GROUP, name), lambda log: "up" in log and any(line.startswith("pid") for line in log)
    )
    assert lines.count("up") == 1
    assert len(processes_of(bench.cloud.home)) == 3, "the guard, the job and its stray"
    bench.call("StopTrainingJob", TrainingJobName=name)
    assert bench.call("DescribeTrainingJob", TrainingJobName=name)["TrainingJobStatus"] in ("Stopping", "Stopped")
    job = bench.training_end(name)
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Stopped"
    assert "not yet" in bench.log(GROUP, name)
    assert processes_of(bench.cloud.home) == []
    assert _open(bench.object(f"training/{name}/output/model.tar.gz")) == {"partial.txt": b"so far"}
    with pytest.raises(AwsError, match="is in status Stopped"):
        bench.call("StopTrainingJob", TrainingJobName=name)


SAVING = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(0.3)
    pathlib.Path("/opt/ml/model/saved.txt").write_text("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("up", flush=True)
while True:
    time.sleep(0.05)
"""


# SIGTERM goes to the container's first process alone, and the kernel keeps it from one without a handler.
SHELLS = [
    ("exec python /opt/ml/input/data/code/train.py; echo after", {"saved.txt": b"saved"}),
    ("trap 'kill $!; wait $!' TERM; python /opt/ml/input/data/code/train.py & wait $!", {"saved.txt": b"saved"}),
    ("python /opt/ml/input/data/code/train.py; echo after", {}),
]


@pytest.mark.parametrize(("command", "saved"), SHELLS)
def test_a_program_behind_a_shell_saves_only_if_the_shell_lets_it(
    way: str, bench: Bench, monkeypatch: pytest.MonkeyPatch, command: str, saved: dict[str, bytes]
) -> None:
    monkeypatch.setenv("LOCALCLOUD_STOP_GRACE_SECONDS", "20" if saved else "1")
    specification = {
        "TrainingImage": IMAGE,
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["/bin/bash"],
        "ContainerArguments": ["-c", command],
    }
    name = bench.train("shell", SAVING, AlgorithmSpecification=specification)
    until(lambda: bench.log(GROUP, name), lambda log: log == ["up"])
    bench.call("StopTrainingJob", TrainingJobName=name)
    assert bench.training_end(name)["TrainingJobStatus"] == "Stopped"
    archive = bench.object(f"training/{name}/output/model.tar.gz")
    assert (_open(archive) if archive.exists() else {}) == saved


def test_a_job_over_its_time_is_stopped(bench: Bench) -> None:
    name = bench.train("slow", "import time; time.sleep(600)", StoppingCondition={"MaxRuntimeInSeconds": 1})
    job = bench.training_end(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_network_isolation_takes_the_credentials_away(bench: Bench) -> None:
    script = "import os; print(sorted(k for k in os.environ if k.startswith('AWS')), os.environ['HF_HUB_OFFLINE'])"
    job = bench.training_end(bench.train("isolated", script, EnableNetworkIsolation=True))
    assert job["TrainingJobStatus"] == "Completed"
    assert "['AWS_DEFAULT_REGION', 'AWS_REGION'] 1" in bench.log(GROUP, "isolated")


def test_uncompressed_output_and_the_output_of_a_failed_job(bench: Bench) -> None:
    script = """
import pathlib
pathlib.Path("/opt/ml/model/a.txt").write_text("a")
pathlib.Path("/opt/ml/output/data/log.txt").write_text("l")
raise SystemExit(%d)
"""
    plain = {"S3OutputPath": "s3://data/training/", "CompressionType": "NONE"}
    job = bench.training_end(bench.train("plain", script % 0, OutputDataConfig=plain))
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == "s3://data/training/plain/output/model/"
    assert bench.object("training/plain/output/model/a.txt").read_text() == "a"
    bench.training_end(bench.train("broken", script % 1))
    assert bench.object("training/broken/output/output.tar.gz").is_file()
    assert not bench.object("training/broken/output/model.tar.gz").exists()


def test_the_toolkits_way_with_a_source_archive(way: str, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "sibling.py").write_text("WORD = 'sibling'")
    (tmp_path / "go.py").write_text("import sibling, sys, os; print(sibling.WORD, sys.argv[1:], os.getcwd())")
    with tarfile.open(tmp_path / "src.tar.gz", "w:gz") as tar:
        for name in ("sibling.py", "go.py"):
            tar.add(tmp_path / name, name)
    uri = bench.put("src.tar.gz", (tmp_path / "src.tar.gz").read_bytes())
    name = bench.train(
        "toolkit",
        "",
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        HyperParameters={"sagemaker_program": '"go.py"', "sagemaker_submit_directory": f'"{uri}"', "epochs": "2"},
    )
    job = bench.training_end(name)
    assert job["TrainingJobStatus"] == "Completed", job
    assert f"sibling ['--epochs', '2'] {opt_ml(bench, name, way)}/code" in bench.log(GROUP, name)


def test_a_home_with_a_space_and_quotes_still_works(tmp_path: Path) -> None:
    from localcloud.context import Context
    from localcloud.server import end
    from localcloud_jobs.conftest import ACCOUNT, REGION, open_cloud

    cloud = open_cloud(tmp_path / "my 'home'")
    bench = Bench(Context(ACCOUNT, REGION, cloud), cloud.delegate)  # type: ignore[arg-type]
    try:
        specification = {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": [
                "/bin/sh",
                "-c",
                "ls /opt/ml/input/data/code/train.py && cp /opt/ml/input/config/*.json /opt/ml/model",
            ],
        }
        job = bench.training_end(bench.train("spaced", "", AlgorithmSpecification=specification))
        assert job["TrainingJobStatus"] == "Completed", job
        assert "hyperparameters.json" in _open(bench.object("training/spaced/output/model.tar.gz"))
    finally:
        end(cloud)
        cloud.store.close()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"ResourceConfig": {"InstanceType": "ml.g5.2xlarge", "InstanceCount": 5, "VolumeSizeInGB": 1}}, "from 1 to 4"),
    ({"InputDataConfig": [channel("x", "s3://data/x", InputMode="Pipe")]}, "input mode Pipe"),
    ({"CheckpointConfig": {"S3Uri": "s3://data/c", "LocalPath": "/var/c"}}, "must be in /opt/ml"),
    ({"EnableManagedSpotTraining": True}, "Invalid MaxWaitTimeInSeconds"),
    ({"AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"}}, "no container images"),
    ({"AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File", "ContainerEntrypoint": ["x"],
                                 "MetricDefinitions": [{"Name": "m", "Regex": "loss=(["}]}}, "invalid regex"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_run_is_refused_by_name(bench: Bench, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AwsError, match=message) as raised:
        bench.train("refused", "", **changes)
    assert raised.value.code == "ValidationException"
    with pytest.raises(AwsError, match="Requested resource not found"):
        bench.call("DescribeTrainingJob", TrainingJobName="refused")


def test_a_name_is_taken_once_in_whatever_case(bench: Bench) -> None:
    bench.training_end(bench.train("twice", ""))
    for name in ("twice", "Twice"):
        with pytest.raises(AwsError) as raised:
            bench.train(name, "")
        assert raised.value.code == "ResourceInUse"


def test_a_channel_that_is_no_s3_uri_is_refused(bench: Bench) -> None:
    with pytest.raises(AwsError, match=r"ValidationException: 'https://data/x' is not an S3 URI"):
        bench.train("elsewhere", "", InputDataConfig=[channel("train", "https://data/x")])


@pytest.mark.parametrize("uri", ["s3://data/nothing/", "s3://there-is-none/x"])
def test_a_channel_with_nothing_in_it_is_refused_before_a_machine_starts(bench: Bench, uri: str) -> None:
    with pytest.raises(AwsError) as raised:
        bench.train("empty", "", InputDataConfig=[channel("train", uri)])
    assert raised.value.code == "ValidationException"
    assert raised.value.message.startswith(f'No S3 objects found under S3 URL "{uri}" given in input data source.')
    with pytest.raises(AwsError, match="Requested resource not found"):
        bench.call("DescribeTrainingJob", TrainingJobName="empty")


def test_only_so_many_jobs_run_at_once_and_a_waiting_one_can_be_stopped(bench: Bench) -> None:
    wait = "import time; print('up', flush=True); time.sleep(600)"
    names = [bench.train(f"wait-{number}", wait) for number in range(3)]
    until(lambda: [bench.log(GROUP, name) for name in names[:2]], lambda logs: logs == [["up"], ["up"]])
    waiting = bench.call("DescribeTrainingJob", TrainingJobName=names[2])
    assert (waiting["TrainingJobStatus"], waiting["SecondaryStatus"]) == ("InProgress", "Starting")
    for name in reversed(names):
        bench.call("StopTrainingJob", TrainingJobName=name)
    assert {bench.training_end(name)["TrainingJobStatus"] for name in names} == {"Stopped"}
    assert bench.log(GROUP, names[2]) == []
