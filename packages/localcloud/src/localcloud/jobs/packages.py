"""A job's own Python: everything that localcloud's has, and what the job installs on top, which nobody else sees.

home/jobs/<name>/python is a virtual environment whose only content is a `.pth` file that leads to localcloud's
packages: `pip`, `python -m pip`, `sys.executable -m pip` and uv install into it, and what lies in it hides what
localcloud has of the same name. On SageMaker the same happens in the container's own Python.
"""

from __future__ import annotations

import shlex
import site
import sys
import sysconfig
import venv
from pathlib import Path

_MODULES = {"pip": "pip", "pip3": "pip", "torchrun": "torch.distributed.run"}
"""Commands that the containers have; here their distribution may lie where it has left no script."""


def create(directory: Path) -> None:
    """Make the environment; `directory` as the job sees it."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(directory)
    python = directory / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    lines = [f"import site; site.addsitedir({place!r})" for place in _places()]
    (directory / "lib" / version / "site-packages" / "localcloud.pth").write_text("\n".join(lines) + "\n")
    for name, module in _MODULES.items():
        _script(directory / "bin" / name, f'#!/bin/sh\nexec {shlex.quote(str(python))} -m {module} "$@"\n')
    for script in sorted(Path(sys.executable).parent.iterdir()):
        _adopt(script, directory / "bin" / script.name, python)


def protected() -> list[Path]:
    """Directories that no job may change: localcloud's environment, the packages it sees, its own source."""
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    places = {Path(place) for place in _places()} | {Path(__file__).resolve().parents[1]}
    places |= {Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")}
    places |= {Path(sysconfig.get_path(name, vars=base)) for name in ("purelib", "platlib")}
    if sys.prefix != sys.base_prefix:
        places.add(Path(sys.prefix))
    found = {place.resolve() for place in places if place.is_dir()}
    return sorted(place for place in found if not any(other in place.parents for other in found))


def _places() -> list[str]:
    """The site directories of localcloud's Python, in its order (their own `.pth` files are read too)."""
    return [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]


def _adopt(script: Path, copy: Path, python: Path) -> None:
    """A script of localcloud's environment (accelerate, datasets-cli ...) for the job's Python."""
    if copy.exists() or not script.is_file():
        return
    with script.open("rb") as file:
        first = file.readline(512)
        if not first.startswith(b"#!") or b"python" not in first:
            return
        rest = file.read()
    # pip's own trick for interpreters whose path a `#!` line can't hold: a line that is right in sh and in Python.
    head = f"#!/bin/sh\n'''exec' {shlex.quote(str(python))} \"$0\" \"$@\"\n' '''\n"
    _script(copy, head + rest.decode("utf-8", "surrogateescape"))


def _script(path: Path, text: str) -> None:
    path.write_text(text, "utf-8", "surrogateescape")
    path.chmod(0o755)
