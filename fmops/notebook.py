"""Where output goes: a notebook's cell, or a terminal."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Sequence


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel; IPython in a terminal is not."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def display() -> Callable[[str], None]:
    """Returns what shows HTML in the current cell; each call replaces what the one before has shown."""
    from IPython.display import HTML
    from IPython.display import display as show

    handle = show(HTML(""), display_id=True)
    return lambda text: handle.update(HTML(text))


def sandboxed(page: str, height: int = 900) -> str:
    """A whole HTML page in a frame of its own: no scripts, no forms, no access to the notebook around it.

    A report comes from a job; whoever can write its file must not be able to act as the reader of the notebook.
    """
    return (
        f'<iframe sandbox="" srcdoc="{html.escape(page, quote=True)}" width="100%" height="{height}" '
        'style="border: 1px solid #ccc; border-radius: 6px; background: #fff"></iframe>'
    )


def table(rows: Sequence[tuple[str, ...]], head: tuple[str, ...]) -> str:
    """An HTML table of plain texts, escaped."""
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{_cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def _cells(tag: str, texts: tuple[str, ...]) -> str:
    return "".join(f'<{tag} style="text-align: left">{html.escape(text)}</{tag}>' for text in texts)
