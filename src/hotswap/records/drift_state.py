"""What is kept of a model's drift: the frozen reference and how far the records were counted.

Two files a model, written whole or not at all, each with a digest of what it holds: a file that
is damaged is named, set aside as ``*.damaged`` and made again.
"""

from __future__ import annotations

import contextlib
import os
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from hotswap.records.drift_detect import Watch
from hotswap.records.drift_reference import Bins

REFERENCE: Final = "reference.json"
STATE: Final = "state.json"
FORMAT: Final = 1
SIDES: Final = ("input", "output")


class Frozen(msgspec.Struct, frozen=True):
    """One side's reference: ``rows`` records of ``first`` to ``last`` (µs of Unix time).

    ``version``: whose outputs, "" for inputs. ``skipped``: columns that are not in it, and why.
    ``arl``: rows to a false alarm of any of its columns, at least, on average. ``wanted``, ``asked``
    and ``one_row``: the columns, the rows and how rows were counted, as the settings had it then.
    """

    side: str
    version: str
    first: int
    last: int
    rows: int
    columns: tuple[Bins, ...]
    skipped: tuple[str, ...] = ()
    tolerance: float = 0.1
    arl: float = 1e7
    wanted: tuple[str, ...] = ()
    asked: int = 5000
    one_row: bool = True

    @property
    def digest(self) -> str:
        """Tells it from any other."""
        return _digest(msgspec.json.encode(self))

    @property
    def column_arl(self) -> float:
        """Rows to a false alarm of one watch of one column, so that all together keep ``arl``."""
        watches = 2 if self.side == "input" else 1
        return self.arl * max(1, watches * len(self.columns))


class Reference(msgspec.Struct, frozen=True):
    """Both sides' references; None while one is collected."""

    input: Frozen | None = None
    output: Frozen | None = None

    def side(self, name: str) -> Frozen | None:
        """That of inputs or of outputs."""
        return self.input if name == "input" else self.output


class Side(msgspec.Struct):
    """How far one side was counted. ``since`` (µs): the reference is collected from then on, of
    ``version``; ``counted`` (µs): records before that are in ``collected`` (rows), or in
    ``watches`` once there is a reference, which ``frozen`` names by its digest. ``latest`` (µs):
    of the last record.
    """

    since: int = 0
    version: str = ""
    frozen: str = ""
    counted: int = 0
    latest: int = 0
    collected: int = 0
    watches: dict[str, Watch] = {}


class State(msgspec.Struct, frozen=True):
    """Both sides."""

    input: Side = msgspec.field(default_factory=Side)
    output: Side = msgspec.field(default_factory=Side)

    def side(self, name: str) -> Side:
        """That of inputs or of outputs."""
        return self.input if name == "input" else self.output


class _File(msgspec.Struct, frozen=True):
    format: int
    digest: str
    body: msgspec.Raw


_Kind = TypeVar("_Kind", Reference, State)


def load(folder: Path, name: str, kind: type[_Kind]) -> tuple[_Kind | None, str]:
    """What a file holds, None if there is none; and what was wrong with it, "" if nothing was.

    A damaged one is set aside. Raises `OSError` if it cannot be read at all.
    """
    path = folder / name
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None, ""
    try:
        file = msgspec.json.decode(data, type=_File)
        if file.digest != _digest(bytes(file.body)):
            raise ValueError("its digest is another")
        if file.format != FORMAT:
            raise ValueError(f"it is of format {file.format}, and this release reads {FORMAT}")
        return msgspec.json.decode(file.body, type=kind), ""
    except (ValueError, UnicodeDecodeError) as error:  # msgspec's errors are ValueErrors
        with contextlib.suppress(OSError):
            path.replace(path.with_suffix(".damaged"))
        return None, f"{name} of drift is damaged ({' '.join(str(error).split())[:120]})"


def save(folder: Path, name: str, value: Reference | State) -> None:
    """Write it whole or not at all. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    body = msgspec.json.encode(value)
    data = msgspec.json.encode(_File(FORMAT, _digest(body), msgspec.Raw(body)))
    hidden = folder / f".{name}.part"
    with hidden.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    hidden.replace(folder / name)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()


__all__ = ["REFERENCE", "SIDES", "STATE", "Frozen", "Reference", "Side", "State", "load", "save"]
