"""A disk that takes no more: what is answered as kept is kept, what isn't is refused, and objects can be deleted.

The disk is a small tmpfs where the tests may mount one (as root). Elsewhere the kernel keeps localcloud from making
files any longer (RLIMIT_FSIZE), which its writes meet in the same places.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud import control
from localcloud.home import ControlError
from localcloud.s3.objects import ObjectStore
from localcloud_front.conftest import REGION, TRUST, Clients, free_port, function

_MOUNTED_BYTES = 24 << 20
_LIMIT = 192 << 10
"""Bytes of a file, where there is no disk to fill: more than a deletion writes, less than an upload."""


class Disk:
    """A directory that can be filled."""

    def __init__(self, root: Path, mounted: bool) -> None:
        self.root, self.mounted = root, mounted

    @contextlib.contextmanager
    def full(self, limit: int, *pids: int) -> Iterator[None]:
        """Nothing goes on it. Without a mount: these processes make no file longer than `limit` bytes."""
        if self.mounted:
            ballast = self.root / "filled"
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            yield
            ballast.unlink()
            return
        before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
        for pid, (_, hard) in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, hard))
        try:
            yield
        finally:
            for pid, values in before.items():
                resource.prlimit(pid, resource.RLIMIT_FSIZE, values)


@pytest.fixture(params=["disk", "limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    root = tmp_path / "disk"
    root.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_MOUNTED_BYTES},mode=0700", "tmpfs", str(root)]
    may = request.param == "disk" and os.geteuid() == 0
    mounted = may and subprocess.run(command, capture_output=True, check=False).returncode == 0
    yield Disk(root, mounted)
    if mounted:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


@pytest.fixture
def running(disk: Disk) -> Iterator[control.Info]:
    home = disk.root / "home"
    info = control.up(home, free_port(), parent=os.getpid())
    yield info
    control.down(home)


def refused(call: Callable[[], Any]) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call()
    found: dict[str, Any] = caught.value.response
    return found


def test_what_can_not_be_kept_is_refused_and_what_was_kept_stays(
    disk: Disk, running: control.Info, aws: Clients
) -> None:
    iam, s3, sqs, sagemaker = aws("iam"), aws("s3"), aws("sqs"), aws("sagemaker")
    iam.create_role(RoleName="kept", AssumeRolePolicyDocument=TRUST)
    here = {"CreateBucketConfiguration": {"LocationConstraint": REGION}}
    s3.create_bucket(Bucket="kept", **here)
    writes: dict[str, Callable[[], Any]] = {
        "CreateRole": lambda: iam.create_role(RoleName="lost", AssumeRolePolicyDocument=TRUST),
        "CreateBucket": lambda: s3.create_bucket(Bucket="lost", **here),
        "CreateQueue": lambda: sqs.create_queue(QueueName="lost"),
        "CreateLogGroup": lambda: aws("logs").create_log_group(logGroupName="lost"),
        "PutRule": lambda: aws("events").put_rule(Name="lost", EventPattern='{"source": ["a"]}'),
        "CreateFunction": lambda: function(aws),
        "PutObject": lambda: s3.put_object(Bucket="kept", Key="lost", Body=bytes(1 << 20)),
        "CreateModelPackageGroup": lambda: sagemaker.create_model_package_group(ModelPackageGroupName="lost"),
    }
    with disk.full(1, running.pid):
        for name, write in writes.items():
            found = refused(write)
            assert found["Error"]["Code"] == "InsufficientStorage", (name, found)
            assert "free some space" in found["Error"]["Message"], name
            assert found["ResponseMetadata"]["HTTPStatusCode"] == 507, name
        assert sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"] == []
    os.kill(running.pid, 9)
    control.down(disk.root / "home")
    again = control.up(disk.root / "home", free_port(), parent=os.getpid())
    after = Clients(again)
    assert [role["RoleName"] for role in after("iam").list_roles()["Roles"]] == ["kept"]
    assert [bucket["Name"] for bucket in after("s3").list_buckets()["Buckets"]] == ["kept"]
    after("iam").create_role(RoleName="lost", AssumeRolePolicyDocument=TRUST)
    after.close()


def test_objects_can_be_deleted_from_a_full_disk(disk: Disk, running: control.Info, aws: Clients) -> None:
    s3 = aws("s3")
    s3.create_bucket(Bucket="bbb", CreateBucketConfiguration={"LocationConstraint": REGION})
    for number in range(12):
        s3.put_object(Bucket="bbb", Key=f"k{number}", Body=bytes(400_000))
    upload = s3.create_multipart_upload(Bucket="bbb", Key="m")["UploadId"]
    s3.upload_part(Bucket="bbb", Key="m", UploadId=upload, PartNumber=1, Body=bytes(400_000))
    with disk.full(_LIMIT, running.pid):
        assert refused(lambda: s3.put_object(Bucket="bbb", Key="new", Body=bytes(400_000)))["Error"]["Code"]
        s3.abort_multipart_upload(Bucket="bbb", Key="m", UploadId=upload)
        for number in range(6):
            s3.delete_object(Bucket="bbb", Key=f"k{number}")
        gone = s3.delete_objects(Bucket="bbb", Delete={"Objects": [{"Key": f"k{number}"} for number in range(6, 11)]})
        assert (len(gone["Deleted"]), gone.get("Errors", [])) == (5, [])
        assert [item["Key"] for item in s3.list_objects_v2(Bucket="bbb")["Contents"]] == ["k11"]
        if disk.mounted:
            s3.put_object(Bucket="bbb", Key="new", Body=bytes(400_000))


def test_a_deletion_that_fits_nowhere_takes_the_ballast(tmp_path: Path) -> None:
    (tmp_path / "s3").mkdir()
    store = ObjectStore(tmp_path / "s3")
    for number in range(50):
        path = store.new_file()
        path.write_bytes(b"data")
        store.put("b", f"k{number}", path, "etag", {}, None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "s3" / "index.sqlite-wal").stat().st_size, hard))
    try:
        for number in range(50):
            store.delete("b", f"k{number}", None, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.is_empty("b")
    assert not [path for path in (tmp_path / "s3" / "data").rglob("*") if path.is_file()]
    store.close()


def test_a_start_on_a_full_disk_says_so(disk: Disk) -> None:
    home = disk.root / "home"
    home.mkdir()
    with disk.full(1, os.getpid()), pytest.raises(ControlError) as caught:
        control.up(home, free_port(), parent=os.getpid())
    assert str(caught.value).startswith(f"{home} can't be written to (")
    assert str(caught.value).endswith("free some space there, or choose another home directory")
