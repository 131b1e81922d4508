"""localcloud's packages stand on each other one way, and only `hooks` knows MiniStack.

Every import counts, also late ones, those inside functions, and those for type checkers only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import localcloud
from localcloud.hooks.privates import PRIVATES

ROOT = Path(localcloud.__file__).parent
MODULES = 222
"""How many there are: a test that finds none would pass."""

CORE = {
    *("asgi", "clock", "constraints", "context", "control", "errors", "events", "forms", "home", "identity"),
    *("guard", "images", "keys", "refusals", "signature", "wellformed"),
    *("namespace", "pages", "paging", "protocol", "shapes", "store", "tags", "tokens", "wire"),
}
SERVER = {"", "__main__", "admission", "command", "delegation", "front", "logfile", "server"}
"""Single modules, by name; what is in a package belongs to the layer of that name."""
ALLOWED = {
    "core": set(),
    "s3": {"core"},
    "hooks": {"core"},
    "delegate": {"core", "hooks", "s3"},
    "jobs": {"core"},
    "hosting": {"core", "jobs"},
    "engine": {"core"},
    "sagemaker": {"core", "jobs", "hosting", "engine"},
    "autoscaling": {"core"},
    "bedrock": {"core", "jobs", "hosting"},
    "server": {"core", "s3", "delegate", "sagemaker", "autoscaling", "bedrock"},
}
"""What each layer may import beside itself, lowest first: a layer names only those above it in this table."""


def sources() -> dict[str, str]:
    """Source by module name, without `localcloud.`; a package's own module has the package's name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def imported(source: str, modules: Iterable[str]) -> Iterator[str]:
    """The modules that a module imports: ours without `localcloud.`, others by their whole name."""
    known = set(modules)
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            inner = (node.module or "").removeprefix("localcloud").removeprefix(".")
            for alias in node.names:
                whole = f"{inner}.{alias.name}".removeprefix(".")
                names.append(f"localcloud.{whole}" if whole in known else f"{node.module}")
        for name in names:
            yield name.removeprefix("localcloud").removeprefix(".") if name.split(".")[0] == "localcloud" else name


def layer_of(module: str) -> str:
    if "." in module or module in ALLOWED:
        return module.split(".")[0]
    if module in SERVER:
        return "server"
    assert module in CORE, f"{module} is in no layer: name it in this test"
    return "core"


def upward(modules: dict[str, str]) -> list[str]:
    """Imports of a layer that the importing one must not know."""
    return [
        f"{module} ({layer_of(module)}) imports {target} ({layer_of(target)})"
        for module, source in modules.items()
        for target in imported(source, modules)
        if target in modules and layer_of(target) not in {layer_of(module), *ALLOWED[layer_of(module)]}
    ]


def cycle(modules: dict[str, str]) -> list[str]:
    """A circle of modules that import each other; empty when there is none."""
    graph = {module: sorted(set(imported(source, modules)) & set(modules)) for module, source in modules.items()}
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in graph[module]:
            if found := visit(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in graph if (found := visit(module, []))), [])


def outside(modules: dict[str, str]) -> list[str]:
    """Modules that import MiniStack, or touch one of its private names, and are not in `hooks`."""
    privates = {name.split(".")[-1] for names in PRIVATES.values() for name in names if "._" in f".{name}"}
    found = []
    for module, source in modules.items():
        if layer_of(module) == "hooks":
            continue
        if any(target.split(".")[0] == "ministack" for target in imported(source, modules)):
            found.append(f"{module} imports ministack")
        found += [f"{module} touches {name}" for name in _foreign(source) if name in privates]
    return found


def _foreign(source: str) -> list[str]:
    """The private attributes of something else than `self` that a module reads or sets."""
    return [
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]


def test_all_modules_are_looked_at() -> None:
    modules = sources()
    assert len(modules) == MODULES
    assert {layer_of(module) for module in modules} == set(ALLOWED)
    assert sum(len(list(imported(source, modules))) for source in modules.values()) > 900


def test_the_table_goes_one_way() -> None:
    order = list(ALLOWED)
    for layer, others in ALLOWED.items():
        assert all(order.index(other) < order.index(layer) for other in others), layer


def test_no_layer_imports_one_above_it() -> None:
    assert upward(sources()) == []


def test_no_modules_import_each_other() -> None:
    assert cycle(sources()) == []


def test_only_hooks_knows_ministack() -> None:
    assert outside(sources()) == []


def test_every_private_name_that_hooks_touches_is_in_the_table() -> None:
    known = {part for names in PRIVATES.values() for name in names for part in name.split(".")}
    touched = {name for module, source in sources().items() if layer_of(module) == "hooks" for name in _foreign(source)}
    assert len(touched) > 40
    assert touched - known == set()


def test_nothing_is_kept_by_the_id_of_an_object() -> None:
    """What belongs to a cloud is in it (`Cloud.service`): an id may come again when its object is gone."""

    def by_id(source: str) -> bool:
        calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        return any(isinstance(function, ast.Name) and function.id == "id" for function in calls)

    assert [module for module, source in sources().items() if by_id(source)] == []
    assert by_id("registry = {id(cloud): 1}")


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("errors", "import localcloud.server", "errors (core) imports server (server)"),
        ("errors", "def f():\n    from localcloud import front", "errors (core) imports front (server)"),
        ("jobs.states", "from localcloud.sagemaker import tagging", "imports sagemaker.tagging (sagemaker)"),
        ("jobs.states", "from localcloud.hosting.host import host", "imports hosting.host (hosting)"),
        ("store", "if TYPE_CHECKING:\n    from localcloud.s3.http import S3Front", "imports s3.http (s3)"),
    ],
)
def test_an_import_upwards_is_found(module: str, line: str, complaint: str) -> None:
    modules = sources()
    modules[module] += f"\n{line}\n"
    (found,) = upward(modules)
    assert complaint in found


def test_a_circle_is_found_wherever_its_imports_are() -> None:
    modules = sources()
    modules["s3.xml"] += "\ndef f():\n    from localcloud.s3.listing import table\n"
    assert cycle(modules) == ["s3.xml", "s3.listing", "s3.xml"] or set(cycle(modules)) >= {"s3.xml", "s3.listing"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("def f():\n    import ministack.app", "jobs.states imports ministack"),
        ("def f():\n    from ministack.services import s3", "jobs.states imports ministack"),
        ("def f(s3):\n    return s3._bucket_owner_account('b')", "jobs.states touches _bucket_owner_account"),
    ],
)
def test_a_touch_of_ministack_is_found(line: str, complaint: str) -> None:
    modules = sources()
    modules["jobs.states"] += f"\n{line}\n"
    assert complaint in outside(modules)
