"""Processing jobs as real processes: inputs, outputs, messages, ends of every kind."""

from __future__ import annotations

import errno
import json
import time
from typing import Any

import pytest

from localcloud.errors import AwsError
from localcloud_jobs.conftest import IMAGE, Bench, opt_ml, s3_input, s3_output, until

GROUP = "/aws/sagemaker/ProcessingJobs"
OUTPUT = "/opt/ml/processing/output"

COPY = """
import json, os, pathlib, sys
source, target = map(pathlib.Path, sys.argv[1:3])
config = pathlib.Path("/opt/ml/config")
seen = {
    "files": sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()),
    "job": json.loads((config / "processingjobconfig.json").read_text()),
    "resources": json.loads((config / "resourceconfig.json").read_text()),
    "environ": dict(os.environ),
}
(target / "sub").mkdir(parents=True)
(target / "sub" / "seen.json").write_text(json.dumps(seen))
(target / "data.csv").write_text((source / "a.csv").read_text())
pathlib.Path("/opt/ml/output/message").write_text("12 rows")
print("copied")
"""


def application(*arguments: str, entrypoint: list[str] | None = None) -> dict[str, Any]:
    return {
        "ImageUri": IMAGE,
        "ContainerEntrypoint": entrypoint or ["python3", "/opt/ml/processing/input/code/process.py"],
        **({"ContainerArguments": list(arguments)} if arguments else {}),
    }


def test_a_processing_job_reads_runs_and_writes(way: str, bench: Bench) -> None:
    bench.put("in/a.csv", "x,/opt/ml/model\n")
    bench.put("in/deep/b.csv", "2")
    bench.put("in-other/c.csv", "not an input")
    name = bench.process(
        "copy",
        COPY,
        AppSpecification=application("/opt/ml/processing/input/data", OUTPUT),
        ProcessingInputs=[s3_input("data", "s3://data/in/", "/opt/ml/processing/input/data")],
        ProcessingOutputConfig={"Outputs": [s3_output("out", "s3://data/out/", OUTPUT)]},
        Environment={"WHERE": "/opt/ml/processing"},
    )
    job = bench.processing_end(name)
    assert job["ProcessingJobStatus"] == "Completed", job
    assert job["ExitMessage"] == "12 rows"
    assert job["CreationTime"] <= job["ProcessingStartTime"] <= job["ProcessingEndTime"]
    assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    # Data stays byte for byte; only code is mapped.
    assert bench.object("out/data.csv").read_text() == "x,/opt/ml/model\n"
    seen = json.loads(bench.object("out/sub/seen.json").read_text())
    root = opt_ml(bench, name, way)
    assert seen["files"] == ["a.csv", "deep/b.csv"]
    assert seen["environ"]["WHERE"] == f"{root}/processing"
    assert seen["job"]["ProcessingJobName"] == name
    assert seen["resources"]["current_host"] == "algo-1"
    assert bench.log(GROUP, name) == ["copied"]
    listed = bench.call("ListProcessingJobs", SortBy="Name", MaxResults=5)
    assert [item["ProcessingJobName"] for item in listed["ProcessingJobSummaries"]] == [name]
    events = until(lambda: list(bench.delegate.events), lambda found: len(found) >= 2)
    assert [(kind, detail["ProcessingJobStatus"]) for kind, detail in events] == [
        ("SageMaker Processing Job State Change", "InProgress"),
        ("SageMaker Processing Job State Change", "Completed"),
    ]


def test_a_failed_job_keeps_only_what_it_wrote_continuously(bench: Bench) -> None:
    script = """
import pathlib, sys
for name in ("end", "live"):
    pathlib.Path("/opt/ml/processing", name, "r.txt").write_text(name)
pathlib.Path("/opt/ml/output/message").write_text("bad rows")
sys.exit("too many rows rejected")
"""
    outputs = [
        s3_output("end", "s3://data/out/end", "/opt/ml/processing/end"),
        s3_output("live", "s3://data/out/live", "/opt/ml/processing/live", "Continuous"),
    ]
    job = bench.processing_end(bench.process("partial", script, ProcessingOutputConfig={"Outputs": outputs}))
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: too many rows rejected, exit code: 1"
    assert job["ExitMessage"] == "bad rows"
    assert bench.object("out/live/r.txt").read_text() == "live"
    assert not bench.object("out/end").exists()


def test_a_shell_entrypoint_and_a_single_object_input(bench: Bench) -> None:
    bench.put(
        "scripts/run.sh", "set -e\ncd /opt/ml/processing/input/entrypoint && ls && cat ../one/b.txt && python -V\n"
    )
    bench.put("many/b.txt", "just me\n")
    name = bench.process(
        "shell",
        "",
        AppSpecification=application(entrypoint=["/bin/bash", "/opt/ml/processing/input/entrypoint/run.sh"]),
        ProcessingInputs=[
            s3_input("entrypoint", "s3://data/scripts/run.sh", "/opt/ml/processing/input/entrypoint"),
            s3_input("one", "s3://data/many/b.txt", "/opt/ml/processing/input/one"),
        ],
    )
    assert bench.processing_end(name)["ProcessingJobStatus"] == "Completed"
    log = bench.log(GROUP, name)
    assert log[:2] == ["run.sh", "just me"]
    assert log[2].startswith("Python 3.")


def test_stop_and_the_time_limit(bench: Bench) -> None:
    wait = "import time; print('up', flush=True); time.sleep(600)"
    name = bench.process("stopped", wait)
    until(lambda: bench.log(GROUP, name), lambda log: log == ["up"])
    bench.call("StopProcessingJob", ProcessingJobName=name)
    assert bench.processing_end(name)["ProcessingJobStatus"] == "Stopped"
    limited = bench.process("limited", wait, StoppingCondition={"MaxRuntimeInSeconds": 1})
    job = bench.processing_end(limited)
    assert job["ProcessingJobStatus"] == "Stopped"
    assert job["FailureReason"].startswith("MaxRuntimeExceeded")


def test_the_last_failures_are_kept_to_look_into(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from localcloud.jobs.supervisor import supervisor

    kept = supervisor(bench.cloud).settings.kept_failures
    for number in range(kept + 2):
        bench.processing_end(bench.process(f"fail-{number}", "raise SystemExit(1)"))
        time.sleep(0.01)
    jobs = bench.cloud.home / "jobs"
    wanted = {f"fail-{number}" for number in range(2, kept + 2)}
    until(lambda: {path.name for path in jobs.iterdir()}, lambda names: names == wanted)


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"ProcessingResources": {
            "ClusterConfig": {"InstanceCount": 2, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}}},
        "localcloud runs one instance",
    ),
    ({"AppSpecification": {"ImageUri": IMAGE}}, "no container images"),
    ({"ProcessingInputs": [s3_input("x", "s3://data/x", "/data")]}, "must begin with /opt/ml/processing/"),
    (
        {"ProcessingInputs": [s3_input(str(n), "s3://data/x", f"/opt/ml/processing/{n}") for n in range(10)]},
        "less than or equal to 10",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_cannot_run_is_refused_by_name(bench: Bench, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AwsError, match=message) as raised:
        bench.process("refused", "", **changes)
    assert raised.value.code == "ValidationException"


def test_a_name_is_taken_once_and_an_absent_job_is_not_found(bench: Bench) -> None:
    bench.processing_end(bench.process("twice", ""))
    with pytest.raises(AwsError) as raised:
        bench.process("twice", "")
    assert raised.value.code == "ResourceInUse"
    for operation in ("DescribeProcessingJob", "StopProcessingJob"):
        with pytest.raises(AwsError, match="Requested resource not found") as raised:
            bench.call(operation, ProcessingJobName="absent")
        assert raised.value.code == "ValidationException"


def test_a_full_disk_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    # A full disk can't be had without privileges.
    monkeypatch.setattr("localcloud.jobs.transfer.shutil.copyfile", full)
    job = bench.processing_end(bench.process("full", ""))
    assert job["FailureReason"].startswith("InternalServerError: No space left on the disk that holds ")


def test_an_error_of_localcloud_itself_ends_the_job(bench: Bench) -> None:
    (bench.cloud.home / "jobs").write_text("a file where the directories should go")
    job = bench.processing_end(bench.process("blocked", ""))
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("InternalServerError: ")
