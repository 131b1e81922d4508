"""The object store by itself: long listings, files that come and go, a process that dies in between."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from localcloud.s3.objects import ObjectStore, StoredObject


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    store = ObjectStore(tmp_path)
    yield store
    store.close()


def put(store: ObjectStore, key: str, data: bytes = b"", versioning: str | None = None) -> StoredObject:
    path = store.new_file()
    path.write_bytes(data)
    return store.put("bucket", key, path, "etag", {}, versioning)


def files(root: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (root / "data").rglob("*") if path.is_file())


def test_long_listings_skip_whole_folders(store: ObjectStore) -> None:
    for folder in ("a", "b", "c"):
        for number in range(1100):
            put(store, f"{folder}/{number:04}")
    put(store, "d")
    page = store.page("bucket", "", "/", "", 1000)
    assert (page.prefixes, [item.key for item in page.objects], page.next) == (["a/", "b/", "c/"], ["d"], None)
    page = store.page("bucket", "", "/", "a/", 1)
    assert (page.prefixes, page.next) == (["b/"], "b/")
    page = store.page("bucket", "b/", "", "", 1000)
    assert (len(page.objects), page.objects[0].key, page.next) == (1000, "b/0000", "b/0999")
    rest = store.page("bucket", "b/", "", "b/0999", 1000)
    assert (rest.objects[0].key, len(rest.objects), rest.next) == ("b/1000", 100, None)
    assert len(store.keys("bucket", "c/")) == 1100


def test_the_files_on_disk_are_those_of_the_index(store: ObjectStore, tmp_path: Path) -> None:
    put(store, "k", b"one")
    put(store, "k", b"two")
    assert files(tmp_path) == [b"two"]
    put(store, "k", b"three", "Enabled")
    store.delete("bucket", "k", None, "Enabled")
    assert files(tmp_path) == [b"three", b"two"]
    for item in store.versions("bucket", "", ("", ""), 10)[0]:
        store.delete("bucket", "k", item.version, "Enabled")
    assert files(tmp_path) == []
    assert store.is_empty("bucket")


def test_what_a_killed_upload_left_is_removed_at_the_next_start(store: ObjectStore, tmp_path: Path) -> None:
    put(store, "kept", b"kept")
    upload = store.begin("bucket", "parts", {"headers": {}})
    part = store.new_file()
    part.write_bytes(b"part")
    store.put_part(upload, 1, part, "etag", {})
    store.new_file().write_bytes(b"half an upload")
    store.close()
    again = ObjectStore(tmp_path)
    try:
        assert files(tmp_path) == [b"kept", b"part"]
        assert [found.number for found in again.parts(upload)] == [1]
    finally:
        again.close()


def test_one_of_many_completions_wins(store: ObjectStore, tmp_path: Path) -> None:
    upload = store.upload(store.begin("bucket", "k", {}))
    assert upload is not None

    def complete(number: int) -> bool:
        path = store.new_file()
        path.write_bytes(str(number).encode())
        return store.complete(upload, path, "etag", {}, "Enabled") is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(complete, range(40))) == 1
    assert len(files(tmp_path)) == 1


def test_writers_and_readers_at_once_see_whole_objects(store: ObjectStore) -> None:
    def work(number: int) -> bool:
        data = bytes([number]) * 1000
        put(store, "shared", data)
        found = store.get("bucket", "shared")
        return found is not None and found.size == 1000

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))
