"""Where records lie, and which files count.

Live segments are Arrow streams, appended to at least every second; compacted files are Parquet, by
day. Names carry the numbers of the segments that are inside, so that whatever was cut short leaves
nothing twice: a file whose numbers lie within another's is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from hotswap.errors import ConfigError

FOLDER: Final = "records"
SEGMENT: Final = ".arrows"
COMPACTED: Final = ".parquet"
#: Labels, where a model is asked for; no model can be called so.
LABELS: Final = "/labels"

_SEGMENT: Final = re.compile(r"(\d{12})-([0-9a-f]{8})\.arrows")
_COMPACTED: Final = re.compile(r"(\d{12})-(\d{12})-([0-9a-f]{8})\.parquet")
_DAY: Final = re.compile(r"day=(\d{4}-\d{2}-\d{2})")


class Segment(NamedTuple):
    """A live segment. ``number``: counts up, over all models of the server."""

    path: Path
    number: int
    schema: str


class Part(NamedTuple):
    """A compacted file: segments ``first`` to ``last`` of one schema. ``path`` is for its store."""

    path: str
    day: str
    first: int
    last: int
    schema: str
    size: int = 0

    def holds(self, first: int, last: int, schema: str) -> bool:
        """Whether these segments are inside."""
        return self.schema == schema and self.first <= first and last <= self.last


def segment_folder(root: Path, model: str) -> Path:
    """Where a model's live segments are; ``LABELS`` has its own place."""
    if model == LABELS:
        return root / "labels" / "segments"
    return root / "segments" / model


def days_folder(model: str) -> str:
    """Where a model's compacted files are, relative to the root or the location."""
    return "labels/days" if model == LABELS else f"days/model={model}"


def segment_name(number: int, schema: str) -> str:
    """The file name of a live segment."""
    return f"{number:012d}-{schema}{SEGMENT}"


def part_name(first: int, last: int, schema: str) -> str:
    """The file name of a compacted file."""
    return f"{first:012d}-{last:012d}-{schema}{COMPACTED}"


def day_of(seconds: float) -> str:
    """The UTC day of a Unix time.

    >>> day_of(0)
    '1970-01-01'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def segments(root: Path, model: str) -> list[Segment]:
    """A model's live segments, oldest first."""
    folder = segment_folder(root, model)
    found = []
    if folder.is_dir():
        for path in folder.iterdir():
            match = _SEGMENT.fullmatch(path.name)
            if match:
                found.append(Segment(path, int(match[1]), match[2]))
    return sorted(found, key=lambda each: each.number)


class Location:
    """Where compacted files are: below ``root``, or at any fsspec location.

    ``location`` such as ``s3://bucket/prefix``. Raises `ConfigError` for one that cannot be used.
    """

    def __init__(self, root: Path, location: str | None = None) -> None:
        self.remote = location is not None and "://" in location
        if location is None or not self.remote:
            self.base = str(root if location is None else Path(location))
            self.fs: Any = _local()
        else:
            import fsspec

            try:
                self.fs, self.base = fsspec.core.url_to_fs(location)
            except (ImportError, ValueError) as error:
                raise ConfigError(
                    f"the place for records {shown(location)!r} cannot be used: {error}"
                ) from None
        self._protocol = "" if not self.remote else f"{(location or '').partition('://')[0]}://"

    def path(self, relative: str) -> str:
        """A path for this location's own file system."""
        return str(PurePosixPath(self.base) / relative)

    def url(self, path: str) -> str:
        """A path as DuckDB is given it, once the file system is registered."""
        return f"{self._protocol}{path}" if self.remote else path

    def parts(
        self, model: str, since: float | None = None, until: float | None = None
    ) -> list[Part]:
        """A model's compacted files that count, oldest first; of the days between the two times."""
        lowest = "" if since is None else day_of(since)
        highest = "9999" if until is None else day_of(until)
        return without_held(part for part in self.all(model) if lowest <= part.day <= highest)

    def all(self, model: str) -> Iterator[Part]:
        """A model's compacted files, those too that lie within another."""
        top = self.path(days_folder(model))
        try:
            self.fs.invalidate_cache()  # others write there too
            days = self.fs.ls(top, detail=False)
        except FileNotFoundError:
            return
        for day in days:
            match = _DAY.fullmatch(PurePosixPath(day).name)
            if match is None:
                continue
            try:
                listed = self.fs.ls(day, detail=True)
            except FileNotFoundError:  # it was retired just now
                continue
            for info in listed:
                name = _COMPACTED.fullmatch(PurePosixPath(info["name"]).name)
                if name:
                    size = int(info.get("size") or 0)
                    yield Part(info["name"], match[1], int(name[1]), int(name[2]), name[3], size)

    def models(self) -> list[str]:
        """Models with compacted files."""
        try:
            listed = self.fs.ls(self.path("days"), detail=False)
        except FileNotFoundError:
            return []
        names = [PurePosixPath(each).name for each in listed]
        return sorted(name.removeprefix("model=") for name in names if name.startswith("model="))


def shown(location: str) -> str:
    """A location as people may see it: without who may write there.

    >>> shown("sftp://me:secret@host/records?token=secret")
    'sftp://host/records'
    """
    protocol, mark, rest = location.partition("://")
    return location if not mark else f"{protocol}://{rest.partition('?')[0].rpartition('@')[2]}"


def without_held(parts: Iterable[Part]) -> list[Part]:
    """Without files whose segments lie within another's, oldest first."""
    kept: list[Part] = []
    by_size = sorted(parts, key=lambda part: (part.first - part.last, part.first, part.day))
    for part in by_size:
        if not any(
            other.day == part.day and other.holds(part.first, part.last, part.schema)
            for other in kept
        ):
            kept.append(part)
    return sorted(kept, key=lambda part: (part.day, part.first))


def models(root: Path, location: Location) -> list[str]:
    """Every model that has records."""
    folder = root / "segments"
    live = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted({*live, *location.models()})


def _local() -> Any:
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem(auto_mkdir=True)


__all__ = [
    "COMPACTED", "FOLDER", "LABELS", "SEGMENT", "Location", "Part", "Segment", "day_of",
    "days_folder", "models", "part_name", "segment_folder", "segment_name", "segments", "shown",
    "without_held",
]  # fmt: skip
