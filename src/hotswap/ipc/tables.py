"""Route tables as files in the runtime directory: where a worker finds the revision it lacks.

``tables/<index>.<revision>``, written whole (temporary name, then renamed) before the word of
that model names the revision; the two newest of a model are kept.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from hotswap.core.routing import RouteTable

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(RouteTable).decode


def write_table(runtime_dir: str, table: RouteTable) -> None:
    """Write it where `read_table` looks. Raises OSError."""
    folder = Path(runtime_dir) / "tables"
    name = f"{table.index}.{table.revision}"
    temporary = folder / f".{name}"
    temporary.write_bytes(_encode(table))
    os.replace(temporary, folder / name)


def forget_tables(runtime_dir: str, index: int, below: int) -> None:
    """Remove a model's tables with a revision below ``below``, some revisions back."""
    folder = Path(runtime_dir) / "tables"
    for revision in range(max(0, below - 8), below):
        with contextlib.suppress(OSError):
            (folder / f"{index}.{revision}").unlink()


def read_table(runtime_dir: str, index: int, revision: int) -> RouteTable | None:
    """That revision, or None if it was never written or is gone."""
    try:
        return _decode((Path(runtime_dir) / "tables" / f"{index}.{revision}").read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None


def read_tables(runtime_dir: str, revision_of: Callable[[int], int]) -> list[RouteTable]:
    """Every model's table in the revision in force."""
    found = []
    for name in os.listdir(Path(runtime_dir) / "tables"):
        index, _, revision = name.partition(".")
        if index.isdigit() and revision.isdigit() and revision_of(int(index)) == int(revision):
            table = read_table(runtime_dir, int(index), int(revision))
            if table is not None:
                found.append(table)
    return found
