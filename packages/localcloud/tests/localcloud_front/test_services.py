"""A cloud's services: one of each kind, made at first use, ended with the cloud."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from localcloud.context import Cloud
from localcloud.server import end
from localcloud.store import Store
from localcloud_jobs.directory_delegate import DirectoryDelegate


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path, "http://127.0.0.1:9", Store(tmp_path / "state.sqlite"), DirectoryDelegate(tmp_path))


class Lower:
    """A service that writes down when it ends."""

    def __init__(self, ended: list[str]) -> None:
        self._ended = ended

    def close(self) -> None:
        self._ended.append(type(self).__name__)


class Upper(Lower):
    """One that uses the lower one."""


def test_there_is_one_of_each_kind_until_the_cloud_ends(cloud: Cloud) -> None:
    ended: list[str] = []

    def upper() -> Upper:
        cloud.service(Lower, lambda: Lower(ended))
        return Upper(ended)

    first = cloud.service(Upper, upper)
    assert cloud.service(Upper, upper) is first
    lower = cloud.service(Lower, lambda: Lower(ended))
    assert cloud.service(Lower, lambda: Lower(ended)) is lower
    end(cloud)
    assert ended == ["Upper", "Lower"], "one ends before those that it uses"
    assert cloud.service(Lower, lambda: Lower(ended)) is not lower
    end(cloud)
    cloud.store.close()


def test_many_threads_get_the_same_one(cloud: Cloud) -> None:
    ended: list[str] = []
    start, found = threading.Barrier(8), []

    def ask() -> None:
        start.wait()
        found.append(cloud.service(Lower, lambda: Lower(ended)))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    end(cloud)
    assert ended == ["Lower"]
    cloud.store.close()


def test_one_that_can_not_be_made_is_tried_again(cloud: Cloud) -> None:
    def fail() -> Lower:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        cloud.service(Lower, fail)
    assert isinstance(cloud.service(Lower, lambda: Lower([])), Lower)
    end(cloud)
    cloud.store.close()


def test_two_clouds_share_nothing(cloud: Cloud, tmp_path: Path) -> None:
    other = Cloud(tmp_path, cloud.url, cloud.store, cloud.delegate)
    mine, theirs = (one.service(Lower, lambda: Lower([])) for one in (cloud, other))
    assert mine is not theirs
    for one in (cloud, other):
        end(one)
    cloud.store.close()
