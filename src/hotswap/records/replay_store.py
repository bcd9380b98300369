"""Where replays lie: each a folder of records of its own, the last few of a model.

They hold inputs, so that they are kept no longer than the records that they were made of.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from hotswap.records.compact import retire
from hotswap.records.files import Location, day_of

FOLDER: Final = "replays"
#: So many of a model are kept.
LAST: Final = 5
_PART: Final = ".part"
_NAME: Final = re.compile(r"\d{14}-")
_NO_LIMIT: Final = 1 << 62


def begin(root: Path, model: str, version: str, now: float) -> Path:
    """A hidden folder for a new replay. Until `keep` it is listed nowhere. One at a time for a model."""
    folder = root / FOLDER / model
    for left in folder.glob(f".*{_PART}"):  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)
    # The order of names is that in which they were made, whatever the clock did since.
    last = max((int(each.name.partition("-")[0]) for each in replays(root, model)), default=0)
    hidden = folder / f".{max(round(now * 1000), last + 1):014d}-{version}{_PART}"
    hidden.mkdir(parents=True)
    return hidden


def keep(root: Path, model: str, hidden: Path) -> Path:
    """It is whole: where it is from now on. Older ones than the last few go."""
    kept = hidden.with_name(hidden.name.removeprefix(".").removesuffix(_PART))
    hidden.rename(kept)
    for old in replays(root, model)[:-LAST]:
        shutil.rmtree(old, ignore_errors=True)
    return kept


def drop(hidden: Path) -> None:
    """It will never be whole."""
    shutil.rmtree(hidden, ignore_errors=True)


def replays(root: Path, model: str) -> list[Path]:
    """The replays of a model, oldest first. Each can be opened as `hotswap.records.dataset`."""
    folder = root / FOLDER / model
    if not folder.is_dir():
        return []
    return sorted(each for each in folder.iterdir() if _NAME.match(each.name))


def expire(root: Path, oldest_day: str) -> int:
    """Remove what replays hold of records of days before that; how many files went."""
    gone = 0
    folder = root / FOLDER
    for model in sorted(folder.iterdir()) if folder.is_dir() else ():
        for left in model.glob(f".*{_PART}"):
            if day_of(left.stat().st_mtime) < oldest_day:
                shutil.rmtree(left, ignore_errors=True)
        for replay in replays(root, model.name):
            place = Location(replay)
            gone += len(retire(place, replay, [model.name], oldest_day, _NO_LIMIT))
            if not any(place.all(model.name)):
                shutil.rmtree(replay, ignore_errors=True)
    return gone


__all__ = ["FOLDER", "LAST", "begin", "drop", "expire", "keep", "replays"]
