"""Which file of a folder is the model: by name, and at most by the first bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

Sniff = Callable[[bytes], bool]

HEAD = 512
"""How many of a file's first bytes a sniffer is given."""


def head(path: Path, size: int = HEAD) -> bytes:
    """The first ``size`` bytes of a file; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def pick(folder: Path, suffixes: Sequence[str], sniff: Sniff | None = None) -> str | None:
    """``model.<suffix>`` for the first suffix there is; else the only file with one of them.

    A file of another stem must also look right to ``sniff`` (of its first bytes), so that a
    ``requirements.txt`` is not taken for a model.
    """
    for suffix in suffixes:
        if (folder / f"model{suffix}").is_file():
            return f"model{suffix}"
    try:
        names = sorted(path.name for path in folder.iterdir() if path.suffix in suffixes)
    except OSError:
        return None
    names = [name for name in names if (folder / name).is_file() and not name.startswith(".")]
    if sniff is not None:
        names = [name for name in names if sniff(head(folder / name))]
    return names[0] if len(names) == 1 else None
