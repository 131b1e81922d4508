"""Which checkpoint is whole, which ones go, and what happens when there is no room for another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import HALF, all_steps, at, fault, latest_whole, rotate, seal, unseal

from tests.support.training_job import TrainingJob

NewJob = Callable[..., TrainingJob]
RUN = {
    "method": "lora", "learning_rate": 0.01, "batch_size": 4, "max_steps": 6, "precision": "fp32",
    "evaluations_per_run": 1, "checkpoints_per_run": 3,
}  # fmt: skip
BOTH = {"sealers": (0, 2), "processes": 4}


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """What S3 makes of the disks of two machines with two processes each."""
    first = write(tmp_path / "first", state="{}", shards__0="a" * 100, shards__1="b" * 100)
    second = write(tmp_path / "second", shards__2="c" * 100, shards__3="d" * 100)
    seal(first, 0, save=17, **BOTH)
    seal(second, 2, save=17, **BOTH)
    assert fault(first, read=True) == HALF
    assert fault(second, read=True) == HALF
    merged = tmp_path / "checkpoint-8"
    for disk in (first, second):
        shutil.copytree(disk, merged, dirs_exist_ok=True)
    return merged


def test_shards_of_two_machines_are_whole_together(sharded: Path) -> None:
    assert fault(sharded, read=True) is None
    seals = [json.loads((sharded / name).read_text()) for name in ("whole.json", "whole-2.json")]
    assert sorted({**seals[0]["files"], **seals[1]["files"]}) == [*(f"shards/{shard}" for shard in range(4)), "state"]
    for shard in range(4):
        file = sharded / "shards" / str(shard)
        before = file.read_text()
        file.write_text("x" * 100)
        assert fault(sharded, read=True) == f"is damaged (shards/{shard} is not what was written)"
        assert fault(sharded, read=False) is None, "sizes alone don't tell"
        file.write_text(before[1:])
        assert fault(sharded, read=False) == HALF
        file.unlink()
        assert fault(sharded, read=False) == HALF
        file.write_text(before)


def test_parts_of_two_saves_are_no_checkpoint(sharded: Path, tmp_path: Path) -> None:
    seal(tmp_path / "second", 2, save=18, **BOTH)
    shutil.copy(tmp_path / "second" / "whole-2.json", sharded)
    assert fault(sharded, read=False) == "is put together from two saves"


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"sealers": 3}', '{"files": [1], "sealers": [0]}', "\udcff"])
def test_a_seal_that_is_none_seals_nothing(tmp_path: Path, content: str) -> None:
    seal(write(tmp_path, state="{}"))
    assert fault(tmp_path, read=True) is None
    (tmp_path / "whole.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert fault(tmp_path, read=True) == HALF


def test_the_newest_two_and_the_best_stay(tmp_path: Path) -> None:
    for step in (10, 20, 100, 30):
        seal(write(at(tmp_path, step), state=str(step)))
    write(tmp_path / "checkpoint-x", state="not one of ours")
    rotate(tmp_path, best=10)
    assert all_steps(tmp_path) == [10, 30, 100]
    rotate(tmp_path, best=None)
    assert all_steps(tmp_path) == [30, 100]
    unseal(at(tmp_path, 100))
    assert latest_whole(tmp_path) == at(tmp_path, 30)
    assert latest_whole(tmp_path, before=30) is None


def test_none_goes_before_the_next_one_is_whole(new_job: NewJob, monkeypatch: pytest.MonkeyPatch) -> None:
    import packed_trainer

    seen = []

    def look(checkpoint: Path, *args: object) -> None:
        steps = all_steps(checkpoint.parent)
        seen.append((steps, [step for step in steps if fault(at(checkpoint.parent, step), read=True) is None]))
        seal(checkpoint, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(packed_trainer, "seal", look)
    job = new_job()
    assert job.run(**{**RUN, "checkpoints_per_run": 4, "max_steps": 4}) == 0, job.err
    # While one is written and not yet sealed, the two before it are there and whole.
    assert seen == [([1], []), ([1, 2], [1]), ([1, 2, 3], [1, 2]), ([2, 3, 4], [2, 3])]


@pytest.mark.parametrize("file", ["scheduler.pt", "rng_state.pth", "trainer_state.json", "whole.json.draft"])
def test_a_full_disk_costs_one_checkpoint(new_job: NewJob, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """The kernel itself refuses the bytes: the file is a link to /dev/full."""
    from packed_trainer import PackedTrainer

    job, real = new_job(), PackedTrainer.store_flos

    def full(self: PackedTrainer) -> None:
        real(self)
        if self.state.global_step == 4:
            folder = at(Path(self.args.output_dir), 4)
            folder.mkdir()
            (folder / file).symlink_to("/dev/full")

    with monkeypatch.context() as patch:
        patch.setattr(PackedTrainer, "store_flos", full)
        assert job.run(**RUN) == 1
    (folder,) = job.run_folders()
    said = job.failure()
    assert said.startswith(f"no disk space left for checkpoint-4 in {folder} (")
    assert said.endswith(f"raise training.volume_gb; the last good checkpoint is {folder.name}/checkpoint-2\n")
    assert job.err.strip() == f"train.py: error: {said.strip()}", "no traceback: it is the machine's limit"
    assert all_steps(folder) == [2], "and no half one takes room"
    assert job.run(**RUN) == 0, job.err
    assert job.report()["resumed_from_step"] == 2
