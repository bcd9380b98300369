"""What commands print: tables for people, JSON for programs, one red line for errors."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

Cell = str | tuple[str, str]
"""Text, or (text, style)."""


def plain(text: object) -> str:
    """``text`` without what could steer a terminal: it may come from a model's author.

    >>> plain("a\\x1b[31mb")
    'a�[31mb'
    """
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text))


def error(message: str) -> None:
    """One red line on stderr: ``error: …``."""
    from rich.console import Console
    from rich.text import Text

    line = " ".join(plain(message).split())
    text = Text.assemble(("error: ", "bold red"), (line, "red"))
    Console(stderr=True, soft_wrap=True).print(text)


def emit(value: Any) -> None:
    """JSON on stdout."""
    print(json.dumps(value, indent=2))


def say(*parts: Cell) -> None:
    """One line on stdout; parts with a style are coloured on a terminal."""
    from rich.text import Text

    cells = [plain(p) if isinstance(p, str) else (plain(p[0]), p[1]) for p in parts]
    _stdout().print(Text.assemble(*cells), soft_wrap=True)


def note(message: str) -> None:
    """One yellow line on stderr, beside a command's own output."""
    from rich.console import Console
    from rich.text import Text

    line = " ".join(plain(message).split())
    Console(stderr=True, soft_wrap=True).print(Text(line, "yellow"))


def show(renderable: Any) -> None:
    """Something that was composed before, on stdout."""
    _trimmed(renderable)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], right: Sequence[str] = ()
) -> None:
    """A table on stdout. ``right`` names the columns of numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    for column in columns:
        shown.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        cells = [(c, "") if isinstance(c, str) else c for c in row]
        shown.add_row(*(Text(plain(text), style) for text, style in cells))
    _trimmed(shown)


def _trimmed(renderable: Any) -> None:
    """Print it; without a terminal no line ends in spaces."""
    console = _stdout()
    if console.is_terminal:
        console.print(renderable)
        return
    with console.capture() as captured:
        console.print(renderable)
    print("\n".join(line.rstrip() for line in captured.get().strip("\n").splitlines()))


@contextlib.contextmanager
def spinner(text: str, quiet: bool = False) -> Iterator[None]:
    """Show on stderr that something takes its time, if someone can see it."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(plain(text))):
        yield


def width() -> int:
    """How many columns of text stdout shows."""
    return int(_stdout().width)


def on_terminal() -> bool:
    """Whether someone looks at stdout."""
    return bool(_stdout().is_terminal)


def stdout() -> Any:
    """The `rich.console.Console` of stdout, for what is drawn again and again."""
    return _stdout()


def _stdout() -> Any:
    from rich.console import Console

    console = Console()
    # A pipe has no width: what reads it must not get lines broken at 80 columns.
    return console if console.is_terminal else Console(width=240)
