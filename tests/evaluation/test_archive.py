"""model.tar.gz is unpacked without trusting it."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from common.archive import unpack
from common.base_model import check_weights
from common.failure import JobError


def archive(path: Path, *members: tuple[str, bytes | None, bytes]) -> Path:
    """Writes members (name, type or None for a file, content or link target)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            if kind is None:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type = kind
                info.linkname = content.decode()
                tar.addfile(info)
    return path


def test_files_and_folders_come_out(tmp_path: Path) -> None:
    members = [
        ("./config.json", None, b"{}"),
        ("adapter", tarfile.DIRTYPE, b""),
        ("adapter/deep/x.safetensors", None, b"abc"),
    ]
    target = unpack(archive(tmp_path / "m.tar.gz", *members), tmp_path / "out")
    assert (target / "config.json").read_bytes() == b"{}"
    assert (target / "adapter/deep/x.safetensors").read_bytes() == b"abc"


HOSTILE: dict[str, list[tuple[str, bytes | None, bytes]]] = {
    "parent": [("../escaped", None, b"x")],
    "inner parent": [("a/../../escaped", None, b"x")],
    "absolute": [("/tmp/escaped-by-fmops", None, b"x")],
    "symlink": [("link", tarfile.SYMTYPE, b"/etc")],
    "through a symlink": [("link", tarfile.SYMTYPE, b".."), ("link/escaped", None, b"x")],
    "hard link": [("link", tarfile.LNKTYPE, b"/etc/passwd")],
    "device": [("device", tarfile.CHRTYPE, b"")],
    "pipe": [("pipe", tarfile.FIFOTYPE, b"")],
}


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE])
def test_a_header_is_not_read_into_memory_whatever_its_size(kind: bytes, tmp_path: Path) -> None:
    import tracemalloc

    path, size = tmp_path / "m.tar.gz", 200 << 20
    with gzip.open(path, "wb", compresslevel=1) as file:
        header = tarfile.TarInfo("././@LongLink")
        header.type, header.size = kind, size
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(size >> 20):
            file.write(b"a" * (1 << 20))
    tracemalloc.start()
    with pytest.raises(JobError, match="not a readable tar archive"):
        unpack(path, tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_leads_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"points outside|link or a device"):
        unpack(archive(tmp_path / "m.tar.gz", *HOSTILE[name]), tmp_path / "in/out")
    left = [path.name for path in tmp_path.rglob("*") if path.name not in ("m.tar.gz", "in", "out")]
    assert left == []
    assert not Path("/tmp/escaped-by-fmops").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    "damage", [cut, lambda path: path.write_bytes(b"no archive"), lambda path: path.write_bytes(b"")]
)
def test_a_damaged_archive_is_named(damage: Callable[[Path], object], tmp_path: Path) -> None:
    path = archive(tmp_path / "m.tar.gz", ("weights", None, bytes(range(256)) * 500))
    damage(path)
    with pytest.raises(JobError, match=r"m\.tar\.gz: not a readable tar archive"):
        unpack(path, tmp_path / "out")


def test_only_safetensors_are_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(JobError, match=r"pytorch_model\.bin, which can run code"):
        check_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    check_weights(tmp_path)


def test_an_adapter_is_kept_with_its_template_and_formatters(tmp_path: Path) -> None:
    """In mode adapter the model directory is the base model's, which has neither."""
    from models import keep_adapter

    files = {
        "adapter/adapter_config.json": "{}",
        "adapter/adapter_model.safetensors": "weights",
        "chat_template.jinja": "{{ messages }}",
        "model.py": "formatters",
        "code/lmi_format.py": "code",
        "code/common/prompts.py": "prompts",
        "model.safetensors": "merged",
    }
    for name, text in files.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for _ in range(2):  # an adapter output may have been written before
        keep_adapter(tmp_path / "model", tmp_path / "kept")
    kept = tmp_path / "kept"
    found = {str(path.relative_to(kept)): path.read_text() for path in kept.rglob("*") if path.is_file()}
    assert found == {name.removeprefix("adapter/"): text for name, text in files.items() if name != "model.safetensors"}
