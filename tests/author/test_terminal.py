"""Nothing that comes from elsewhere reaches a terminal as something that it obeys."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.table import Table

from pipelines.terminal import console, say, visible

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = {
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "clear": "\x1b[2J\x1b[H",
    "c1": "\x9b2J",
    "carriage return": "all is well\rFAILED     ",
    "backspaces": "abc\x08\x08\x08xyz",
    "bidi override": "\u202egpj.exe",
    "isolates": "\u2066\u2069\u2067",
    "line separator": "one\u2028two",
    "lone surrogate": "\ud800",
    "nul": "a\x00b",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_a_terminal_would_obey_is_shown(text: str) -> None:
    shown = visible(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert "\\" in shown


@pytest.mark.parametrize("text", ["plain", "two\nlines\tand a tab", "ü 漢字 🙂 👩\u200d💻", ""])
def test_what_people_write_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_lines_tables_and_colours(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"before {text} after", bold=False)
    assert visible(text) in capsys.readouterr().out
    file = io.StringIO()
    shown = console(file=file, force_terminal=True, width=200)
    table = Table()
    table.add_column(f"[red]{'x'}")
    table.add_row(text)
    shown.print(table)
    shown.print(text, markup=False)
    written = file.getvalue()
    assert "\x1b[" in written, "rich's own colours are kept"
    for dangerous in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\r", "\x08", "\u202e", "\u2066", "\u2028", "\x00", "\ud800"):
        assert dangerous not in written


WAYS = ("print", "click.echo", "click.secho", "echo", "sys.stdout.write", "sys.stderr.write")


def ways_around(source: str) -> list[str]:
    """Calls that print without `say` or `console`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in WAYS:
            found.append(f"{ast.unparse(node)}, line {node.lineno}")
        elif isinstance(node, ast.ImportFrom) and node.module == "rich.console" and "Console" in ast.unparse(node):
            found.append(f"rich.console, line {node.lineno}")
    return found


def _without_typing(source: str) -> str:
    tree = ast.parse(source)
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    return ast.unparse(tree)


def test_there_is_no_other_way_to_print() -> None:
    files = [path for folder in ("fmops", "pipelines") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) >= 40
    found = {path.name: ways_around(_without_typing(path.read_text("utf-8"))) for path in files}
    assert found.pop("terminal.py")
    assert {name: ways for name, ways in found.items() if ways} == {}
    assert sorted(ways_around("print('x')\nfrom rich.console import Console\nclick.echo('x')")) == [
        "click.echo, line 3", "print, line 1", "rich.console, line 2",
    ]  # fmt: skip


def test_an_error_is_shown_so_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from configuration.errors import UserError
    from fmops import cli

    def fail(**_: object) -> None:
        raise UserError("it failed: \x1b[2J\x1b]0;x\x07")

    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == "fmops: it failed: \\x1b[2J\\x1b]0;x\\x07\n"
