"""A job's own directory, and how it becomes the job's `/opt/ml`.

home/jobs/<name>/opt/ml/...   what the job sees as /opt/ml
home/jobs/<name>/python       its Python: localcloud's packages and what it installs (see packages.py)
home/jobs/<name>/tmp, work    TMPDIR and the working directory
home/jobs/<name>/output.log   everything the job wrote, as in CloudWatch Logs
home/jobs/<name>/hosts        its /etc/hosts, where it has one of its own (see machines.py)
home/jobs/<name>/algo-2/...   the same for the second machine of a training job, and so on

In a namespace of its own (see isolation.py) the job sees that directory at `/opt/ml`, and nothing is rewritten. Model
servers, and jobs where there are no namespaces, get `/opt/ml` rewritten in their code, arguments and environment.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from localcloud.jobs import packages

# A path that only contains /opt/ml (s3://bucket/opt/ml, /home/x/opt/ml) is left alone: mapping twice changes nothing.
OPT_ML = re.compile(r"(?<![\w.\-~}%+])/opt/ml(?![\w\-])")
_SHELL_SAFE = re.compile(r"[\w@%+=,./\-]+")
CODE = {".py", ".sh", ".bash"}
_TEXT = CODE | {".json", ".yaml", ".yml", ".toml", ".txt", ".cfg", ".ini", ".env"}
_TEXT_LIMIT = 2 << 20


@dataclass(frozen=True)
class Layout:
    """Where one job (or model server) lives."""

    root: Path
    seen: Path
    """`root` as the job sees it: the same, or a link without characters that an unquoted shell word can't hold."""
    own: bool = False
    """Whether the job has an `/opt/ml` of its own, so that its name needs no mapping."""

    @classmethod
    def create(cls, root: Path, *, own: bool = False) -> Layout:
        """Make the directory anew; what an earlier job of that name left is removed."""
        shutil.rmtree(root, ignore_errors=True)
        _make(root)
        seen = root.resolve()
        if not _SHELL_SAFE.fullmatch(str(seen)):
            link = Path(tempfile.mkdtemp(prefix="localcloud-")) / "job"
            link.symlink_to(seen, target_is_directory=True)
            seen = link
        packages.create(seen / "python")
        return cls(root, seen, own)

    def nested(self, name: str) -> Layout:
        """The directory of a further machine of the same job, in this one and gone with it."""
        _make(self.root / name)
        packages.create(self.seen / name / "python")
        return Layout(self.root / name, self.seen / name, self.own)

    @property
    def opt_ml(self) -> Path:
        return self.root / "opt" / "ml"

    @property
    def log(self) -> Path:
        return self.root / "output.log"

    @property
    def hosts(self) -> Path:
        return self.root / "hosts"

    def map(self, text: str) -> str:
        """Replace every `/opt/ml` in a text by the directory that stands for it, unless the job has its own."""
        if self.own:
            return text
        target = str(self.seen / "opt" / "ml")
        return OPT_ML.sub(lambda _: target, text)

    def path(self, container_path: str) -> Path:
        """Where a container path lies here; ValueError unless it is in `/opt/ml`."""
        clean = os.path.normpath(container_path)
        if clean != "/opt/ml" and not clean.startswith("/opt/ml/"):
            raise ValueError(f"{container_path!r} is not in /opt/ml; only /opt/ml exists in a localcloud job")
        return self.opt_ml / clean[len("/opt/ml") :].lstrip("/")

    def map_files(self, directory: Path) -> None:
        """Rewrite `/opt/ml` in the text files of a code directory (never in data: those stay byte for byte)."""
        if self.own:
            return
        for path in sorted(directory.rglob("*")):
            if path.suffix not in _TEXT or not path.is_file() or path.is_symlink() or path.stat().st_size > _TEXT_LIMIT:
                continue
            try:
                text = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                continue
            mapped = self.map(text)
            if mapped != text:
                path.write_bytes(mapped.encode("utf-8"))

    def remove(self) -> None:
        """Delete the directory (and the link that stood for it)."""
        shutil.rmtree(self.root, ignore_errors=True)
        if self.seen != self.root.resolve() and self.seen.is_symlink():
            self.seen.unlink(missing_ok=True)
            shutil.rmtree(self.seen.parent, ignore_errors=True)


def _make(root: Path) -> None:
    for part in ("opt/ml", "tmp", "work", "mnt"):
        (root / part).mkdir(parents=True)
