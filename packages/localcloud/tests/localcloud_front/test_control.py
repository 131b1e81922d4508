"""Up, down, status: with real processes, killed ones among them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from localcloud import LocalCloud, control
from localcloud.home import ControlError, prepare_home
from localcloud_front.conftest import TRUST, Clients, free_port, function, invoke


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    control.down(tmp_path / "home")


def kill(info: control.Info) -> None:
    os.kill(info.pid, signal.SIGKILL)
    while psutil.pid_exists(info.pid) and psutil.Process(info.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)


def test_up_is_idempotent_and_down_leaves_nothing(home: Path) -> None:
    info = control.up(home, free_port())
    state = json.loads((home / "localcloud.json").read_text())
    assert state == {"url": info.url, "pid": info.pid, "port": info.port}
    assert control.up(home) == info == control.status(home)
    with pytest.raises(ControlError, match="already"):
        control.up(home, free_port())
    assert control.down(home) is True
    assert not psutil.pid_exists(info.pid)
    assert control.status(home) is None
    assert not (home / "localcloud.json").exists()
    assert control.down(home) is False
    again = control.up(home, info.port)
    assert again.pid != info.pid


def test_everything_survives_kill_9(home: Path) -> None:
    info = control.up(home, free_port())
    aws = Clients(info)
    aws("s3").create_bucket(Bucket="kept-bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    aws("s3").put_object(Bucket="kept-bucket", Key="k", Body=b"data")
    upload = aws("s3").create_multipart_upload(Bucket="kept-bucket", Key="m")["UploadId"]
    tag = aws("s3").upload_part(Bucket="kept-bucket", Key="m", UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
    aws("iam").create_role(RoleName="kept-role", AssumeRolePolicyDocument=TRUST)
    aws("kms").create_alias(AliasName="alias/kept", TargetKeyId=aws("kms").create_key()["KeyMetadata"]["KeyId"])
    aws("sqs").create_queue(QueueName="kept-queue")
    aws("events").put_rule(Name="kept-rule", EventPattern='{"source":["x"]}')
    aws("sagemaker").create_model_package_group(ModelPackageGroupName="kept-group")
    kill(info)  # right after the last answer: what was answered is kept
    assert control.status(home) is None
    control.up(home, info.port)
    assert aws("s3").get_object(Bucket="kept-bucket", Key="k")["Body"].read() == b"data"
    parts = {"Parts": [{"PartNumber": 1, "ETag": tag}]}
    aws("s3").complete_multipart_upload(Bucket="kept-bucket", Key="m", UploadId=upload, MultipartUpload=parts)
    assert aws("s3").get_object(Bucket="kept-bucket", Key="m")["Body"].read() == b"part"
    assert aws("iam").get_role(RoleName="kept-role")["Role"]["RoleName"] == "kept-role"
    assert "alias/kept" in [alias["AliasName"] for alias in aws("kms").list_aliases()["Aliases"]]
    assert len(aws("sqs").list_queues()["QueueUrls"]) == 1
    assert [rule["Name"] for rule in aws("events").list_rules()["Rules"]] == ["kept-rule"]
    groups = aws("sagemaker").list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert [group["ModelPackageGroupName"] for group in groups] == ["kept-group"]
    aws.close()


def test_logs_and_stacks_survive_kill_9_after_a_checkpoint(home: Path) -> None:
    info = control.up(home, free_port())
    aws = Clients(info)
    logs = aws("logs")
    logs.create_log_group(logGroupName="/g")
    logs.create_log_stream(logGroupName="/g", logStreamName="s")
    event = {"timestamp": int(time.time() * 1000), "message": "kept line"}
    logs.put_log_events(logGroupName="/g", logStreamName="s", logEvents=[event])
    body = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "kept-topic"}}}})
    aws("cloudformation").create_stack(StackName="kept", TemplateBody=body)
    saved = home / "ministack" / "cloudwatch_logs.json"
    stacks = home / "ministack" / "cloudformation.json"
    for _ in range(200):
        if "kept line" in saved.read_text() and "CREATE_COMPLETE" in stacks.read_text():
            break
        time.sleep(0.05)
    kill(info)
    control.up(home, info.port)
    assert aws("logs").filter_log_events(logGroupName="/g")["events"][0]["message"] == "kept line"
    assert aws("cloudformation").describe_stacks(StackName="kept")["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    aws.close()


def test_a_state_file_whose_process_is_another_one_is_stale(home: Path) -> None:
    home.mkdir()
    control.write_state(home, control.Info("http://127.0.0.1:9", os.getpid(), 9))
    assert control.status(home) is None
    (home / "localcloud.json").write_text("{")
    assert control.status(home) is None
    assert control.down(home) is False


def test_another_homes_cloud_on_that_port_is_not_ours(home: Path, tmp_path: Path) -> None:
    info = control.up(home, free_port())
    other = tmp_path / "other"
    other.mkdir()
    control.write_state(other, info)
    assert control.status(other) is None
    assert control.down(other) is False
    assert control.status(home) == info


def test_a_port_in_use_is_one_readable_line(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ControlError, match=f"port {port} on 127.0.0.1 can't be used .*another port"):
            control.up(home, port)
        command = [sys.executable, "-m", "localcloud", "--home", str(home), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.startswith("localcloud: port ")
    assert done.stderr.count("\n") == 1


def test_a_home_that_can_not_be_written_is_one_readable_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ControlError, match="can't be written to"):
        control.up(file / "home")


def test_a_home_that_it_makes_is_ignored_by_git(tmp_path: Path) -> None:
    made, there = prepare_home(tmp_path / "a" / "made"), tmp_path / "there"
    there.mkdir()
    assert (made / ".gitignore").read_text().splitlines()[-1] == "*"
    assert list(prepare_home(there).iterdir()) == []


def test_two_processes_do_not_serve_one_home(home: Path) -> None:
    control.up(home, free_port())
    command = [sys.executable, "-m", "localcloud", "--home", str(home), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, "another localcloud is running in" in done.stderr) == (1, True)


def test_who_starts_it_at_the_same_time_gets_the_same_one(home: Path) -> None:
    with ThreadPoolExecutor(3) as threads:
        found = [threads.submit(control.up, home) for _ in range(3)]
        assert len({one.result() for one in found}) == 1


def test_a_start_that_fails_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLOUD_SCALING_SECONDS", "often")
    with pytest.raises(ControlError, match=r"at start \(exit code 1\): LOCALCLOUD_SCALING_SECONDS='often' is not"):
        control.up(home)


def test_it_ends_with_the_process_it_was_told_to_follow(home: Path) -> None:
    parent = subprocess.Popen(["sleep", "60"])
    command = [sys.executable, "-m", "localcloud", "--home", str(home), "--port", "0", "--parent", str(parent.pid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("http://127.0.0.1:")
        parent.kill()
        parent.wait()
        assert child.wait(timeout=300) == 0
    assert control.status(home) is None


def test_the_environment_names_the_process_to_follow(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = subprocess.Popen(["sleep", "60"])
    monkeypatch.setenv("LOCALCLOUD_PARENT", str(parent.pid))
    info = control.up(home, free_port())
    parent.kill()
    parent.wait()
    psutil.Process(info.pid).wait(timeout=300)
    assert control.status(home) is None


def test_ctrl_c_ends_it_quietly(home: Path) -> None:
    command = [sys.executable, "-m", "localcloud", "--home", str(home), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=300) == 0
        assert child.stderr.read() == ""


def test_in_process_it_starts_again_on_its_home_and_apart_on_another(tmp_path: Path) -> None:
    with LocalCloud(tmp_path / "one") as cloud:
        aws = Clients(cloud)
        aws("s3").create_bucket(Bucket="one-bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        aws("sqs").create_queue(QueueName="one")
        assert control.status(tmp_path / "one") is not None
        with pytest.raises(ControlError, match="already runs in this process"):
            LocalCloud(tmp_path / "two").start()
        aws.close()
    with LocalCloud(tmp_path / "two") as cloud:
        aws = Clients(cloud)
        assert aws("s3").list_buckets()["Buckets"] == []
        assert aws("sqs").list_queues().get("QueueUrls", []) == []
        with pytest.raises(ClientError):
            aws("s3").head_bucket(Bucket="one-bucket")
        aws.close()
    with LocalCloud(tmp_path / "one") as cloud:
        aws = Clients(cloud)
        assert [item["Name"] for item in aws("s3").list_buckets()["Buckets"]] == ["one-bucket"]
        assert len(aws("sqs").list_queues()["QueueUrls"]) == 1
        aws.close()


def test_stopping_runs_what_was_registered_last_first(tmp_path: Path) -> None:
    ended: list[str] = []

    def broken() -> None:
        raise RuntimeError("never mind")

    with LocalCloud(tmp_path / "home") as cloud:
        cloud.cloud.on_stop += [lambda: ended.append("first"), broken, lambda: ended.append("last")]
    assert ended == ["last", "first"]
    assert "DOCKER_HOST" not in os.environ


def test_functions_processes_and_files_end_with_the_cloud(tmp_path: Path) -> None:
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    with LocalCloud(tmp_path / "home") as cloud:
        aws = Clients(cloud)
        arn = function(aws, "import os\ndef handler(event, context):\n    return os.environ['LAMBDA_TASK_ROOT']")
        folder = Path(invoke((cloud, aws), arn, {})[0])
        assert folder.exists()
        assert {child.pid for child in me.children(recursive=True)} - before
        aws.close()
    assert not {child.pid for child in me.children(recursive=True)} - before
    assert not folder.exists()
